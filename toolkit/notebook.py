"""What programs and notebooks use: `toolkit.run` trains a recipe, `toolkit.open_run` opens what was trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.api.errors import ToolkitError, counted
from toolkit.runs.directory import RunDirectory, existing

if TYPE_CHECKING:
    from toolkit.api.contracts import EpochRecord
    from toolkit.recipe.draft import Draft
    from toolkit.runs.files import RunFiles
    from toolkit.runs.rows import Row
    from toolkit.serving.bundle import Bundle
    from toolkit.training.network import Network

NOTHING: Mapping[str, object] = {}


def run(
    recipe: Path | str | Mapping[str, object],
    overrides: Mapping[str, object] = NOTHING,
    *,
    runs: Path | str = "runs",
    name: str = "notebook",
) -> Run:
    """Train a recipe to its end, as `python -m toolkit run` does, and return the run.

    recipe: a TOML file, the name of a shipped recipe, or a recipe's tables, which have no file and are called `name`.
    overrides: values by key, such as `{"train.epochs": 3}`. runs: the folder in which the run gets a folder of its own.

    Raises ToolkitError, whose `next_step` says what to do: RecipeError for a recipe that is not valid, Stopped where
    the notebook's kernel is interrupted, which leaves a run that can be resumed.
    """
    from toolkit.build.plan import plan
    from toolkit.cli.parser import console
    from toolkit.host.registry import discover
    from toolkit.runs.session import start_run

    with _noted():
        planned = plan(_draft(recipe, written(overrides), name), discover())
        return Run(start_run(planned, runs=Path(runs), console=console()).directory)


def _draft(recipe: Path | str | Mapping[str, object], overrides: Sequence[str], name: str) -> Draft:
    from toolkit.recipe.read import parse, parse_text
    from toolkit.recipe.shipped import file_of
    from toolkit.recipe.write import tables_to_toml

    if isinstance(recipe, Mapping):
        return parse_text(tables_to_toml(recipe), name, overrides, name=name)
    return parse(file_of(Path(recipe)), overrides)


def open_run(path: Path | str) -> Run:
    """The run in this folder, or the one that `runs/latest` points at. Raises MissingRunError where none is."""
    with _noted():
        return Run(existing(Path(path)))


@contextmanager
def _noted() -> Iterator[None]:
    """Let a traceback show what a command would print of an error: all problems, and what to do next."""
    try:
        yield
    except ToolkitError as error:
        for line in error.lines():
            if line != error.message:
                error.add_note(line)
        if error.next_step and not error.next_step.startswith("fix "):  # there is no command to repeat
            error.add_note(f"next:  {error.next_step}")
        raise


def written(overrides: Mapping[str, object]) -> list[str]:
    """Overrides as `--set` takes them."""
    from toolkit.recipe.write import inline

    return [f"{key}={inline(value)}" for key, value in overrides.items()]


@dataclass(frozen=True)
class Run:
    """A run and what it has measured and trained. In a notebook it shows its scores.

    Its files are read once, when they are first asked for: open the run again to see what came later.
    """

    directory: RunDirectory

    @property
    def path(self) -> Path:
        return self.directory.path

    @property
    def report(self) -> Path:
        """The page of the run, a file that needs no other."""
        return self.directory.report

    @cached_property
    def _files(self) -> RunFiles:
        from toolkit.runs.files import read_run

        return read_run(self.path)

    @property
    def scores(self) -> Mapping[str, Any]:
        """Scores by split and name, `scores["test"]["accuracy"]`; empty until the run has ended."""
        return self._files.scores

    @property
    def records(self) -> Sequence[EpochRecord]:
        """What each epoch measured."""
        return self._files.records

    @property
    def answers(self) -> Sequence[Row]:
        """The answer to each item of the split that the run is judged on: test, or valid where there is no test."""
        return self._files.rows

    def network(self, overrides: Mapping[str, object] = NOTHING) -> Network:
        """The trained network of the best epoch, on the recipe's device, in evaluation mode.

        It takes uint8 pixels `[B, 3, H, W]`, of clips `[B, T, 3, H, W]`, and returns logits `[B, C]`. The run's data
        must be there, or other data with the same classes: `{"data.root": "FOLDER"}`. Raises CheckpointError where the
        weights do not fit.
        """
        from toolkit.runs.reopen import open_trained

        with _noted():
            return open_trained(self.path, written(overrides)).assembly.network.eval()

    def bundle(self, overrides: Mapping[str, object] = NOTHING) -> Bundle:
        """The exported model, which answers numpy images; `overrides` are of the table `export`.

        The export happens once, through the gate, and is kept in the run. Raises ParityError where an exported model
        does not answer as the network does.
        """
        from toolkit.cli.parser import console
        from toolkit.export.once import bundle_of
        from toolkit.serving.bundle import Bundle

        with _noted():
            return Bundle.load(bundle_of(self.directory, written(overrides), console()))

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from toolkit.runs.scores import score_rows

        sample = " (SAMPLE data)" if self._files.facts.get("sample") else ""
        title = f"<p><b>{escape(self._files.name)}</b>{sample}: {escape(str(self.path))}</p>"
        splits = {name: self.scores[name] for name in ("valid", "test") if self.scores.get(name)}
        if not splits:
            return f"{title}<p>not finished after {counted(len(self.records), 'epoch')}</p>"
        lines = [("score", *splits), *((row.heading, *row.texts) for row in score_rows([*splits.values()]))]
        cells = ("".join(f"<td>{escape(cell)}</td>" for cell in line) for line in lines)
        return f"{title}<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"
