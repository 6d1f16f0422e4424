"""One training on several ranks: the same items, losses, weights and answers as on one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests import small
from tests.ranks import together
from toolkit.api.contracts import EpochRecord
from toolkit.data.loader import Loader, Share
from toolkit.system.ranks import ALONE, Ranks
from toolkit.training.evaluate import evaluate
from toolkit.training.fit import StepDone, fit
from toolkit.training.network import Network
from toolkit.training.parallel import Norm
from toolkit.training.state import Setup, State

BATCH = 16


class Frozen(nn.Module):
    """A model with a part that the loss does not reach, and one that is thawed in the second epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.model = small.model(dropout=0.3)  # which seeds what follows
        self.unused = nn.Linear(3, 3)
        self.model[0].requires_grad_(False)

    def begin_epoch(self, epoch: int) -> None:
        self.model[0].requires_grad_(epoch > 0)

    def forward(self, pixels: Tensor) -> Tensor:
        answers: Tensor = self.model(pixels)
        return answers


def prepared(ranks: Ranks, batch_norm: Norm = "global", **changes: Any) -> tuple[State, Setup]:
    settings = {"batch": BATCH, "epochs": 2, **changes}
    setup = small.setup(small.Squares(40), small.Squares(11), **settings)
    setup = replace(setup, train=replace(setup.train, ranks=ranks), valid=replace(setup.valid, ranks=ranks))
    return small.state(setup, network=Network(Frozen(), small.SPEC), batch_norm=batch_norm), setup


def trained(ranks: Ranks, **changes: Any) -> Any:
    """Losses of all steps, records, weights, and answers on the validation split."""
    torch.set_num_threads(1)
    state, setup = prepared(ranks, **changes)
    events = list(fit(state, setup))
    losses = [float(event.loss) for event in events if isinstance(event, StepDone)]
    records = [(event.train_loss, dict(event.valid)) for event in events if isinstance(event, EpochRecord)]
    return losses, records, state.network.state_dict(), answered(state, setup, ranks)


def answered(state: State, setup: Setup, ranks: Ranks) -> tuple[Tensor, Tensor, dict[str, float]]:
    batches = setup.valid.evaluation(3)
    found = evaluate(state.network, state.objective, batches, small.metrics(), setup.autocast, ranks=ranks)
    return found.index, found.logits, found.scalars()


@cache
def alone(accumulate: int = 1) -> Any:
    return trained(ALONE, accumulate=accumulate)


@pytest.mark.parametrize("count", [2, 4])
def test_losses_scores_and_weights_are_those_of_one_rank(count: int) -> None:
    losses, records, weights, answers = alone()
    everywhere = together(trained, count)
    for their_losses, their_records, their_weights, their_answers in everywhere:
        assert their_losses == pytest.approx(losses, rel=1e-5)
        for (loss, valid), (their_loss, their_valid) in zip(records, their_records, strict=True):
            assert their_loss == pytest.approx(loss, rel=1e-5)
            assert their_valid == pytest.approx(valid, rel=1e-4)
        for name, weight in weights.items():
            torch.testing.assert_close(their_weights[name], weight, rtol=1e-4, atol=1e-5)
        assert torch.equal(their_answers[0], answers[0])
    # all ranks have the same bits
    for name in weights:
        assert all(torch.equal(one[2][name], everywhere[0][2][name]) for one in everywhere)


def _scored(ranks: Ranks) -> Any:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    state, setup = prepared(ranks)
    return answered(state, setup, ranks)


@pytest.mark.parametrize("count", [2, 4])
def test_an_evaluation_has_the_bits_of_one_rank(count: int) -> None:
    index, logits, scores = _scored(ALONE)
    for their_index, their_logits, their_scores in together(_scored, count):
        assert torch.equal(their_index, index)
        assert torch.equal(their_logits, logits)
        assert their_scores == scores


def _resumed(ranks: Ranks, saved: Any) -> Any:
    state, setup = prepared(ranks)
    state.load_state_dict(saved)
    list(fit(state, setup))
    return state.network.state_dict()


def _stopped(ranks: Ranks) -> Any:
    """The state in the middle of the second epoch."""
    torch.set_num_threads(1)
    state, setup = prepared(ranks)
    for event in fit(state, setup):
        if isinstance(event, StepDone) and (event.epoch, event.step) == (2, 1):
            return state.state_dict()
    raise AssertionError("not reached")


@pytest.mark.parametrize(("before", "after"), [(2, 2), (2, 1), (1, 2)])
def test_a_training_goes_on_with_any_number_of_ranks(before: int, after: int) -> None:
    saved = _stopped(ALONE) if before == 1 else together(_stopped, before)[0]
    go_on: Callable[[Ranks], Any] = partial(_resumed, saved=saved)
    found = go_on(ALONE) if after == 1 else together(go_on, after)[0]
    whole = together(trained, after)[0][2] if before == after else alone()[2]
    for name, weight in whole.items():
        if before == after:
            assert torch.equal(found[name], weight)
        else:
            torch.testing.assert_close(found[name], weight, rtol=1e-4, atol=1e-5)


def test_parts_of_a_share_are_as_many_on_each_rank() -> None:
    """20 items are unlike shares of 3 ranks, and each share has two parts. Batch norm sees parts alone."""
    losses = together(partial(trained, accumulate=2, batch=20), 3)
    assert losses[0][0] == losses[1][0] == losses[2][0]
    assert losses[0][0] == pytest.approx(trained(ALONE, accumulate=2, batch=20)[0], rel=1e-5)


def _local(ranks: Ranks) -> Any:
    torch.set_num_threads(1)
    state, setup = prepared(ranks, batch_norm="local")
    list(fit(state, setup))
    return state.network.state_dict(), [layer for layer in state.network.modules() if isinstance(layer, nn.BatchNorm2d)]


def test_local_statistics_are_joined_before_they_are_used() -> None:
    (one, layers), (other, _) = together(_local, 2)
    assert len(layers) == 1
    assert all(torch.equal(one[name], other[name]) for name in one)


class Late(Loader):
    """Rank 1 waits ten seconds for each of its shares, as far as anyone knows."""

    def training(self, *given: Any, **named: Any) -> Iterator[Share]:
        for share in super().training(*given, **named):
            yield replace(share, waits=(0.0, 10.0, 0.0, 0.0))


def _late(ranks: Ranks) -> tuple[list[StepDone], list[EpochRecord]]:
    torch.set_num_threads(1)
    state, setup = prepared(ranks)
    train = Late(setup.train.store, setup.train.spec, setup.train.device, ranks=ranks)
    events = list(fit(state, replace(setup, train=train)))
    return [one for one in events if isinstance(one, StepDone)], [one for one in events if isinstance(one, EpochRecord)]


def test_ranks_that_are_slow_are_named() -> None:
    """By how long they wait for their data, and by how fast they answer the validation split: 11 items are batches for
    three of four ranks."""
    everywhere = together(_late, 4)
    assert len({tuple(records[0].rank_speeds) for _, records in everywhere}) == 1
    for steps, records in everywhere:
        assert [(step.slowest, step.waited) for step in steps] == [(1, 10.0), (1, 20.0)] * 2
        for record in records:
            assert len(record.rank_waiting) == len(record.rank_speeds) == 4
            assert min(record.rank_speeds[:3]) > record.rank_speeds[3] == 0
