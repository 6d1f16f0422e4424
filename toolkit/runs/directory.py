"""A run's directory: `runs/<recipe>/<time>/` and the files in it."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from toolkit.api.errors import DataError, MissingRunError, RunFailed
from toolkit.api.files import as_utf8, exclusive, read_regular, remove_unfinished, write_atomically
from toolkit.runs.latest import followed
from toolkit.system.checkpoints import BEST, LAST
from toolkit.system.notices import warn

T = TypeVar("T")

_FIX = "free disk space or fix the folder"
FIX_AND_REPEAT = f"{_FIX}, then run the same command again"
EVALUATIONS = "evaluations"
"""The folder, below a run, of its later evaluations."""
BUNDLE_SUFFIX = "-bundle"
"""Ends the name of the folder of a bundle's evaluations."""
SERIES = "series.json"
"""The file that makes a folder one of a series of runs."""
LADDER = "ladder.json"
"""The file that makes a folder one of a ladder's steps."""


class _File:
    """A file of a run, by its name: a property of RunDirectory that gives the path."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, run: RunDirectory, owner: type[RunDirectory]) -> Path:
        return run.path / self._name


@dataclass(frozen=True)
class RunDirectory:
    """The paths of one run's files; reads and writes small files, which are written whole or not at all."""

    path: Path

    recipe = _File("recipe.toml")
    environment = _File("environment.json")
    summary = _File("summary.txt")
    facts = _File("facts.json")
    records = _File("records.jsonl")
    last = _File(LAST)
    best = _File(BEST)
    scores = _File("scores.json")
    predictions = _File("predictions.csv")
    sources = _File("sources.csv")
    slices = _File("slices.csv")
    embedding = _File("embedding.csv")
    file_problems = _File("files.csv")
    figures = _File("figures")
    bundles = _File("bundles")
    report = _File("report.html")

    @property
    def recipe_name(self) -> str:
        """What the run's recipe is called: as the folder of its runs. A run in another's folder is its repeat, and one
        in a series or a ladder is part of it."""
        folder = self.path.resolve().parent
        repeated = RunDirectory(folder).recipe.is_file() or any((folder / name).is_file() for name in (SERIES, LADDER))
        return RunDirectory(folder).recipe_name if repeated else folder.name

    @property
    def resume_command(self) -> str:
        return f"python -m toolkit run --resume {shlex.quote(str(self.path))}"

    def read_text(self, file: Path) -> str:
        """One file of the run. Raises DataError where it is not UTF-8."""
        try:
            return read_regular(file).decode()
        except UnicodeDecodeError as error:
            raise self.damaged(file, f"not UTF-8 text ({error.reason} at byte {error.start})") from error

    def read_json(self, file: Path) -> dict[str, Any]:
        """The table in a JSON file; empty where there is no such file. Raises DataError where it holds something
        else."""
        if not file.is_file():
            return {}
        try:
            table = json.loads(self.read_text(file))
        except ValueError as error:
            raise self.damaged(file, f"not valid JSON ({error})") from error
        if not isinstance(table, dict):
            raise self.damaged(file, f"expected a table, got a {type(table).__name__}")
        return table

    def read_rows(self, file: Path, read: Callable[[Mapping[str, str]], T]) -> list[T]:
        """What `read` makes of each row of a CSV file, by column; nothing where there is no such file. Raises DataError
        with the line where it raises KeyError, TypeError or ValueError."""
        if not file.is_file():
            return []
        rows = csv.DictReader(io.StringIO(self.read_text(file), newline=""))
        try:
            return [read(row) for row in rows]
        except KeyError as error:
            raise self.damaged(file, f"column {error.args[0]} is missing") from error
        except (TypeError, ValueError, csv.Error) as error:
            raise self.damaged(file, f"line {rows.line_num}: {error}") from error

    def write_text(self, file: Path, text: str) -> None:
        """Write one file of the run. Raises RunFailed when the file system refuses."""
        with self.explained():
            write_atomically(file, as_utf8(text))

    def remove(self, file: Path) -> None:
        """Remove one file of the run, if it is there. Raises RunFailed when the file system refuses."""
        with self.explained():
            file.unlink(missing_ok=True)

    def write_json(self, file: Path, value: Any) -> None:
        """As `write_text`; NaN and infinity, which JSON has not, become null."""
        self.write_text(file, json.dumps(null_for_nan(value), indent=2, ensure_ascii=False) + "\n")

    def damaged(self, file: Path, cause: str) -> DataError:
        """The error for a file of this run that cannot be used. The next step is the command that scores again what
        was scored here: new scores go to a directory of their own."""
        here = self.path.resolve()
        if here.parent.name == EVALUATIONS:
            next_step = f"evaluate the run again, with the same overrides: {_evaluate(here.parent.parent)}"
        elif here.parent.name.endswith(BUNDLE_SUFFIX):
            next_step = "evaluate the bundle again, with the same overrides: python -m toolkit evaluate BUNDLE"
        else:
            scored = shlex.quote(str(self.path / EVALUATIONS / "TIME"))
            next_step = f"score it again: {_evaluate(self.path)}, then report that: python -m toolkit report {scored}"
        return DataError(cause, path=file, next_step=next_step)

    def explained(self) -> AbstractContextManager[None]:
        """As `explained`, of what is written here."""
        begun = self.last.exists()
        return explained(self.path, next_step=f"{_FIX}, then: {self.resume_command}" if begun else FIX_AND_REPEAT)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process, and clear what a killed one left half-written. Raises RunFailed while another
        process works on it; where the file system has no locks, says so and goes on."""

        def busy() -> None:
            raise RunFailed(
                f"{self.path}: another process is working on this run",
                next_step="wait for it, or start a run of your own",
            )

        def unlockable(error: OSError) -> None:
            warn(f"{self.path}: cannot be locked: {error.strerror}; let no other process work on this run")

        with ExitStack() as held:
            with self.explained():
                held.enter_context(exclusive(self.path / ".lock", waiting=busy, unlockable=unlockable))
                remove_unfinished(self.path)
            yield


def create(runs: Path, recipe_name: str, *, next_step: str | None = None) -> RunDirectory:
    """A new, empty directory named after the recipe and the time. Raises RunFailed, with `next_step`, where none can be
    made."""
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    parent = runs / recipe_name
    with explained(runs, next_step=next_step):
        if followed(parent) != parent:  # a recipe of that name has its folder there
            parent.unlink()
        parent.mkdir(parents=True, exist_ok=True)
        for name in _numbered(stamp):
            try:
                (parent / name).mkdir()
            except FileExistsError:
                continue
            return RunDirectory(parent / name)
    raise AssertionError("unreachable: names do not run out")


@contextmanager
def created(runs: Path, recipe_name: str) -> Iterator[RunDirectory]:
    """As `create`, for work that writes at its end: a folder that cannot be written is reported before the work. What
    was made is removed where nothing was written into it."""
    made = [folder for folder in (runs / recipe_name, runs) if not folder.exists()]
    directory = create(runs, recipe_name, next_step=FIX_AND_REPEAT)
    try:
        yield directory
    finally:
        with suppress(OSError):  # what holds something stays
            for folder in (directory.path, *made):
                folder.rmdir()


def existing(path: Path) -> RunDirectory:
    """The run at `path`. Raises MissingRunError where no run is."""
    directory = RunDirectory(followed(path))
    if not directory.recipe.is_file():
        cause = f"not a run directory (it has no {directory.recipe.name})" if path.exists() else "no such directory"
        raise MissingRunError(f"{directory.path}: {cause}", path=path, near=_nearby(directory))
    return directory


def name_of_recipe(path: Path) -> str | None:
    """What the recipe at `path` is called where it is a run's own, which all have the same file name; else None."""
    run = RunDirectory(path.parent)
    return run.recipe_name if path.name == run.recipe.name and run.last.exists() else None


