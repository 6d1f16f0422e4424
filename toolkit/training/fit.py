"""The training loop: a generator that yields what happened, to a caller who decides what to do about it.

`fit` alone changes `State`. At every yield the state is whole: saved then and loaded later, training goes on as if it
had never stopped, because every draw comes from (seed, epoch, step).
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn

from toolkit.api.contracts import Direction, EpochRecord, Staged
from toolkit.api.errors import DataError, RunFailed
from toolkit.data.loader import Share
from toolkit.system.randomness import seed_globally
from toolkit.training.evaluate import Answered, Evaluation, answering, device_of
from toolkit.training.features import Featuring
from toolkit.training.finite import require_worth
from toolkit.training.stages import at_size
from toolkit.training.state import Setup, State, Totals
from toolkit.training.step import train_step
from toolkit.training.taught import Asking, Taught


@dataclass(frozen=True)
class StepDone:
    """Emitted after each optimizer step."""

    epoch: int
    """Epoch under way, from 1."""
    step: int
    """Steps done in this epoch."""
    steps: int
    items: int
    """Trained in this epoch so far."""
    loss: Tensor
    """Scalar on the device; reading it waits for the device."""
    lr: float
    seconds: float
    """Time spent in this epoch's steps so far."""
    waited: float
    """Of that, time spent waiting for data; of several ranks that of `slowest`."""
    slowest: int = 0
    """The rank that has waited longest for its data in this epoch."""


@dataclass(frozen=True)
class Validating:
    """Emitted after each validation batch."""

    epoch: int
    done: int
    """Items answered."""
    count: int


Event: TypeAlias = Featuring | Asking | StepDone | Validating | EpochRecord


def fit(state: State, setup: Setup) -> Iterator[Event]:
    """Train from `state` to the last epoch.

    Yields `Featuring` while the features of a frozen backbone or the answers of a teacher are computed, `Asking` where
    a teacher is asked in each step, `StepDone` after every optimizer step, `Validating` after every validation batch
    and an `EpochRecord` at the end of every epoch. The caller may save the state at any yield, and stops training by
    leaving the generator. Seeds torch's global generators at every step.
    Raises DataError when no training item can be read.
    Raises RunFailed when the loss is not finite, before the optimizer's step: `state` then holds the weights from
    before it. On a GPU that may be noticed some steps later: a state is worth saving only after `require_worth`.
    """
    if setup.features is not None and state.epoch < setup.epochs:
        yield from setup.features.ready(state.epoch + 1)
    if setup.taught is not None and state.epoch < setup.epochs:
        yield from _taught(setup.taught, state.epoch + 1)
    while state.epoch < setup.epochs:
        begin_epoch(state, setup)
        yield from _train_epoch(state, setup)
        yield (yield from _finish_epoch(state, setup))


def _taught(taught: Taught | str, epoch: int) -> Iterator[Event]:
    if isinstance(taught, Taught):
        yield from taught.ready(epoch)
    else:
        yield Asking(epoch, taught)


def begin_epoch(state: State, setup: Setup) -> None:
    """Put the network into training mode, and freeze and thaw what the epoch asks for."""
    for module in state.network.modules():
        if isinstance(module, Staged):
            module.begin_epoch(state.epoch)
    held = setup.stages.begin(cast(nn.Module, state.network.model), state.epoch)
    state.parallel.begin_epoch()
    state.network.train()
    for module in held:
        module.eval()


def training_batches(setup: Setup, *, epoch: int, start: int = 0) -> Iterator[Share]:
    """This rank's share of the batches `start`, `start + 1`, ... of an epoch, augmented and at its size."""
    shares = setup.train.training(
        setup.batch, setup.augmentations, seed=setup.seed, epoch=epoch, start=start, views=setup.views
    )
    return at_size(shares, setup.stages.of(epoch).size)


