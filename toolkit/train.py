"""The training loop: a generator that yields what happened, to a caller who decides what to do about it.

`fit` alone changes `State`. At every yield the state is whole: saved then and loaded later, training goes on as if it
had never stopped, because every draw comes from (seed, epoch, step).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from toolkit.contracts import Augmentation, Batch, Direction, EpochRecord, Metric, Staged
from toolkit.errors import RunFailed
from toolkit.evaluate import Evaluation, answering
from toolkit.loader import Loader, batches_in
from toolkit.optimize import Schedule
from toolkit.randomness import seed_globally

CHECKS_EVERY = 50
"""Steps between two looks at a CUDA device's non-finite flag: a look waits for the device."""


@dataclass(frozen=True)
class Task:
    """All that `fit` needs and does not change."""

    train: Loader
    valid: Loader
    augmentations: Sequence[Augmentation]
    metrics: Callable[[], Sequence[Metric]]
    autocast: Callable[[], AbstractContextManager[None]]
    seed: int
    epochs: int
    batch: int
    eval_batch: int
    accumulate: int
    clip_norm: float | None
    label_smoothing: float
    class_weights: Tensor | None
    metric: str
    direction: Direction
    sample: bool

    @property
    def steps(self) -> int:
        """Optimizer steps in an epoch."""
        return batches_in(self.train.training_items, self.batch)


class Average:
    """An exponential moving average of a network's parameters and statistics, in a network of its own."""

    def __init__(self, network: nn.Module, into: nn.Module, decay: float) -> None:
        self.network = into.requires_grad_(False).eval()
        self._decay = decay
        pairs = [(mean.detach(), value.detach()) for mean, value in zip(_tensors(into), _tensors(network), strict=True)]
        self._means, self._values = _columns([pair for pair in pairs if pair[0].is_floating_point()])
        self._counts, self._counted = _columns([pair for pair in pairs if not pair[0].is_floating_point()])

    def update(self) -> None:
        torch._foreach_lerp_(self._means, self._values, 1 - self._decay)
        if self._counts:
            torch._foreach_copy_(self._counts, self._counted)


@dataclass
class Totals:
    """Sums over the part of an epoch done so far."""

    loss: Tensor
    """float64 scalar on the device: sum over items."""
    items: int = 0
    seconds: float = 0.0
    waited: float = 0.0

    def add(self, loss: Tensor, items: int) -> None:
        self.loss += loss * items
        self.items += items


@dataclass
class State:
    """What training changes."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    scaler: torch.amp.GradScaler
    average: Average | None
    totals: Totals
    epoch: int = 0
    """Finished epochs."""
    step: int = 0
    """Finished steps of the epoch under way."""
    best_score: float | None = None
    best_epoch: int = 0
    records: list[EpochRecord] = field(default_factory=list)

    @property
    def judged(self) -> nn.Module:
        """The network that is evaluated and kept: the averaged one where there is one."""
        return self.average.network if self.average else self.network

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "average": self.average.network.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "totals": asdict(self.totals),
            "epoch": self.epoch,
            "step": self.step,
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            "records": [asdict(record) for record in self.records],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        if self.average:
            self.average.network.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        totals = state["totals"]
        self.totals = Totals(**{**totals, "loss": totals["loss"].to(self.totals.loss.device)})
        self.epoch, self.step = state["epoch"], state["step"]
        self.best_score, self.best_epoch = state["best_score"], state["best_epoch"]
        self.records = [EpochRecord(**record) for record in state["records"]]


@dataclass(frozen=True)
class StepDone:
    """An optimizer step is behind us."""

    epoch: int
    """Epoch under way, from 1."""
    step: int
    """Steps done in this epoch."""
    steps: int
    items: int
    loss: Tensor
    """Scalar on the device; reading it waits for the device."""
    lr: float
    seconds: float
    """Time spent in this epoch's steps so far."""
    waited: float
    """Of that, time spent waiting for data."""


@dataclass(frozen=True)
class Validating:
    """A validation batch is behind us."""

    epoch: int
    done: int
    """Items answered."""
    count: int


Event: TypeAlias = StepDone | Validating | EpochRecord


