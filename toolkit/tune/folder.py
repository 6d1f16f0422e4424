"""A study's folder: where the runs of its trials lie."""

from __future__ import annotations

from pathlib import Path

from toolkit.directory import RunDirectory


def trial_run(folder: Path, number: int) -> RunDirectory:
    """The run of a trial, with the first of its seeds."""
    return RunDirectory(folder / f"trial-{number:04}")


def repeat_of(run: RunDirectory, number: int) -> RunDirectory:
    """The same recipe with the seed that is `number` higher; 0 is the run itself."""
    return RunDirectory(run.path / f"seed-{number}") if number else run
