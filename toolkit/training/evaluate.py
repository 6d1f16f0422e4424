"""A network's answers on a split, and their scores."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from toolkit.api.clips import Averaged
from toolkit.api.contracts import Batch, Data, Metric, Objective, Pretraining, Scores
from toolkit.api.errors import DataError
from toolkit.system.ranks import ALONE, Ranks
from toolkit.training.answers import answers_of, averaged
from toolkit.training.modes import evaluating
from toolkit.training.neighbours import neighbours_logits, spread_of
from toolkit.training.sharded import in_step, is_sharded
from toolkit.training.similarity import Similarity
from toolkit.transfer.vectors import vectors

Autocast = Callable[[], AbstractContextManager[None]]
"""Makes the context that the network's forward pass runs in."""


@dataclass(frozen=True)
class Answered:
    """N answers of a network, on the CPU."""

    index: Tensor
    """int64 `[N]`: positions in the split."""
    logits: Tensor
    """float32 `[N, C]`."""
    targets: Tensor
    """int64 `[N]` of class indices, float32 `[N, C]` of zeros and ones where targets are sets, or of numbers."""
    views: Tensor | None = field(default=None, kw_only=True)
    """float32 `[N, V, C]`: the logits of each view, where they were kept."""
    similarities: Tensor | None = field(default=None, kw_only=True)
    """float32 `[N]`: of features to those of the nearest class, averaged over views, where the network measures it."""
    spread: float | None = field(default=None, kw_only=True)
    """Of features that are pretrained: see `toolkit.training.neighbours.spread_of`."""
    speeds: Sequence[float] = field(default=(), kw_only=True)
    """Items that each of several ranks has answered in a second; empty where all answer at one pace."""

    @torch.no_grad()
    def scored(self, objective: Objective, metrics: Sequence[Metric], thresholds: Tensor | None = None) -> Evaluation:
        """With the loss and every metric's scores. `thresholds` are those of a bundle, in place of the objective's."""
        if thresholds is None and objective.thresholds is not None:
            thresholds = objective.thresholds.cpu()
        answers = answers_of(self.logits, objective.targets)
        scores = score(objective, self.logits, self.targets, metrics, thresholds)
        if self.spread is not None:
            scores["spread"] = self.spread
        return Evaluation(
            self.index,
            self.logits,
            self.targets,
            answers,
            thresholds,
            scores,
            views=self.views,
            similarities=self.similarities,
            spread=self.spread,
            speeds=self.speeds,
        )


@dataclass(frozen=True)
class Evaluation(Answered):
    """N answers and their scores."""

    answers: Tensor
    """float32 `[N, C]`: probabilities, or numbers."""
    thresholds: Tensor | None
    """float32 `[C]`: from which answer a class counts as present, where targets are sets."""
    scores: Scores
    """`loss` (the objective's mean loss) and what the metrics computed."""

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
            next_step=f"use data that has one: {again} --set data.KEY=VALUE; list the keys: "
            f"python -m toolkit plugins show {dataset}",
        )
    return names


def evaluate(
    network: nn.Module,
    objective: Objective,
    batches: Iterable[Batch],
    metrics: Sequence[Metric],
    autocast: Autocast,
    *,
    average: Averaged = "probabilities",
    ranks: Ranks = ALONE,
    keep_views: bool = False,
) -> Evaluation:
    """As `answer`, with the scores of the answers."""
    answered = answer(network, objective, batches, autocast, average=average, ranks=ranks, keep_views=keep_views)
    return answered.scored(objective, metrics)


def answer(
    network: nn.Module,
    objective: Objective,
    batches: Iterable[Batch],
    autocast: Autocast,
    *,
    average: Averaged = "probabilities",
    ranks: Ranks = ALONE,
    keep_views: bool = False,
) -> Answered:
    """Run the network over all batches in evaluation mode; each of its modules gets its own mode back. Where a batch
    has several views of each item, an item's answer is their average. Where features are pretrained, it is that of its
    neighbours. Each of several `ranks` has batches of its own; all get the same answers, in the order that one rank
    gives.

    Raises DataError when they hold no item.
    """
    answers = answering(network, objective, batches, autocast, average=average, ranks=ranks, keep_views=keep_views)
    while True:
        try:
            next(answers)
        except StopIteration as done:
            answered: Answered = done.value
            return answered


