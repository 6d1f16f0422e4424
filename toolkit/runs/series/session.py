"""Training a series: one run after the other; what is finished is not trained again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from toolkit.api.errors import RunFailed, Stopped, counted
from toolkit.recipe.write import to_toml
from toolkit.runs.directory import RunDirectory, create
from toolkit.runs.latest import point_at
from toolkit.runs.series.members import Member, read_members, write_members
from toolkit.runs.series.plan import SeriesPlan
from toolkit.runs.series.summary import summarise
from toolkit.runs.session import resume_run
from toolkit.system.notices import say, show, warn


def start_series(planned: SeriesPlan, *, runs: Path, console: Console) -> Path:
    """Train all runs of a series in a new folder below `runs`, which is returned.

    Raises RunFailed at the end where runs failed, and Stopped where a signal came: `resume_series` goes on with both.
    """
    folder = create(runs, planned.name).path
    for member, recipe in planned.recipes:
        run = RunDirectory(folder / member.run)
        with run.explained():
            run.path.mkdir()
        run.write_text(run.recipe, to_toml(recipe))
    write_members(folder, planned.members)  # last: a folder that has it holds every recipe
    return _train(folder, planned.members, console)


def resume_series(folder: Path, *, console: Console) -> Path:
    """Go on with a series from where it stopped."""
    return _train(folder, read_members(folder), console)


def _train(folder: Path, members: Sequence[Member], console: Console) -> Path:
    again = shlex.join(["python", "-m", "toolkit", "run", "--resume", str(folder)])
    failures: dict[str, str] = {}
    with RunDirectory(folder).locked():
        show(f"series {folder}: {counted(len(members), 'run')}", console=console)
        for place, one in enumerate(members, 1):
            run = RunDirectory(folder / one.run)
            if run.scores.is_file() and run.report.is_file():
                continue
            say(f"run {place} of {len(members)}: {one.run}  {one.label}".rstrip(), console, style="bold")
            point_at(folder.absolute() / one.run, folder.absolute().parent.parent)
            try:
                resume_run(run.path, recipe=None, overrides=(), console=console)
            except Stopped as stopped:
                raise Stopped(stopped.message, exit_code=stopped.exit_code, next_step=again) from stopped
            except RunFailed as error:  # such as a loss that is not finite: the others may train
                warn(f"{one.run}: {error.message}", console)
                failures[one.run] = error.message
        summarise(folder, members, failures, console)
    if failures:
        raise RunFailed(
            f"{folder}: {len(failures)} of {counted(len(members), 'run')} failed",
            details=[f"{run}: {cause}" for run, cause in failures.items()],
            next_step=f"try them again: {again}",
        )
    return folder