def _train_epoch(state: State, setup: Setup) -> Iterator[StepDone]:
    if setup.features is not None:
        setup.features.require_fixed()
    totals = state.totals
    for share, waited in timed(training_batches(setup, epoch=state.epoch, start=state.step)):
        started = time.perf_counter()
        for group, rate in zip(state.optimizer.param_groups, state.rates(setup, state.step), strict=True):
            group["lr"] = rate
        seed_globally(state.device, setup.seed, "step", state.epoch, state.step, *state.parallel.ranks.place)
        # A batch whose items were all skipped changes nothing.
        loss = train_step(state, setup, share) if share.items else torch.zeros((), device=state.device)
        state.step += 1
        totals.waited += waited
        waits = state.parallel.waits = [sum(pair) for pair in zip(state.parallel.waits, share.waits, strict=True)]
        slowest = waits.index(max(waits))
        totals.seconds += waited + time.perf_counter() - started
        yield StepDone(
            epoch=state.epoch + 1,
            step=state.step,
            steps=setup.steps,
            items=totals.items,
            loss=loss,
            lr=state.optimizer.param_groups[-1]["lr"],
            seconds=totals.seconds,
            waited=waits[slowest] if state.parallel.ranks.together else totals.waited,
            slowest=slowest,
        )
    if not totals.items:
        raise DataError("no item of the training split can be read", next_step="repair the data")
    require_worth(state, setup)


def timed(batches: Iterator[Share]) -> Iterator[tuple[Share, float]]:
    """Each batch with the seconds spent waiting for it (its augmentation included)."""
    while True:
        started = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - started


def _finish_epoch(state: State, setup: Setup) -> Generator[Validating, None, EpochRecord]:
    """Validate, then close the epoch: returns its record."""
    started = time.perf_counter()
    ranks = state.parallel.ranks
    seconds, waited = ranks.most(state.totals.seconds, state.totals.waited)
    state.join_statistics()
    evaluation = yield from _validate(state, setup)
    valid = evaluation.scalars() if evaluation else {}
    score = watched(valid, setup.metric)
    best = score is None or state.best_score is None or _better(score, state.best_score, setup.direction)
    if score is not None:
        state.schedule.observe(score)
    record = EpochRecord(
        epoch=state.epoch + 1,
        step=(state.epoch + 1) * setup.steps,
        train_loss=float(state.totals.loss) / max(state.totals.items, 1),
        valid=valid,
        lr={group["name"]: group["lr"] for group in state.optimizer.param_groups},
        seconds=seconds,
        valid_seconds=time.perf_counter() - started,
        waiting=waited / max(seconds, 1e-9),
        best=best,
        rank_waiting=[wait / max(seconds, 1e-9) for wait in state.parallel.waits] if ranks.together else [],
        rank_speeds=evaluation.speeds if evaluation else [],
        sample=setup.sample,
    )
    if best:
        state.best_score, state.best_epoch = score, record.epoch
    state.records.append(record)
    state.epoch, state.step = record.epoch, 0
    state.totals = Totals.on(state.device)
    return record


def _validate(state: State, setup: Setup) -> Generator[Validating, None, Evaluation | None]:
    count = len(setup.valid.store)
    if not count:
        return None
    batches = setup.valid.evaluation(setup.eval_batch)
    ranks = state.parallel.ranks
    answers = answering(
        state.judged, state.objective, batches, setup.autocast, average=setup.valid.average, ranks=ranks
    )
    while True:
        try:
            yield Validating(state.epoch + 1, min(next(answers) * ranks.count, count), count)
        except StopIteration as done:
            answered: Answered = done.value
            there = device_of(state.objective)
            with torch.no_grad():
                state.objective.settle(answered.logits.to(there), answered.targets.to(there))
            return answered.scored(state.objective, setup.metrics())


def watched(valid: dict[str, float], metric: str) -> float | None:
    """The score that decides which epoch is best; None without a validation split."""
    if not valid:
        return None
    if metric not in valid:
        raise RunFailed(
            f'train.metric: no metric of this recipe computes "{metric}" (choose from {", ".join(sorted(valid))})',
            next_step=f"use one of them: --set train.metric={min(valid)}",
        )
    return valid[metric]


def _better(score: float, than: float, direction: Direction) -> bool:
    if math.isnan(than):
        return not math.isnan(score)
    return score > than if direction == "maximize" else score < than
