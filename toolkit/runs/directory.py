"""A run's directory: `runs/<recipe>/<time>/` and the files in it."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toolkit.api.contracts import EpochRecord
from toolkit.api.errors import RunFailed, UsageError
from toolkit.api.files import as_utf8, remove_unfinished, write_atomically

_MEND = "make room or mend the folder"
MEND_AND_REPEAT = f"{_MEND}, then type the same command again"


@dataclass(frozen=True)
class RunDirectory:
    """The paths of one run, and how its small files are written: whole or not at all."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.toml"

    @property
    def last(self) -> Path:
        return self.path / "last.pt"

    @property
    def best(self) -> Path:
        return self.path / "best.pt"

    @property
    def records(self) -> Path:
        return self.path / "records.jsonl"

    @property
    def scores(self) -> Path:
        return self.path / "scores.json"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.csv"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    @property
    def recipe_name(self) -> str:
        """What the run's recipe is called: as the folder of its runs. A run in another's folder is its repeat."""
        folder = self.path.resolve().parent
        return RunDirectory(folder).recipe_name if RunDirectory(folder).recipe.is_file() else folder.name

    @property
    def resume_command(self) -> str:
        return f"python -m toolkit run --resume {shlex.quote(str(self.path))}"

    def write_text(self, name: str, text: str) -> None:
        """Write one file of the run. Raises RunFailed when the file system refuses."""
        with self.explained():
            write_atomically(self.path / name, as_utf8(text))

    def write_json(self, name: str, value: Any) -> None:
        """As `write_text`; NaN and infinity, which JSON has not, become null."""
        self.write_text(name, json.dumps(_finite(value), indent=2, ensure_ascii=False) + "\n")

    def write_records(self, records: Iterable[EpochRecord]) -> None:
        lines = (json.dumps(_finite(asdict(record)), ensure_ascii=False) + "\n" for record in records)
        self.write_text(self.records.name, "".join(lines))

    def write_rows(self, name: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
        self.write_text(name, text.getvalue())

    def explained(self) -> AbstractContextManager[None]:
        """As `explained`, of what is written here."""
        begun = self.last.exists()
        return explained(self.path, next_step=f"{_MEND}, then: {self.resume_command}" if begun else MEND_AND_REPEAT)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process, and clear what a killed one left half-written. Raises RunFailed while another
        process works on it; where the file system has no locks, says so and goes on."""
        import fcntl

        with self.explained():
            file = (self.path / ".lock").open("a")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunFailed(
                    f"{self.path}: another process is working on this run",
                    next_step="wait for it, or start a run of your own",
                ) from error
            except OSError as error:
                print(
                    f"warning: {self.path}: cannot be locked: {error.strerror}; let no other process work on this run",
                    file=sys.stderr,
                )
            with self.explained():
                remove_unfinished(self.path)
            yield


def create(runs: Path, recipe_name: str, *, next_step: str | None = None) -> RunDirectory:
    """A new, empty directory named after the recipe and the time. Raises RunFailed, with `next_step`, where none can be
    made."""
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    parent = runs / recipe_name
    with explained(runs, next_step=next_step):
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
    """As `create`, for work that writes at its end: a folder that takes nothing is told first, and what was made goes
    again where nothing was written into it."""
    made = [folder for folder in (runs / recipe_name, runs) if not folder.exists()]
    directory = create(runs, recipe_name, next_step=MEND_AND_REPEAT)
    try:
        yield directory
    finally:
        with suppress(OSError):  # what holds something stays
            for folder in (directory.path, *made):
                folder.rmdir()


def existing(path: Path) -> RunDirectory:
    """The run at `path`. Raises UsageError where there is none."""
    directory = RunDirectory(path)
    if not directory.recipe.is_file():
        raise UsageError(f"{path}: not a run directory (it has no recipe.toml)", next_step=_nearby(path))
    return directory


@contextmanager
def explained(path: Path, *, next_step: str | None = None) -> Iterator[None]:
    """Turn the file system's refusal into RunFailed, naming `path` and, unless told otherwise, the option for another
    folder."""
    try:
        yield
    except OSError as error:
        raise RunFailed(
            f"{path}: cannot be written: {error.strerror or error}",
            next_step=next_step or f"{_MEND}, or choose another with --runs DIR",
        ) from error


def _numbered(stamp: str) -> Iterator[str]:
    yield stamp
    number = 2
    while True:
        yield f"{stamp}-{number}"
        number += 1


def _nearby(path: Path) -> str:
    if path.is_file() and (path.parent / "recipe.toml").is_file():
        return f"name its run: {shlex.quote(str(path.parent))}"
    runs = [found.parent for found in (*path.glob("*/recipe.toml"), *path.glob("*/*/recipe.toml"))]
    if runs:
        trained = [run for run in runs if RunDirectory(run).best.exists()]  # an evaluation has no weights
        latest = max(trained or runs, key=lambda run: run.name)
        return f"name one of its runs, the latest is {shlex.quote(str(latest))}"
    return "name a directory that `python -m toolkit run` has made, runs/<recipe>/<time>"


def _finite(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return None
        case Mapping():
            return {str(key): _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case os.PathLike():
            return os.fspath(value)
    return value
