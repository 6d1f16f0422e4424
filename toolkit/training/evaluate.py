"""A network's answers on a split, and their scores."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from toolkit.api.clips import Averaged
from toolkit.api.contracts import Batch, Data, Metric, Scores
from toolkit.api.errors import DataError

Autocast = Callable[[], AbstractContextManager[None]]
"""Makes the context that the network's forward pass runs in."""


@dataclass(frozen=True)
class Evaluation:
    """N answers, on the CPU."""

    index: Tensor
    """int64 `[N]`: positions in the split."""
    logits: Tensor
    """float32 `[N, C]`."""
    targets: Tensor
    """int64 `[N]`."""
    scores: Scores
    """`loss` (mean cross-entropy, nats) and what the metrics computed."""

    def scalars(self) -> dict[str, float]:
        return {name: score for name, score in self.scores.items() if isinstance(score, float)}


def scored_splits(data: Data, *, dataset: str, scored: Path) -> list[str]:
    """Which of the validation and the test split have items. Raises DataError where neither has: then there is nothing
    that the run or bundle at `scored` could be scored on."""
    names = [name for name in ("valid", "test") if len(getattr(data, name))]
    if not names:
        again = shlex.join(["python", "-m", "toolkit", "evaluate", str(scored)])
        raise DataError(
            "nothing to score: the data has neither a validation nor a test split",
            next_step=f"name data that has one: {again} --set data.KEY=VALUE; the keys are told by: "
            f"python -m toolkit plugins show {dataset}",
        )
    return names


def evaluate(
    network: nn.Module,
    batches: Iterable[Batch],
    metrics: Sequence[Metric],
    autocast: Autocast,
    *,
    average: Averaged = "probabilities",
) -> Evaluation:
    """Run the network over all batches in evaluation mode; its mode is restored. Where a batch has several views of
    each item, an item's answer is their average.

    Raises DataError when they hold no item.
    """
    answers = answering(network, batches, metrics, autocast, average=average)
    while True:
        try:
            next(answers)
        except StopIteration as done:
            evaluation: Evaluation = done.value
            return evaluation


def answering(
    network: nn.Module,
    batches: Iterable[Batch],
    metrics: Sequence[Metric],
    autocast: Autocast,
    *,
    average: Averaged = "probabilities",
) -> Generator[int, None, Evaluation]:
    """As `evaluate`, a batch at a time: yields the number of items answered so far, so that a caller may show
    progress or leave."""
    was_training = network.training
    network.eval()
    try:
        logits, targets, index = yield from _answers(network, batches, autocast, average)
    finally:
        network.train(was_training)
    return Evaluation(index, logits, targets, score(logits, targets, metrics))


def averaged(logits: Tensor, items: int, average: Averaged) -> Tensor:
    """Logits `[items, C]` of logits `[items * V, C]`: of V views of each item, one item after the other, the mean of
    the logits or of the probabilities they stand for (whose logarithms are logits again)."""
    views = logits.view(items, -1, logits.shape[-1])
    if views.shape[1] == 1 or average == "logits":
        return views.mean(1)
    return views.log_softmax(-1).logsumexp(1) - math.log(views.shape[1])


def _answers(
    network: nn.Module, batches: Iterable[Batch], autocast: Autocast, average: Averaged
) -> Generator[int, None, tuple[Tensor, Tensor, Tensor]]:
    kept: list[tuple[Tensor, Tensor, Tensor]] = []
    done = 0
    for batch in batches:
        if not len(batch.index):
            continue
        with torch.inference_mode(), autocast():
            logits = averaged(network(batch.pixels).float(), len(batch.index), average)
            kept.append((logits, batch.targets, batch.index))
        done += len(batch.index)
        yield done
    if not kept:
        raise DataError("nothing can be scored: every item of a split was left out", next_step="repair the data")
    logits, targets, index = (torch.cat(column).cpu() for column in zip(*kept, strict=True))
    return logits, targets, index


def score(logits: Tensor, targets: Tensor, metrics: Sequence[Metric]) -> Scores:
    """The loss and every metric's scores."""
    scores: Scores = {"loss": float(functional.cross_entropy(logits, targets))}
    for metric in metrics:
        metric.update(logits, targets)
        scores |= metric.compute()
    return scores