def fit(state: State, task: Task, step_function: StepFunction | None = None) -> Iterator[Event]:
    """Train from where `state` stands to the last epoch.

    Yields `StepDone` after every optimizer step, `Validating` after every validation batch and an `EpochRecord` at
    the end of every epoch. The caller may save the state at any yield, and stops training by leaving the generator.
    Seeds torch's global generators at every step. Raises RunFailed when the loss is not finite, before the
    optimizer's step: `state` then holds the weights from before it.
    """
    take_step = step_function or Step(state, task)
    while state.epoch < task.epochs:
        _begin_epoch(state)
        yield from _train_epoch(state, task, take_step)
        yield (yield from _finish_epoch(state, task))


def _begin_epoch(state: State) -> None:
    for module in state.network.modules():
        if isinstance(module, Staged):
            module.begin_epoch(state.epoch)


class StepFunction(Protocol):
    """One optimizer step on one batch; gives the batch's mean loss and adds it to the totals."""

    def __call__(self, batch: Batch, step: int) -> Tensor: ...

    def check(self) -> None:
        """Raise RunFailed if a loss since the last look was not finite."""


def _train_epoch(state: State, task: Task, take_step: StepFunction) -> Iterator[StepDone]:
    state.network.train()
    batches = task.train.training(task.batch, task.augmentations, seed=task.seed, epoch=state.epoch, start=state.step)
    for batch, waited in timed(batches):
        started = time.perf_counter()
        _set_rates(state, task)
        seed_globally(state.totals.loss.device, task.seed, "step", state.epoch, state.step)
        loss = take_step(batch, state.step)
        state.step += 1
        state.totals.waited += waited
        state.totals.seconds += waited + time.perf_counter() - started
        yield _step_done(state, task, batch, loss)
    take_step.check()


