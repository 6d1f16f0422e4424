"""The training loop: a generator that yields what happened, to a caller who decides what to do about it.

`fit` alone changes `State`. At every yield the state is whole: saved then and loaded later, training goes on as if it
had never stopped, because every draw comes from (seed, epoch, step).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from toolkit.api.contracts import Augmentation, Batch, Direction, EpochRecord, Metric, Staged
from toolkit.api.errors import RunFailed
from toolkit.data.loader import Loader, batches_in
from toolkit.system.randomness import seed_globally
from toolkit.training.evaluate import Evaluation, answering
from toolkit.training.optimize import Schedule

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
    failed_at: Tensor
    """int64 scalar on the device: the first step whose loss was not finite; -1: none."""
    items: int = 0
    seconds: float = 0.0
    waited: float = 0.0

    @classmethod
    def on(cls, device: torch.device) -> Self:
        """Those of an epoch that has not begun."""
        return cls(torch.zeros((), dtype=torch.float64, device=device), torch.full((), -1, device=device))

    @property
    def device(self) -> torch.device:
        return self.loss.device

    def to(self, device: torch.device) -> Self:
        return replace(self, loss=self.loss.to(device), failed_at=self.failed_at.to(device))

    def add(self, loss: Tensor, items: int) -> None:
        self.loss += loss * items
        self.items += items

    def flag(self, loss: Tensor, step: int) -> None:
        """Remember the first step whose loss is not finite, without waiting for the device."""
        first = ~torch.isfinite(loss) & (self.failed_at < 0)
        self.failed_at = torch.where(first, step, self.failed_at)


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
        self.totals = Totals(**state["totals"]).to(self.totals.device)
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
    """Trained in this epoch so far."""
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


def fit(state: State, task: Task) -> Iterator[Event]:
    """Train from where `state` stands to the last epoch.

    Yields `StepDone` after every optimizer step, `Validating` after every validation batch and an `EpochRecord` at
    the end of every epoch. The caller may save the state at any yield, and stops training by leaving the generator.
    Seeds torch's global generators at every step. Raises RunFailed when the loss is not finite, before the
    optimizer's step: `state` then holds the weights from before it. On a GPU that may be noticed some steps later: a
    state is worth saving only after `require_worth`.
    """
    take_step = Step(state, task)
    while state.epoch < task.epochs:
        _begin_epoch(state)
        yield from _train_epoch(state, task, take_step)
        yield (yield from _finish_epoch(state, task))


def _begin_epoch(state: State) -> None:
    for module in state.network.modules():
        if isinstance(module, Staged):
            module.begin_epoch(state.epoch)


def _train_epoch(state: State, task: Task, take_step: Step) -> Iterator[StepDone]:
    state.network.train()
    batches = task.train.training(task.batch, task.augmentations, seed=task.seed, epoch=state.epoch, start=state.step)
    for batch, waited in timed(batches):
        started = time.perf_counter()
        _set_rates(state, task)
        seed_globally(state.totals.device, task.seed, "step", state.epoch, state.step)
        loss = take_step(batch, state.step)
        state.step += 1
        state.totals.waited += waited
        state.totals.seconds += waited + time.perf_counter() - started
        yield _step_done(state, task, loss)
    require_worth(state, task)


def timed(batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    """Each batch with the seconds spent waiting for it (its augmentation included)."""
    while True:
        started = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - started


def _step_done(state: State, task: Task, loss: Tensor) -> StepDone:
    return StepDone(
        epoch=state.epoch + 1,
        step=state.step,
        steps=task.steps,
        items=state.totals.items,
        loss=loss,
        lr=state.optimizer.param_groups[-1]["lr"],
        seconds=state.totals.seconds,
        waited=state.totals.waited,
    )


def _set_rates(state: State, task: Task) -> None:
    for group, rate in zip(state.optimizer.param_groups, _rates(state, task, state.step), strict=True):
        group["lr"] = rate


def _rates(state: State, task: Task, step: int) -> list[float]:
    """The learning rate of each group at a step of the epoch under way."""
    factor = state.schedule.factor(state.epoch * task.steps + step)
    return [group["base_lr"] * factor for group in state.optimizer.param_groups]


class Step:
    """The step: forward and backward in micro-batches, checks, clipping, optimizer, average.

    On CUDA nothing here waits for the device. A non-finite loss raises a flag there, which fused optimizers obey by
    leaving the weights alone; the host looks at it every `CHECKS_EVERY` steps and names the step. Other optimizers
    are asked before each step. A batch whose items were all skipped changes nothing.
    """

    def __init__(self, state: State, task: Task) -> None:
        self._state, self._task = state, task
        fused = bool(state.optimizer.defaults.get("fused"))
        self._deferred = state.totals.device.type == "cuda" and fused and not state.scaler.is_enabled()

    def __call__(self, batch: Batch, step: int) -> Tensor:
        if not len(batch.index):
            return torch.zeros((), device=batch.pixels.device)
        return self._take(batch, step)

    def _take(self, batch: Batch, step: int) -> Tensor:
        state, task = self._state, self._task
        state.optimizer.zero_grad(set_to_none=True)
        loss = self._backward(batch)
        state.totals.flag(loss, step)
        if self._deferred:
            state.optimizer.found_inf = (state.totals.failed_at >= 0).float()  # type: ignore[attr-defined]
        if not self._deferred or (step + 1) % CHECKS_EVERY == 0:
            require_finite(state, task)
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
        """The batch's mean loss. Its parts are divided by what the whole batch weighs, so their number changes nothing
        but sums of floats."""
        total = torch.zeros((), device=batch.pixels.device)
        count = min(self._task.accumulate, len(batch.pixels))
        weight = self._weight(batch.targets)
        for pixels, targets in zip(batch.pixels.tensor_split(count), batch.targets.tensor_split(count), strict=True):
            loss = self._summed_loss(pixels, targets) / weight
            self._state.scaler.scale(loss).backward()
            total += loss.detach()
        return total

    def _weight(self, targets: Tensor) -> Tensor | int:
        """What a sum of losses is divided by: the weights of the items' classes, or where targets are shares of classes
        the number of items, as in torch's own mean. No weight at all makes the loss 0."""
        weights = self._task.class_weights
        if weights is None or targets.is_floating_point():
            return len(targets)
        return weights[targets].sum().clamp(min=torch.finfo(weights.dtype).tiny)

    def _summed_loss(self, pixels: Tensor, targets: Tensor) -> Tensor:
        with self._task.autocast():
            logits = self._logits(pixels)
        return functional.cross_entropy(
            logits.float(),
            targets,
            weight=self._task.class_weights,
            reduction="sum",
            label_smoothing=self._task.label_smoothing,
        )

    def _logits(self, pixels: Tensor) -> Tensor:
        try:
            logits: Tensor = self._state.network(pixels)
        except ValueError as error:  # batch norm has no spread to divide by
            if len(pixels) > 1:
                raise
            raise RunFailed(
                f"the model cannot be trained on one item at a time: {error}",
                next_step="use larger batches (--set train.batch=...) or fewer parts (--set train.accumulate=...)",
            ) from error
        return logits


