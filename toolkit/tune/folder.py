"""A study's folder: where the runs of its trials lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from toolkit.api.files import exclusive
from toolkit.runs.directory import RunDirectory, explained


def trial_run(folder: Path, number: int) -> RunDirectory:
    """The run of a trial, with the first of its seeds."""
    return RunDirectory(folder / f"trial-{number:04}")


def repeat_of(run: RunDirectory, number: int) -> RunDirectory:
    """The same recipe with the seed that is `number` higher; 0 is the run itself."""
    return RunDirectory(run.path / f"seed-{number}") if number else run


@contextmanager
def alone(folder: Path, lock: str = ".lock", *, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Keep other processes that name the same `lock` in a study's folder out of the block; `waiting` is called where
    one is in its own."""
    with ExitStack() as held:
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(exclusive(folder / lock, waiting=waiting))
        yield
