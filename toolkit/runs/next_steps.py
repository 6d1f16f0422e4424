"""What to do with a run that has ended: commands that work as they are printed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from rich.console import Console

from toolkit.api.contracts import Pretraining
from toolkit.runs.examples import example_input, predict_command
from toolkit.runs.extension import extensible, from_weights
from toolkit.runs.loop import Prepared
from toolkit.runs.reopen import fine_tune_command
from toolkit.system.notices import show


def print_next_steps(prepared: Prepared, console: Console) -> None:
    """Each command on a line of its own, so that it can be copied and most fit 80 columns."""
    for purpose, command in next_steps(prepared):
        show(f"next:  {purpose}", f"  {command}", console=console)


def next_steps(prepared: Prepared) -> Iterator[tuple[str, str]]:
    """What each command is for, and the command."""
    directory, data = prepared.directory, prepared.assembly.data
    if isinstance(prepared.assembly.objective, Pretraining):
        yield "learn from labels", fine_tune_command(directory, prepared.assembly)
        return
    if len(data.valid) or len(data.test):  # an export is compared with the model on their items
        yield "export the model", shlex.join(["python", "-m", "toolkit", "export", str(directory.path)])
    if example_input(directory):
        yield "predict", predict_command(directory.path, directory)
    if longer := _more_epochs(prepared):
        yield "train longer", longer


def _more_epochs(prepared: Prepared) -> str | None:
    """Twice as many epochs where the schedule can be continued, else as many again from the weights of this run; None
    where the model takes no weights."""
    directory, assembly = prepared.directory, prepared.assembly
    epochs = assembly.recipe.train.epochs
    if extensible(assembly, prepared.state, prepared.setup, 2 * epochs):
        return f"{directory.resume_command} --extend {2 * epochs}"
    return from_weights(directory, assembly.plan, epochs)
