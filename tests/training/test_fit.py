"""The loop: whole states at every yield, exact resume, honest records, and stopping before a bad step."""

from __future__ import annotations

import copy
import io
import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests import small
from toolkit.api.contracts import Augmentation, Batch, Direction, Draws, EpochRecord, Horizon
from toolkit.api.errors import RunFailed
from toolkit.training.finite import require_finite, require_worth
from toolkit.training.fit import StepDone, Validating, _better, fit
from toolkit.training.network import Network
from toolkit.training.state import Average, Setup, State
from toolkit_optim.schedules import Plateau, one_cycle
from toolkit_tasks.classification import Classification

DIRECTIONS: tuple[Direction, ...] = ("maximize", "minimize")
TIMES = {"seconds", "valid_seconds", "waiting", "rank_waiting", "rank_speeds"}


@pytest.fixture
def setup() -> Setup:
    return small.setup(small.Squares(20), small.Squares(9))


def records(state: State) -> list[dict[str, Any]]:
    return [{k: v for k, v in vars(record).items() if k not in TIMES} for record in state.records]


def weights(state: State) -> list[torch.Tensor]:
    return list(state.judged.state_dict().values())


def same(a: State, b: State) -> bool:
    return all(map(torch.equal, weights(a), weights(b))) and records(a) == records(b)