def answering(
    network: nn.Module,
    objective: Objective,
    batches: Iterable[Batch],
    autocast: Autocast,
    *,
    average: Averaged = "probabilities",
    ranks: Ranks = ALONE,
    keep_views: bool = False,
) -> Generator[int, None, Answered]:
    """The answers of `answer`, a batch at a time: yields the number of items that this rank has answered so far, so
    that a caller may show progress or leave."""
    pretrains = isinstance(objective, Pretraining)
    similarity: Similarity | None = getattr(network, "similarity", None)
    answered: list[tuple[Tensor, ...]] = []
    count, seconds, started = 0, 0.0, time.perf_counter()
    with evaluating(network):
        for batch in in_step(batches, ranks) if is_sharded(network) else batches:
            if not len(batch.pixels):
                continue
            with torch.inference_mode(), autocast():
                features = network(batch.pixels, features=True) if pretrains or similarity is not None else batch.pixels
                outputs = features if pretrains else network(features)
                items = len(batch.index)
                if not items:
                    continue
                if pretrains:
                    answered.append((batch.index, vectors(outputs, items), batch.targets))
                else:
                    logits = objective.logits(outputs.float())
                    kept = [logits.unflatten(0, (items, -1))] if keep_views else []
                    if similarity is not None:
                        each = similarity(vectors(features, len(logits)))
                        kept.append(each.unflatten(0, (items, -1)).mean(1))
                    one = averaged(logits, objective.targets, items, average)
                    answered.append((batch.index, one, batch.targets, *kept))
            count += items
            seconds += time.perf_counter() - started
            yield count
            started = time.perf_counter()  # without what the caller has done, on the first rank alone
    columns = [torch.cat(column).cpu() for column in zip(*answered, strict=True)]  # waits for the device
    seconds += time.perf_counter() - started
    found, rates = zip(*ranks.gather((columns, count / seconds)), strict=True)
    speeds = rates if ranks.together and not is_sharded(network) else ()
    parts = [part for part in found if part]
    if not parts:
        raise DataError("nothing can be scored: every item of a split was skipped", next_step="repair the data")
    whole = [torch.cat(column) for column in zip(*parts, strict=True)]
    if ranks.together:
        place = whole[0].argsort()
        whole = [column[place] for column in whole]
    index, logits, targets, *kept = whole
    if isinstance(objective, Pretraining):
        features, logits = logits, neighbours_logits(logits, targets, objective.targets, objective.classes)
        spread = spread_of(objective, features, device_of(objective))
        views = logits[:, None] if keep_views else None
        return Answered(index, logits, targets, views=views, spread=spread, speeds=speeds)
    views = kept.pop(0) if keep_views else None
    return Answered(index, logits, targets, views=views, similarities=kept.pop() if kept else None, speeds=speeds)


def device_of(objective: Objective) -> torch.device:
    """The device of the objective's tensors; the CPU where it has none."""
    return next((tensor.device for tensor in (*objective.parameters(), *objective.buffers())), torch.device("cpu"))


@torch.no_grad()
def score(
    objective: Objective, logits: Tensor, targets: Tensor, metrics: Sequence[Metric], thresholds: Tensor | None
) -> Scores:
    """The loss and every metric's scores, of logits and targets on the CPU."""
    there = device_of(objective)
    scores: Scores = {"loss": float(objective.score(logits.to(there), targets.to(there)))}
    if thresholds is not None:
        # A metric calls a class present where its logit is at least 0, whatever the class's threshold.
        logits = logits - thresholds.logit()
    for metric in metrics:
        metric.update(logits, targets)
        scores |= metric.compute()
    return scores