@contextmanager
def explained(path: Path, *, next_step: str | None = None) -> Iterator[None]:
    """Turn the file system's refusal into RunFailed, naming the file, or `path` where the system names none, and,
    unless `next_step` is given, the option for another folder."""
    try:
        yield
    except OSError as error:
        raise RunFailed(
            f"{error.filename or path}: cannot be written: {error.strerror or error}",
            next_step=next_step or f"{_FIX}, or choose another with --runs DIR",
        ) from error


def _numbered(stamp: str) -> Iterator[str]:
    yield stamp
    number = 2
    while True:
        yield f"{stamp}-{number}"
        number += 1


def _nearby(directory: RunDirectory) -> Path | None:
    """The run that a path was probably to name: that of a file, the latest one below a folder."""
    path, recipe = directory.path, directory.recipe.name
    if path.is_file() and (path.parent / recipe).is_file():
        return path.parent
    found = [file.parent for pattern in ("*", "*/*") for file in path.glob(f"{pattern}/{recipe}")]
    runs = [RunDirectory(run) for run in found if followed(run) == run]
    trained = [run for run in runs if run.best.exists()]  # an evaluation has no weights
    latest = max(trained or runs, key=lambda run: (run.recipe.stat().st_mtime_ns, run.path.name), default=None)
    return latest.path if latest else None


def _evaluate(run: Path) -> str:
    return f"python -m toolkit evaluate {shlex.quote(str(run))}"


def null_for_nan(value: Any) -> Any:
    """`value` as JSON can hold it: NaN and infinity as None, tuples as lists, paths as texts."""
    match value:
        case float() if not math.isfinite(value):
            return None
        case Mapping():
            return {str(key): null_for_nan(item) for key, item in value.items()}
        case list() | tuple():
            return [null_for_nan(item) for item in value]
        case os.PathLike():
            return os.fspath(value)
    return value


def nan_for_null(value: Any) -> Any:
    """Scores as `null_for_nan` has written them: None is NaN."""
    if isinstance(value, dict):
        return {key: nan_for_null(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [nan_for_null(inner) for inner in value]
    return math.nan if value is None else value