def saved(state: State) -> dict[str, Any]:
    """Through a file, as a checkpoint goes."""
    file = io.BytesIO()
    torch.save(state.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_an_epoch_yields_its_steps_then_validation_then_its_record(setup: Setup) -> None:
    events = list(fit(small.state(setup), setup))
    kinds = [type(event) for event in events[: len(events) // 2]]
    assert kinds == [StepDone] * 3 + [Validating] * 2 + [EpochRecord]
    assert [event.step for event in events if isinstance(event, StepDone)] == [1, 2, 3] * 2
    assert [event.done for event in events if isinstance(event, Validating)] == [5, 9] * 2


def test_it_learns(setup: Setup) -> None:
    state = small.state(setup, network=Network(small.model(dropout=0), small.SPEC))
    longer = replace(setup, epochs=8)
    list(fit(state, longer))
    assert state.records[-1].train_loss < state.records[0].train_loss
    assert state.records[-1].valid["accuracy"] == 1.0


def test_records_say_what_happened(setup: Setup) -> None:
    state = small.state(setup)
    list(fit(state, replace(setup, sample=True)))
    first, last = state.records
    assert (first.epoch, first.step, last.epoch, last.step) == (1, 3, 2, 6)
    assert first.best
    assert first.sample
    assert set(first.valid) == {"loss", "accuracy"}
    assert first.lr == {"model": 0.05}
    assert first.seconds > 0
    assert 0 <= first.waiting <= 1


@pytest.mark.parametrize("with_average", [False, True])
def test_resume_at_any_event_is_exact(setup: Setup, with_average: bool) -> None:
    whole = make(setup, with_average)
    events = len(list(fit(whole, setup)))
    assert events > 10
    for stop_after in range(1, events):
        stopped = make(setup, with_average)
        for _ in islice(fit(stopped, setup), stop_after):
            pass
        resumed = make(setup, with_average, seed=7)
        resumed.load_state_dict(saved(stopped))
        list(fit(resumed, setup))
        assert same(whole, resumed), stop_after


def make(setup: Setup, with_average: bool, seed: int = 0) -> State:
    network = Network(small.model(seed), small.SPEC)
    state = small.state(setup, network=network, name="adamw", lr=0.01)
    state.schedule = one_cycle(Horizon(setup.steps, setup.epochs), "maximize")
    state.average = Average(network, copy.deepcopy(network), 0.8) if with_average else None
    return state


def test_the_plateau_schedule_resumes_too(setup: Setup) -> None:
    def drops() -> State:
        state = small.state(setup, lr=1e-9)
        state.schedule = Plateau("maximize", 0.1, 1, 0.0)
        return state

    longer = replace(setup, epochs=4)
    whole = drops()
    list(fit(whole, longer))
    assert whole.records[-1].lr["model"] < whole.records[0].lr["model"]
    stopped = drops()
    for event in fit(stopped, longer):
        if isinstance(event, EpochRecord) and event.epoch == 2:
            break
    resumed = drops()
    resumed.load_state_dict(saved(stopped))
    list(fit(resumed, longer))
    assert same(whole, resumed)


def test_a_non_finite_loss_stops_before_the_step(setup: Setup) -> None:
    state = small.state(setup)
    events = fit(state, setup)
    next(events)
    for group in state.optimizer.param_groups:
        group["base_lr"] = 0.125
    with torch.no_grad():
        spoil(state.network)
    spoiled = [p.clone() for p in state.network.parameters()]
    with pytest.raises(RunFailed) as failure:
        list(events)
    pairs = zip(spoiled, state.network.parameters(), strict=True)
    assert all(torch.equal(a, b) or bool(a.isnan().any()) for a, b in pairs)
    message = failure.value.message
    assert "not finite at epoch 1, step 2 of 3" in message
    assert "model 0.125" in message
    assert message.count("square/") == 6
    assert failure.value.next_step is not None


def poisoned(batch: Batch, draws: Draws) -> Batch:
    return Batch(batch.pixels, torch.full((len(batch.targets), 2), math.inf), batch.index)


def spoil(network: nn.Module) -> None:
    last = list(network.parameters())[-1]
    last.fill_(math.nan)


@pytest.fixture
def deferred(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps look for losses that are not finite as seldom as on a GPU."""

    monkeypatch.setattr(State, "checked_late", True)


@pytest.mark.usefixtures("deferred")
def test_a_non_finite_loss_is_reported_unchanged_and_no_state_after_it_is_saved(setup: Setup) -> None:
    def fresh() -> State:
        state = small.state(setup, lr=0.1)
        state.schedule = one_cycle(Horizon(setup.steps, setup.epochs), "maximize", start=0.5)
        return state

    state, resumed = fresh(), fresh()
    events = fit(state, replace(setup, augmentations=[poisoned]))
    next(events)
    next(events)
    resumed.load_state_dict(saved(state))
    for one in (state, resumed):
        with pytest.raises(RunFailed, match=r"step 1 of 3 \(learning rate model 0.05\)"):
            require_finite(one, setup)
    with pytest.raises(RunFailed, match="step 1 of 3"):
        list(events)


class Infinite(torch.autograd.Function):
    """Whose gradient is not finite where its answer is."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient * math.inf


def test_weights_that_are_not_finite_are_not_worth_saving(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each loss so far was finite, and no further loss follows the last step of an epoch."""
    state = small.state(setup)
    bare, calls = state.network.forward, itertools.count(1)

    def forward(pixels: Tensor) -> Tensor:
        logits = bare(pixels)
        return Infinite.apply(logits) if next(calls) == setup.steps else logits

    monkeypatch.setattr(state.network, "forward", forward)
    events = fit(state, setup)
    for _ in range(setup.steps - 1):
        next(events)
        require_worth(state, setup)
    next(events)
    require_finite(state, setup)
    for look in (lambda: require_worth(state, setup), lambda: next(events)):
        with pytest.raises(RunFailed, match="weights became non-finite at epoch 1, step 3 of 3") as failure:
            look()
    assert "train.precision=fp32" in str(failure.value.next_step)
    assert state.records == []


def test_no_weight_moves_in_the_step_that_fails(setup: Setup) -> None:
    state = small.state(setup)
    before = [p.detach().clone() for p in state.network.parameters()]
    with pytest.raises(RunFailed, match="step 1 of 3"):
        list(fit(state, replace(setup, augmentations=[poisoned])))
    assert all(map(torch.equal, before, state.network.parameters()))


UNEVEN = torch.tensor([1.0, 9.0])
WEIGHINGS: list[tuple[Classification, list[Augmentation]]] = [
    (Classification(0.0, None), [small.noise]),
    (Classification(0.0, UNEVEN), [small.noise]),
    (Classification(0.0, torch.tensor([0.0, 2.0])), [small.noise]),
    (Classification(0.2, UNEVEN), [small.noise]),
    (Classification(0.0, UNEVEN), [small.shares]),
]


@pytest.mark.parametrize(("objective", "augmentations"), WEIGHINGS)
@pytest.mark.parametrize("accumulate", [2, 4, 6, 9])
def test_accumulating_is_the_same_step(
    setup: Setup, accumulate: int, objective: Classification, augmentations: list[Augmentation]
) -> None:
    def trained(accumulate: int) -> tuple[float, list[Tensor]]:
        network = Network(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), small.SPEC)
        torch.manual_seed(1)
        nn.init.normal_(network.model[1].weight, std=0.01)  # type: ignore[index]
        nn.init.zeros_(network.model[1].bias)  # type: ignore[index]
        state = small.state(setup, network=network, objective=objective)
        list(fit(state, replace(setup, accumulate=accumulate, augmentations=augmentations)))
        return state.records[-1].train_loss, list(network.parameters())

    (loss, weights), (expected_loss, expected) = trained(accumulate), trained(1)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    for one, other in zip(weights, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("objective", "augmentations"), WEIGHINGS)
def test_the_loss_is_torchs_own(setup: Setup, objective: Classification, augmentations: list[Augmentation]) -> None:
    changed = replace(setup, augmentations=augmentations)
    network = Network(small.model(dropout=0), small.SPEC).train()
    batch = next(iter(setup.train.training(setup.batch, changed.augmentations, seed=setup.seed, epoch=0, start=0)))
    expected = functional.cross_entropy(
        network(batch.pixels),
        batch.targets,
        weight=objective.class_weights,
        label_smoothing=objective.label_smoothing,
    )
    event = next(iter(fit(small.state(setup, network=network, objective=objective), changed)))
    assert isinstance(event, StepDone)
    torch.testing.assert_close(event.loss, expected.detach().double(), rtol=1e-6, atol=1e-6)


def test_a_batch_of_classes_without_weight_changes_nothing(setup: Setup) -> None:
    state = small.state(setup, objective=Classification(0.0, torch.zeros(2)))
    before = [p.detach().clone() for p in state.network.parameters()]
    list(fit(state, setup))
    assert all(map(torch.equal, before, state.network.parameters()))
    assert [record.train_loss for record in state.records] == [0, 0]


def test_what_cannot_be_trained_on_one_item_says_what_to_change(setup: Setup) -> None:
    layers = nn.Flatten(), nn.Linear(192, 2), nn.BatchNorm1d(2)
    state = small.state(setup, network=Network(nn.Sequential(*layers), small.SPEC))
    list(fit(state, replace(setup, accumulate=3)))
    with pytest.raises(RunFailed, match="cannot be trained on one item at a time") as failure:
        list(fit(state, replace(setup, accumulate=6, epochs=4)))
    assert "train.accumulate" in str(failure.value.next_step)


def test_clipping_bounds_the_step(setup: Setup) -> None:
    state = small.state(setup, lr=1.0)
    before = [p.detach().clone() for p in state.network.parameters()]
    next(iter(fit(state, replace(setup, clip_norm=0.01))))
    pairs = zip(before, state.network.parameters(), strict=True)
    moved = torch.stack([(a - b.detach()).norm() for a, b in pairs]).norm()
    assert 0 < float(moved) <= 0.0101


def test_class_weights_and_smoothing_change_the_loss(setup: Setup) -> None:
    def first_loss(objective: Classification) -> float:
        event = next(iter(fit(small.state(setup, objective=objective), setup)))
        assert isinstance(event, StepDone)
        return float(event.loss)

    losses = [first_loss(Classification(*given)) for given in ((0.0, None), (0.3, None), (0.0, UNEVEN))]
    assert len({round(loss, 5) for loss in losses}) == 3


def test_the_average_follows_slowly_and_is_what_is_judged(setup: Setup) -> None:
    state = make(setup, with_average=True)
    list(fit(state, setup))
    assert state.average is not None
    assert state.judged is state.average.network
    pairs = zip(state.network.parameters(), state.judged.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)
    counts = [m.num_batches_tracked for m in (state.network.model[1], state.judged.model[1])]  # type: ignore[union-attr, index]
    assert counts[0] == counts[1]


def test_without_a_validation_split_the_last_epoch_is_best() -> None:
    setup = small.setup(small.Squares(12), small.Squares(0))
    state = small.state(setup)
    events = list(fit(state, setup))
    assert not any(isinstance(event, Validating) for event in events)
    assert state.best_epoch == 2
    assert state.records[-1].valid == {}


def test_a_metric_that_is_not_there_is_reported(setup: Setup) -> None:
    with pytest.raises(RunFailed, match='computes "acuracy" \\(choose from accuracy, loss\\)'):
        list(fit(small.state(setup), replace(setup, metric="acuracy")))


def test_smaller_is_better_when_minimizing(setup: Setup) -> None:
    state = small.state(setup)
    list(fit(state, replace(setup, metric="loss", direction="minimize", epochs=4)))
    losses = [record.valid["loss"] for record in state.records]
    assert state.best_score == min(losses)


@pytest.mark.parametrize("score", [0.5, -math.inf])
def test_an_undefined_score_is_no_better_than_any_other(score: float) -> None:
    for direction in DIRECTIONS:
        assert _better(score, math.nan, direction)
        assert not _better(math.nan, score, direction)
        assert not _better(math.nan, math.nan, direction)


def test_staged_models_hear_of_every_epoch(setup: Setup) -> None:
    class Thawing(nn.Linear):
        heard: list[int] = []  # noqa: RUF012 - one model in this test

        def begin_epoch(self, epoch: int) -> None:
            self.heard.append(epoch)

        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
            return super().forward(input.flatten(1))

    state = small.state(setup, network=Network(Thawing(192, 2), small.SPEC))
    list(fit(state, setup))
    assert Thawing.heard == [0, 1]


def test_training_batches_do_not_depend_on_the_loader(setup: Setup) -> None:
    def seen(fetched: Iterator[Batch]) -> list[torch.Tensor]:
        return [batch.pixels for batch in fetched]

    args: dict[str, Any] = {"seed": 3, "epoch": 1, "start": 0}
    cold = seen(setup.train.training(6, setup.augmentations, **args))
    assert setup.train.store.complete is False or len(cold) == 3
    warm = seen(setup.train.training(6, setup.augmentations, **args))
    assert all(map(torch.equal, cold, warm))
    later = seen(setup.train.training(6, setup.augmentations, **(args | {"start": 2})))
    assert torch.equal(later[0], cold[2])