def timed(batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    """Each batch with the seconds spent waiting for it (its augmentation included)."""
    while True:
        started = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - started


def _step_done(state: State, task: Task, batch: Batch, loss: Tensor) -> StepDone:
    return StepDone(
        epoch=state.epoch + 1,
        step=state.step,
        steps=task.steps,
        items=len(batch.index),
        loss=loss,
        lr=state.optimizer.param_groups[-1]["lr"],
        seconds=state.totals.seconds,
        waited=state.totals.waited,
    )


def _set_rates(state: State, task: Task) -> None:
    factor = state.schedule.factor(state.epoch * task.steps + state.step)
    for group in state.optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


class Step:
    """The step: forward and backward in micro-batches, checks, clipping, optimizer, average.

    On CUDA nothing here waits for the device. A non-finite loss raises a flag there, which fused optimizers obey by
    leaving the weights alone; the host looks at it every `CHECKS_EVERY` steps and names the step. Other optimizers
    are asked before each step. A batch whose items were all skipped changes nothing.
    """

    def __init__(self, state: State, task: Task) -> None:
        self._state, self._task = state, task
        self._failed_at = torch.full((), -1, dtype=torch.int64, device=state.totals.loss.device)
        fused = bool(state.optimizer.defaults.get("fused"))
        self._deferred = state.totals.loss.device.type == "cuda" and fused and not state.scaler.is_enabled()

    def __call__(self, batch: Batch, step: int) -> Tensor:
        if not len(batch.index):
            return torch.zeros((), device=batch.pixels.device)
        return self._take(batch, step)

    def _take(self, batch: Batch, step: int) -> Tensor:
        state, task = self._state, self._task
        state.optimizer.zero_grad(set_to_none=True)
        loss = self._backward(batch)
        self._flag(loss, step)
        if not self._deferred or (step + 1) % CHECKS_EVERY == 0:
            self.check()
        if task.clip_norm is not None:
            state.scaler.unscale_(state.optimizer)
            nn.utils.clip_grad_norm_(state.network.parameters(), task.clip_norm)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        if state.average:
            state.average.update()
        state.totals.add(loss, len(batch.index))
        return loss

    def _backward(self, batch: Batch) -> Tensor:
        total = torch.zeros((), device=batch.pixels.device)
        parts = zip(batch.pixels.chunk(self._task.accumulate), batch.targets.chunk(self._task.accumulate), strict=True)
        for pixels, targets in parts:
            loss = self._loss(pixels, targets) * (len(pixels) / len(batch.pixels))
            self._state.scaler.scale(loss).backward()
            total += loss.detach()
        return total

    def _loss(self, pixels: Tensor, targets: Tensor) -> Tensor:
        with self._task.autocast():
            logits = self._state.network(pixels)
        return functional.cross_entropy(
            logits.float(),
            targets,
            weight=self._task.class_weights,
            label_smoothing=self._task.label_smoothing,
        )

    def _flag(self, loss: Tensor, step: int) -> None:
        first = ~torch.isfinite(loss) & (self._failed_at < 0)
        self._failed_at = torch.where(first, step, self._failed_at)
        if self._deferred:
            self._state.optimizer.found_inf = (self._failed_at >= 0).float()  # type: ignore[attr-defined]

    def check(self) -> None:
        failed_at = int(self._failed_at)
        if failed_at >= 0:
            raise non_finite(self._state, self._task, failed_at)


def non_finite(state: State, task: Task, step: int) -> RunFailed:
    """What to say of a loss that is not finite: when, at which rate, and on which items."""
    places = task.train.places(task.batch, seed=task.seed, epoch=state.epoch)[step]
    ids = task.train.pixels.split.ids
    names = [ids[i] for i in places.tolist()]
    rates = ", ".join(f"{group['name']} {group['lr']:.3g}" for group in state.optimizer.param_groups)
    return RunFailed(
        f"the loss is not finite at epoch {state.epoch + 1}, step {step + 1} of {task.steps} (learning rate {rates}); "
        f"the batch: {', '.join(names)}",
        next_step="lower the rate (--set train.optimizer.lr=...), clip (--set train.clip_norm=1.0), or look at these "
        "items; the last checkpoint is untouched",
    )


def _finish_epoch(state: State, task: Task) -> Generator[Validating, None, EpochRecord]:
    """Validate, then close the epoch: returns its record."""
    started = time.perf_counter()
    evaluation = yield from _validate(state, task)
    valid = evaluation.scalars() if evaluation else {}
    score = watched(valid, task.metric)
    best = score is None or state.best_score is None or _better(score, state.best_score, task.direction)
    if score is not None:
        state.schedule.observe(score)
    record = EpochRecord(
        epoch=state.epoch + 1,
        step=(state.epoch + 1) * task.steps,
        train_loss=float(state.totals.loss) / max(state.totals.items, 1),
        valid=valid,
        lr={group["name"]: group["lr"] for group in state.optimizer.param_groups},
        seconds=state.totals.seconds,
        valid_seconds=time.perf_counter() - started,
        waiting=state.totals.waited / max(state.totals.seconds, 1e-9),
        best=best,
        sample=task.sample,
    )
    _close(state, record, score)
    return record


def _close(state: State, record: EpochRecord, score: float | None) -> None:
    if record.best:
        state.best_score, state.best_epoch = score, record.epoch
    state.records.append(record)
    state.epoch, state.step = record.epoch, 0
    state.totals = Totals(torch.zeros_like(state.totals.loss))


def _validate(state: State, task: Task) -> Generator[Validating, None, Evaluation | None]:
    count = len(task.valid.pixels)
    if not count:
        return None
    batches = task.valid.evaluation(task.eval_batch)
    answers = answering(state.judged, batches, task.metrics(), task.autocast, average=task.valid.average)
    while True:
        try:
            yield Validating(state.epoch + 1, next(answers), count)
        except StopIteration as done:
            evaluation: Evaluation = done.value
            return evaluation


def watched(valid: dict[str, float], metric: str) -> float | None:
    """The score that decides which epoch is best; None without a validation split."""
    if not valid:
        return None
    if metric not in valid:
        raise RunFailed(
            f'train.metric: no metric of this recipe gives "{metric}"; there are {", ".join(sorted(valid))}',
            next_step=f"use one of them: --set train.metric={min(valid)}",
        )
    return valid[metric]


def _better(score: float, than: float, direction: Direction) -> bool:
    if math.isnan(than):
        return True
    return score > than if direction == "maximize" else score < than


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def _columns(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    return [a for a, _ in pairs], [b for _, b in pairs]
