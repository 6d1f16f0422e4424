"""Storages of a study that hold thousands of trials, and what one more trial costs in them."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import FloatDistribution
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.trial import create_trial

from toolkit.tune.storage import opened_storage

KEYS = 6
EPOCHS = 12
SEEDED = 100
"""Trials that Optuna itself writes; the others are copies of their rows, for one by one they would take minutes."""
NAME = "bench"

SPACE: Mapping[str, FloatDistribution] = {f"key.{number}": FloatDistribution(0, 1) for number in range(KEYS)}


@dataclass(frozen=True)
class Filled:
    """A study with many finished trials in a storage of its own."""

    study: optuna.Study
    opened: float
    """Seconds in which a worker that joins has read all trials."""

    def trial(self) -> float:
        """Seconds of asking for a trial and reporting its score, its values drawn at random."""
        began = time.perf_counter()
        trial = self._asked()
        self.study.tell(trial, 0.5)
        return time.perf_counter() - began

    def report(self) -> float:
        """Seconds of reporting one epoch, the mean over those of a trial."""
        trial = self._asked()
        began = time.perf_counter()
        for epoch in range(1, EPOCHS + 1):
            trial.report(0.5, epoch)
        seconds = (time.perf_counter() - began) / EPOCHS
        self.study.tell(trial, 0.5)
        return seconds

    def _asked(self) -> optuna.Trial:
        trial = self.study.ask()
        for key in SPACE:
            trial.suggest_float(key, 0, 1)
        return trial


@contextmanager
def filled(folder: Path, url: str | None, trials: int) -> Iterator[Filled]:
    """A study of so many trials in a journal file in `folder`, or in the empty database at `url`."""
    folder.mkdir()
    with opened_storage(folder, url) as storage:
        _study(storage).add_trials([_finished(number) for number in range(SEEDED)])
        _multiply(storage, folder, trials // SEEDED)
    with opened_storage(folder, url) as storage:
        began = time.perf_counter()
        study = _study(storage)
        found = len(study.get_trials(deepcopy=False))
        assert found == trials, f"{found} trials of {trials}"
        yield Filled(study, time.perf_counter() - began)


def _study(storage: BaseStorage) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.RandomSampler(seed=0)
    return optuna.create_study(storage=storage, study_name=NAME, sampler=sampler, load_if_exists=True)


def _finished(number: int) -> optuna.trial.FrozenTrial:
    values = {key: math.modf((number + 1) * (place + 2) * 0.618)[0] for place, key in enumerate(SPACE)}
    reported = {epoch: epoch / EPOCHS for epoch in range(1, EPOCHS + 1)}
    return create_trial(value=1.0, params=values, distributions=dict(SPACE), intermediate_values=reported)


def _multiply(storage: BaseStorage, folder: Path, times: int) -> None:
    """Make of each trial so many."""
    if isinstance(storage, JournalStorage):
        journal = folder / "journal.log"
        lines = journal.read_bytes().splitlines(keepends=True)[-SEEDED:]
        with journal.open("ab") as file:
            file.write(b"".join(lines) * (times - 1))
            os.fsync(file.fileno())
        return
    inner = getattr(storage, "_backend", storage)  # Optuna wraps a database in a cache
    assert isinstance(inner, RDBStorage)
    _multiply_rows(inner.engine, times)


def _multiply_rows(engine: Any, times: int) -> None:
    import sqlalchemy as sql

    tables = sql.MetaData()
    tables.reflect(engine)
    trials = tables.tables["trials"]
    below = [tables.tables[name] for name in ("trial_params", "trial_values", "trial_intermediate_values")]
    with engine.begin() as connection:
        rows = [dict(row) for row in connection.execute(sql.select(trials)).mappings()]
        parts = {table: [dict(row) for row in connection.execute(sql.select(table)).mappings()] for table in below}
        for copy in range(1, times):
            shift = copy * len(rows)
            moved = [{**row, "trial_id": row["trial_id"] + shift, "number": row["number"] + shift} for row in rows]
            connection.execute(sql.insert(trials), moved)
            for table, found in parts.items():
                own = table.primary_key.columns.keys()[0]
                copies = [{**row, "trial_id": row["trial_id"] + shift} for row in found]
                connection.execute(sql.insert(table), [_without(row, own) for row in copies])
        if engine.dialect.name == "postgresql":
            last = len(rows) * times
            connection.execute(
                sql.text("SELECT setval(pg_get_serial_sequence('trials', 'trial_id'), :last)"), {"last": last}
            )


def _without(row: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != key}
