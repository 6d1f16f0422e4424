"""The rules of trackers."""

from __future__ import annotations

import contextlib
import copy
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolkit.api.contracts import EpochRecord, Record, RunFinished, RunStarted, Tracker, Viewed
from toolkit.kit.testing.case import Subject, once
from toolkit.kit.testing.rulebook import DoesNotApply, Rulebook
from toolkit.runs.directory import RunDirectory

RULES = Rulebook("tracker")

RECIPE: dict[str, Any] = {
    "name": "examined",
    "data": {"name": "folders", "root": "pictures", "test_share": 0.2},
    "model": {"name": "cnn", "widths": [8, 16]},
    "augment": [{"name": "horizontal_flip", "p": 0.5}],
    "metrics": [{"name": "accuracy"}],
    "train": {"epochs": 3, "batch": 4, "optimizer": {"name": "sgd", "lr": 0.1}, "ema": None},
}
FACTS: dict[str, Any] = {"recipe": "examined", "device": "cpu", "precision": "fp32", "parameters": 123, "sample": True}
SCORES: dict[str, Any] = {
    "protocol": {"dataset": "folders", "sample": True},
    "valid": {"loss": 0.7, "accuracy": 0.5},
    "test": {"loss": 0.8, "accuracy": 0.25, "confusion_matrix": [[1, 0], [3, 0]]},
}


@RULES.rule
def records(subject: Subject) -> Iterator[str]:
    """Every record of a run is taken: one `RunStarted`, an `EpochRecord` an epoch, one `RunFinished`, then `close`."""
    run = run_directory(subject)
    yield from tracked(subject.build(run), [started(), *(epoch(number) for number in (1, 2, 3)), finished(run)])


@RULES.rule
def unusual(subject: Subject) -> Iterator[str]:
    """Numbers that are NaN, epochs without validation and records after a first that was missed are taken too."""
    run = run_directory(subject)
    odd = EpochRecord(2, 8, math.nan, {"loss": math.inf}, {"backbone": 0.0}, 0.0, 0.0, 0.0, False, True)
    bare = EpochRecord(1, 4, 0.5, {}, {}, 0.0, 0.0, 0.0, False)
    yield from tracked(subject.build(run), [started(), bare, odd, RunFinished({}, run)])


@RULES.rule
def close(subject: Subject) -> Iterator[str]:
    """`close` may come at any time, and twice: a run may be stopped before its first record."""
    two: list[Record] = [started(), epoch(1)]
    for what, count in (("before the first record", 0), ("after the first", 1), ("after an epoch", 2)):
        tracker = subject.build(run_directory(subject))
        for record in two[:count]:
            tracker.track(record)
        for time in ("", " for the second time"):
            try:
                tracker.close()
            except Exception as error:
                yield f"close{time} {what} raised {type(error).__name__}: {error}"
                break


@RULES.rule
def inside(subject: Subject) -> Iterator[str]:
    """All files are written below the run directory."""
    run = run_directory(subject, subject.scratch("runs"))  # what lies next to other runs may be there already
    around = subject.folder
    before = _files(around)
    with contextlib.chdir(subject.scratch("elsewhere")):
        _tell(subject.build(run), [started(), epoch(1), epoch(2), finished(run)])
    outside = [path for path in _files(around) if path not in before and run not in path.parents]
    for path in sorted(outside):
        yield f"{path.name} was written to {path.parent.relative_to(around) or '.'}, outside {run.relative_to(around)}"


@RULES.rule
def resumed(subject: Subject) -> Iterator[str]:
    """A resumed run, which begins with `RunStarted` again, loses nothing that was written before."""
    run = run_directory(subject)
    _tell(subject.build(run), [started(), *(epoch(number) for number in (1, 2, 3))])
    before = _files(run)
    _tell(subject.build(run), [started(), epoch(4), finished(run)])
    after = _files(run)
    for path, size in before.items():
        if path not in after:
            yield f"{path.name} is gone"
        elif after[path] < size:
            yield f"{path.name} became shorter: {after[path]} bytes of {size}"


@RULES.rule
def viewer(subject: Subject) -> Iterator[str]:
    """`viewer`, where a tracker has it, is one line of text: a command to type, an address to open, or nothing."""
    tracker: Tracker = subject.build(run_directory(subject))
    with contextlib.closing(tracker):
        if not isinstance(tracker, Viewed):
            raise DoesNotApply("the tracker has no viewer")
        line: object = tracker.viewer
        if not isinstance(line, str) or "\n" in line or line != line.strip():
            yield f"viewer is {line!r}"


@RULES.rule
def unchanged(subject: Subject) -> Iterator[str]:
    """Records are read and left as they are: other trackers see the same."""
    run = run_directory(subject)
    given = [started(), epoch(1), finished(run)]
    before = copy.deepcopy(given)
    tracker = subject.build(run)
    for record, own in zip(given, before, strict=True):
        tracker.track(record)
        if record != own:
            yield f"{type(record).__name__} was changed"
    tracker.close()


def tracked(tracker: Tracker, records: list[Record]) -> Iterator[str]:
    """What goes wrong while a tracker gets these records and is closed."""
    for record in records:
        try:
            tracker.track(record)
        except Exception as error:
            yield f"{type(record).__name__} raised {type(error).__name__}: {error}"
    try:
        tracker.close()
    except Exception as error:
        yield f"close raised {type(error).__name__}: {error}"


@once
def runs(subject: Subject) -> Path:
    """The folder of all runs, with what trackers keep next to them: making a database takes MLflow seconds."""
    return subject.scratch("runs")


def run_directory(subject: Subject, folder: Path | None = None) -> Path:
    """A new run directory with a few of the files that a run leaves, below a folder of runs."""
    of_recipe = (folder or runs(subject)) / "examined"
    of_recipe.mkdir(exist_ok=True)
    run = RunDirectory(of_recipe / f"2026-01-01_00-00-{len([*of_recipe.iterdir()]):02}")
    run.figures.mkdir(parents=True)
    run.recipe.write_text('name = "examined"\n', encoding="utf-8")
    run.scores.write_text(json.dumps(SCORES), encoding="utf-8")
    run.report.write_text("<p>examined</p>", encoding="utf-8")
    return run.path


def started() -> RunStarted:
    """The first record of a run."""
    return RunStarted(copy.deepcopy(RECIPE), copy.deepcopy(FACTS))


def epoch(number: int) -> EpochRecord:
    """The record of an epoch, counted from 1."""
    return EpochRecord(
        epoch=number,
        step=4 * number,
        train_loss=1 / number,
        valid={"loss": 1.1 / number, "accuracy": 0.5},
        lr={"backbone": 0.01, "head": 0.1},
        seconds=1.5,
        valid_seconds=0.5,
        waiting=0.1,
        best=number == 1,
        sample=True,
    )


def finished(run: Path) -> RunFinished:
    """The last record of a run."""
    return RunFinished(copy.deepcopy(SCORES), run)


def _tell(tracker: Tracker, records: list[Record]) -> None:
    for record in records:
        tracker.track(record)
    tracker.close()


def _files(folder: Path) -> dict[Path, int]:
    """The files below a folder with their sizes in bytes; a link holds nothing of its own."""
    return {path: path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}
