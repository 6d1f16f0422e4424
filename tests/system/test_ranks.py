"""Ranks: who they are, and what they say to each other."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.ranks import together
from toolkit.api.errors import DataError, RunFailed, UsageError
from toolkit.system.ranks import ALONE, VARIABLES, Ranks, RanksLost, connected, launched, leave_for_launcher


def rank(monkeypatch: pytest.MonkeyPatch, *numbers: int) -> None:
    for name, number in zip(VARIABLES, numbers, strict=True):
        monkeypatch.setenv(name, str(number))


def test_a_process_without_a_launcher_is_alone() -> None:
    assert launched() is ALONE
    assert ALONE.leads
    assert not ALONE.together
    assert ALONE.sum(torch.tensor(3)) == 3
    assert ALONE.most(1, 2.5) == [1, 2.5]
    assert (ALONE.each(4, 0.5), ALONE.gather("a"), ALONE.spread(lambda: "b")) == ([[4, 0.5]], ["a"], "b")


def test_a_rank_is_what_its_launcher_says(monkeypatch: pytest.MonkeyPatch) -> None:
    rank(monkeypatch, 5, 8, 1, 4)
    assert launched() == Ranks(5, 8, 1, 4)
    assert str(launched()) == "rank 5 of 8"


def test_a_world_of_one_is_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert launched() is ALONE


def test_half_of_a_launcher_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="the environment has WORLD_SIZE but not RANK, LOCAL_RANK, LOCAL_WORLD_SIZE"):
        launched()


@pytest.mark.parametrize(("items", "ranks"), [(8, 2), (7, 3), (2, 4), (0, 2), (1, 1)])
def test_shares_are_all_of_a_batch_in_order(items: int, ranks: int) -> None:
    shares = [list(range(items))[Ranks(number, ranks).share(items)] for number in range(ranks)]
    assert list(itertools.chain(*shares)) == list(range(items))
    lengths = [len(share) for share in shares]
    assert max(lengths) - min(lengths) <= 1
    assert lengths == sorted(lengths, reverse=True)


def test_an_error_is_left_where_the_launcher_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    leave_for_launcher(["a.jpg: damaged", "  more"])
    assert json.loads((tmp_path / "error.json").read_text())["message"]["message"] == "a.jpg: damaged\n  more"


def test_a_broken_connection_is_a_lost_rank() -> None:
    text = "[../third_party/gloo/pair.cc:534] Connection closed by peer [127.0.0.1]:1. This is typically caused by"
    said = r"lost the others: Connection closed by peer \[127.0.0.1\]:1$"
    with pytest.raises(RanksLost, match=said) as lost, connected("resume"):
        raise RuntimeError(text)
    assert lost.value.next_step == "resume"
    with pytest.raises(RuntimeError, match="shape"), connected():
        raise RuntimeError("shape mismatch")


def _exchange(ranks: Ranks) -> Any:
    summed = ranks.sum(torch.tensor([1.0, ranks.rank]))
    return (
        summed.tolist(),
        ranks.most(ranks.rank, -ranks.rank),
        ranks.each(ranks.rank + 10, 0.5),
        ranks.gather(f"r{ranks.rank}"),
        ranks.spread(lambda: f"r{ranks.rank}"),
    )


def test_ranks_exchange_what_they_have() -> None:
    assert (
        together(_exchange, 3)
        == [([3.0, 3.0], [2.0, 0.0], [[10, 0.5], [11, 0.5], [12, 0.5]], ["r0", "r1", "r2"], "r0")] * 3
    )


def _all_fail(ranks: Ranks) -> None:
    ranks.most(0)
    raise RunFailed("the loss is not finite")


def test_what_all_ranks_raise_is_shown_once() -> None:
    answers = together(_all_fail, 3)
    assert [answer[:2] for answer in answers] == [("RunFailed", "the loss is not finite")] * 3
    assert sorted(answer[2] for answer in answers) == [False, True, True]


def _one_fails(ranks: Ranks) -> None:
    if ranks.rank == 1:
        raise DataError("b.jpg: damaged")
    while True:
        ranks.most(0)


def test_ranks_that_lost_one_leave_it_to_that_one_to_say_why() -> None:
    first, failed, last = together(_one_fails, 3)
    assert failed == ("DataError", "b.jpg: damaged", False)
    assert (first[0], first[2], last[0], last[2]) == ("RanksLost", True, "RanksLost", True)


def _one_dies(ranks: Ranks) -> None:
    if ranks.rank == 2:
        import os

        os._exit(9)
    while True:
        ranks.most(0)


def test_a_rank_that_died_is_reported_once() -> None:
    first, second, dead = together(_one_dies, 3)
    assert dead is None
    assert (first[0], second[0]) == ("RanksLost", "RanksLost")
    assert sorted((first[2], second[2])) == [False, True]
