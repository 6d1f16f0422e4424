"""Trials on several ranks: what their worker makes of their records and of how they end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import TCPStore

from tests.tune.studies import REGISTRY, recipe
from toolkit.api.contracts import EpochRecord
from toolkit.api.errors import EXIT_DATA, EXIT_FAILED, EXIT_STOPPED, DataError, RunFailed, Stopped
from toolkit.build.plan import Plan, plan
from toolkit.recipe.draft import Draft
from toolkit.runs.directory import RunDirectory
from toolkit.system.ranks import RanksLost
from toolkit.tune.worker import ranked
from toolkit.tune.worker.ranked import Ending, decision_after, ending_of, record_of, train_on_ranks

RECORDS = [
    EpochRecord(epoch, 4 * epoch, 1.0 / epoch, {"loss": 0.5}, {"all": 0.1}, 1.0, 0.5, 0.0, epoch == 1)
    for epoch in (1, 2)
]
ENDS, WAITS, DIES = "pass", "import sys; sys.stdin.readline(); sys.stdin.read()", "import os; os.kill(os.getpid(), 9)"


class Started:
    """Small programs in place of ranks. `say` is called for each rank with the store that they share."""

    def __init__(self, programs: list[str], say: Callable[[TCPStore, int], None] = lambda store, rank: None) -> None:
        self.programs, self.say, self.count = programs, say, 0
        self.served: list[TCPStore] = []

    def __call__(self, order: Mapping[str, Any], rank: int, ranks: int, port: int) -> subprocess.Popen[str]:
        self.count += 1
        self.say(TCPStore("localhost", port, is_master=False, timeout=timedelta(seconds=30)), rank)
        return subprocess.Popen([sys.executable, "-c", self.programs[rank]], stdin=subprocess.PIPE, text=True)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Started]:
    served: list[TCPStore] = []

    def serve(*words: Any, **options: Any) -> TCPStore:
        store = TCPStore(*words, **options)
        served.append(store)
        return store

    def start(*programs: str, say: Callable[[TCPStore, int], None] = lambda store, rank: None) -> Started:
        made = Started([*programs], say)
        made.served = served
        monkeypatch.setattr(ranked, "_start", made)
        monkeypatch.setattr(ranked, "TCPStore", serve)
        monkeypatch.setattr(ranked, "STOP_SECONDS", 5.0)
        monkeypatch.setattr(ranked, "LOST_SECONDS", 0.5)
        return made

    return start


def planned() -> Plan:
    return plan(Draft.of(recipe()), REGISTRY)


def leave_records(store: TCPStore, rank: int) -> None:
    for number, record in enumerate(RECORDS):
        store.set(record_of(number), json.dumps(asdict(record)))


def leaving(**errors: BaseException) -> Callable[[TCPStore, int], None]:
    """What ranks leave as their errors: `rank_0=error`."""

    def say(store: TCPStore, rank: int) -> None:
        if (error := errors.get(f"rank_{rank}")) is not None:
            code = getattr(error, "exit_code", EXIT_FAILED)
            store.set(ending_of(rank), json.dumps(asdict(Ending.of(error, code))))

    return say


def test_records_come_from_the_ranks_and_each_gets_a_decision(tmp_path: Path, started: Callable[..., Started]) -> None:
    ranks = started(ENDS, ENDS, say=leave_records)
    assert list(train_on_ranks(planned(), RunDirectory(tmp_path), ranks=2)) == RECORDS
    assert ranks.count == 2


@pytest.mark.parametrize(
    ("end", "decision"),
    [(None, "leave"), (RunFailed("the score is not finite"), "RunFailed: the score is not finite")],
)
def test_a_run_that_is_left_early_lets_its_ranks_leave(
    tmp_path: Path, started: Callable[..., Started], end: Exception | None, decision: str
) -> None:
    ranks = started(WAITS, WAITS, say=leave_records)
    training = train_on_ranks(planned(), RunDirectory(tmp_path), ranks=2)
    assert [next(training), next(training)] == RECORDS
    if end is None:
        training.close()
    else:
        with pytest.raises(RunFailed, match="not finite"):
            training.throw(end)
    assert [ranks.served[0].get(decision_after(number)).decode() for number in (0, 1)] == ["go on", decision]


def test_ranks_of_which_one_is_killed_are_started_again_while_the_run_gets_further(
    tmp_path: Path, started: Callable[..., Started]
) -> None:
    run = RunDirectory(tmp_path)

    def save_twice(store: TCPStore, rank: int) -> None:
        if rank == 0 and ranks.count <= 4:
            run.last.write_text(str(ranks.count))

    ranks = started(WAITS, DIES, say=save_twice)
    with pytest.raises(RunFailed) as caught:
        list(train_on_ranks(planned(), run, ranks=2))
    assert caught.value.message == (
        "rank 1 was ended by SIGKILL, which the system also sends to processes when memory runs out; "
        "the run got no further when its ranks were started again"
    )
    assert ranks.count == 6


@pytest.mark.parametrize(
    ("errors", "kind", "message"),
    [
        ({"rank_0": RanksLost("lost"), "rank_1": DataError("b.jpg: damaged")}, RunFailed, "b.jpg: damaged"),
        ({"rank_1": ValueError("odd")}, RunFailed, "ValueError: odd"),
        ({"rank_0": Stopped("saved", exit_code=EXIT_STOPPED, next_step="again")}, Stopped, "saved"),
        (
            {"rank_0": RanksLost("rank 0 of 2 lost the others")},
            RunFailed,
            "rank 0 of 2 lost the others; the run",
        ),
        ({}, RunFailed, f"rank 1 ended with exit code {EXIT_DATA}"),
    ],
)
def test_the_cause_is_that_of_the_rank_that_knows_more_than_a_loss(
    tmp_path: Path,
    started: Callable[..., Started],
    errors: dict[str, BaseException],
    kind: type[Exception],
    message: str,
) -> None:
    started(WAITS, f"import sys; sys.exit({EXIT_DATA})", say=leaving(**errors))
    with pytest.raises(kind) as caught:
        list(train_on_ranks(planned(), RunDirectory(tmp_path), ranks=2))
    assert str(caught.value).startswith(message)


def test_a_full_disk_stays_one(tmp_path: Path, started: Callable[..., Started]) -> None:
    try:
        raise RunFailed("last.pt: cannot be written", next_step="free space") from OSError("full")
    except RunFailed as error:
        started(WAITS, f"import sys; sys.exit({EXIT_FAILED})", say=leaving(rank_1=error))
    with pytest.raises(RunFailed, match="cannot be written") as caught:
        list(train_on_ranks(planned(), RunDirectory(tmp_path), ranks=2))
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.next_step == "free space"