def require_finite(state: State, task: Task) -> None:
    """Raise RunFailed if a loss of the epoch under way was not finite. Waits for the device."""
    failed_at = int(state.totals.failed_at)
    if failed_at >= 0:
        raise non_finite(state, task, failed_at)


def require_worth(state: State, task: Task) -> None:
    """Raise RunFailed unless `state` is worth saving: a finite loss may have gradients that are not, and then the next
    loss is the first to tell. Waits for the device."""
    require_finite(state, task)
    if not torch.stack([parameter.isfinite().all() for parameter in state.network.parameters()]).all():
        raise RunFailed(
            f"the weights are not finite after epoch {state.epoch + 1}, step {state.step} of {task.steps}: a gradient "
            "was not, of a loss that was",
            next_step="lower the rate (--set train.optimizer.lr=...) or compute in full precision (--set "
            "train.precision=fp32); the last checkpoint is untouched",
        )


def non_finite(state: State, task: Task, step: int) -> RunFailed:
    """What to say of a loss that is not finite: when, at which rate, and on which items."""
    places = task.train.places(task.batch, seed=task.seed, epoch=state.epoch)[step]
    ids = task.train.pixels.split.ids
    names = [ids[i] for i in places.tolist()]
    groups = zip(state.optimizer.param_groups, _rates(state, task, step), strict=True)
    rates = ", ".join(f"{group['name']} {rate:.3g}" for group, rate in groups)
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
    state.totals = Totals.on(state.totals.device)


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
        return not math.isnan(score)
    return score > than if direction == "maximize" else score < than


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def _columns(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    return [a for a, _ in pairs], [b for _, b in pairs]
