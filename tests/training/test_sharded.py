"""A network divided over ranks: it trains as one that is not, and its checkpoints hold whole tensors."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from tests import small
from tests.ranks import together
from tests.training.test_parallel import Frozen
from toolkit.api.contracts import Batch
from toolkit.api.errors import RunFailed
from toolkit.system.ranks import ALONE, Ranks
from toolkit.training import sharded
from toolkit.training.evaluate import evaluate
from toolkit.training.fit import StepDone, fit
from toolkit.training.network import Network
from toolkit.training.sharded import blocks, in_step, is_sharded
from toolkit.training.state import Setup, State

FEW = 8
"""Weights of a block in these tests."""


def prepared(ranks: Ranks) -> tuple[State, Setup]:
    """A training with all that may get in the way: averaged weights, clipping, parts, thawing, batch norm."""
    torch.set_num_threads(1)
    setup = small.setup(small.Squares(40), small.Squares(11), batch=16, epochs=2, accumulate=2, clip_norm=0.5)
    setup = replace(setup, train=replace(setup.train, ranks=ranks), valid=replace(setup.valid, ranks=ranks))
    network = Network(Frozen(), small.SPEC)
    with patch.object(sharded, "BLOCK", FEW):
        args = {"momentum": 0.9, "foreach": False}  # torch's fused SGD cannot begin with thawed weights later
        state = small.state(setup, network=network, ema=0.9, sharded=ranks.together, **args)
    return state, setup


def trained(ranks: Ranks, saved: Any = None, until: tuple[int, int] | None = None) -> Any:
    """Losses, the state as it is saved and the scores of the averaged weights, from a saved state on, and up to a step
    of an epoch."""
    state, setup = prepared(ranks)
    if saved is not None:
        state.load_state_dict(saved)
    losses = []
    for event in fit(state, setup):
        if isinstance(event, StepDone):
            losses.append(float(event.loss))
            if (event.epoch, event.step) == until:
                return losses, state.state_dict(), {}
    batches = setup.valid.evaluation(5)
    found = evaluate(state.judged, state.objective, batches, small.metrics(), setup.autocast, ranks=ranks)
    return losses, state.state_dict(), found.scalars()


@cache
def alone() -> Any:
    return trained(ALONE)


@cache
def divided(count: int) -> Any:
    return together(trained, count)


def close(found: Any, expected: Any) -> None:
    """Whether saved states hold about the same plain tensors."""
    for table in ("network", "average"):
        for name, tensor in expected[table].items():
            assert type(found[table][name]) is Tensor
            torch.testing.assert_close(found[table][name], tensor, rtol=1e-3, atol=1e-4)
    for number, values in expected["optimizer"]["state"].items():
        for name, value in values.items():
            torch.testing.assert_close(found["optimizer"]["state"][number][name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("count", [2, 3])
def test_it_trains_as_a_network_that_is_not_divided(count: int) -> None:
    """Of three batches of the validation split, the ranks have unlike numbers."""
    losses, saved, scores = alone()
    for their_losses, their_saved, their_scores in divided(count):
        assert their_losses == pytest.approx(losses, rel=1e-4)
        assert their_scores == pytest.approx(scores, rel=1e-3)
        close(their_saved, saved)


@pytest.mark.parametrize(("before", "after"), [(2, 2), (2, 1), (1, 2)])
def test_it_goes_on_from_any_checkpoint(before: int, after: int) -> None:
    stop = partial(trained, until=(2, 1))
    saved = (stop(ALONE) if before == 1 else together(stop, before)[0])[1]
    go_on = partial(trained, saved=saved)
    found = (go_on(ALONE) if after == 1 else together(go_on, after)[0])[1]
    expected = divided(2)[0][1] if after == 2 else alone()[1]
    close(found, expected)
    if before == after:
        assert all(torch.equal(found["network"][name], value) for name, value in expected["network"].items())


def _shards(ranks: Ranks) -> Any:
    state, _ = prepared(ranks)
    return [(weight.numel(), sharded.local(weight).numel()) for weight in state.network.parameters()]


def test_each_rank_keeps_its_part_of_each_weight() -> None:
    for parts in zip(*together(_shards, 2), strict=True):
        assert {whole for whole, _ in parts} == {sum(part for _, part in parts)}


def test_blocks_are_elements_of_lists_that_are_large_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharded, "BLOCK", 20)
    inner, large, small_one = nn.Sequential(nn.Linear(4, 4), nn.Linear(5, 5)), nn.Linear(6, 6), nn.Linear(2, 2)
    network = nn.Sequential(nn.ModuleList([inner, large]), small_one)
    assert blocks(network) == [inner[0], inner[1], large]
    monkeypatch.setattr(sharded, "BLOCK", 40)
    assert blocks(network) == [inner, large]


def _scalar(ranks: Ranks) -> None:
    network = nn.Linear(2, 2)
    network.register_parameter("temperature", nn.Parameter(torch.tensor(1.0)))
    sharded.shard(network, small.CPU, ranks)


def test_weights_without_a_dimension_are_refused_by_name() -> None:
    (name, message, _), _ = together(_scalar, 2)
    assert name == RunFailed.__name__
    assert message == "train.strategy: fsdp cannot divide weights without a dimension: temperature"


def _steps(ranks: Ranks) -> Any:
    pixels = torch.ones((2, 3, 4, 4), dtype=torch.uint8)
    batch = Batch(pixels, torch.zeros(2), torch.arange(2))
    return [(list(one.pixels.shape), len(one.index)) for one in in_step([batch] * ranks.rank, ranks)]


def test_ranks_without_a_batch_get_zeros_until_all_are_done() -> None:
    zeros, real = ([1, 3, 4, 4], 0), ([2, 3, 4, 4], 2)
    assert together(_steps, 3) == [[zeros, zeros], [real, zeros], [real, real]]


def test_one_rank_divides_nothing() -> None:
    assert not is_sharded(prepared(ALONE)[0].network)
