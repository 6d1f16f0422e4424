"""How sure scores are, and what they must be read against: an interval and baselines for every scalar score.

A metric is asked for its score of all items but a twentieth, twenty times over. That needs to know nothing of the
metric, and the same twentieths on two runs make their difference one of pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, cast

import torch
from torch import Tensor

from toolkit.api.contracts import Data, Metric, Objective, Targets
from toolkit.data.splits import count_classes
from toolkit.runs.scores import is_share, possible
from toolkit.runs.significance import Interval, jackknife, wilson_interval
from toolkit.training.answers import logits_of
from toolkit.training.evaluate import Evaluation, score

BLOCKS = 20
"""Parts of the items that are removed in turn."""
GUESSES = 3
"""Draws whose mean score is that of guessing."""


@dataclass(frozen=True)
class Uncertainty:
    """What scores.json says of the scores of one split."""

    replicates: Mapping[str, Sequence[float]]
    """Each score without one block of items, in the order of the blocks."""
    baselines: Mapping[str, Mapping[str, float]]
    """Scores of answers that look at no item, by how they are made: `chance`, `majority` or `constant`."""
    sources: int
    """What the items come from is so many."""

    def interval(self, name: str, value: float) -> Interval:
        """Of the score of this name."""
        found = possible(name, jackknife(value, self.replicates.get(name, ())).interval)
        if found.low == found.high == value in (0.0, 1.0) and is_share(name):
            return wilson_interval(value, self.sources)  # without blocks all items are equal too: nothing varies
        return found


def uncertainty(
    evaluation: Evaluation,
    sources: Sequence[str],
    trained: Targets,
    objective: Objective,
    metrics: Callable[[], Sequence[Metric]],
) -> Uncertainty:
    """`sources` says what each of the evaluation's N items comes from; `trained` are the targets of training."""

    def scored(logits: Tensor, targets: Tensor) -> dict[str, float]:
        found = score(objective, logits, targets, metrics(), evaluation.thresholds)
        return {name: value for name, value in found.items() if isinstance(value, float)}

    kept = [scored(evaluation.logits[rows], evaluation.targets[rows]) for rows in _without_a_block(sources)]
    baselines = {
        name: _mean([scored(logits, evaluation.targets) for logits in found])
        for name, found in _baselines(evaluation, trained, objective)
    }
    names = kept[0] if kept else {}
    replicates = {name: [one.get(name, math.nan) for one in kept] for name in names}
    return Uncertainty(replicates, baselines, len({*sources}))


def _without_a_block(sources: Sequence[str]) -> Iterator[Tensor]:
    """The rows without each block of sources; nothing of a single source. Blocks follow from the names of the sources,
    so every run on the same items has the same."""
    order = sorted({*sources}, key=lambda name: sha256(name.encode("utf-8", "surrogateescape")).digest())
    block = {name: place % BLOCKS for place, name in enumerate(order)}
    blocks = torch.tensor([block[name] for name in sources])
    for number in range(min(BLOCKS, len(order)) if len(order) > 1 else 0):
        yield (blocks != number).nonzero().flatten()


def _baselines(evaluation: Evaluation, trained: Targets, objective: Objective) -> Iterator[tuple[str, list[Tensor]]]:
    """Logits `[N, C]` that depend on no item: of guesses, and of the answer that training targets suggest."""
    like = evaluation.logits
    if objective.targets == "number":
        middle = torch.tensor(cast(Sequence[Sequence[float]], trained)).median(0).values
        yield "constant", [middle.expand_as(like)]
        return
    counts = count_classes(trained)
    shares = torch.tensor([counts[number] / len(trained) for number in range(like.shape[1])])
    yield "majority", [logits_of(shares, objective.targets).expand_as(like)]
    # Equal probabilities, with ties that fall at random: at the threshold, where answers are sets.
    even = torch.zeros(like.shape[1]) if evaluation.thresholds is None else evaluation.thresholds.logit()
    draw = torch.Generator().manual_seed(0)
    yield "chance", [even + 1e-4 * torch.randn(like.shape, generator=draw) for _ in range(GUESSES)]


def _mean(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of each score; NaN where one is undefined."""
    return {name: math.fsum(one[name] for one in found) / len(found) for name in found[0]}


def uncertain_scores(
    answers: Mapping[str, Evaluation],
    data: Data,
    objective: Objective,
    metrics: Callable[[], Sequence[Metric]],
) -> dict[str, Any]:
    """What scores.json says of the split that a run is judged on, the last of `answers`: `intervals`, `baselines`, and
    the `replicates` that `compare` needs."""
    if not answers:
        return {}
    split, evaluation = list(answers.items())[-1]
    ids = getattr(data, split).ids
    names = [ids[place] for place in evaluation.index.tolist()]
    sources = [data.sources.get(name, name) for name in names]
    found = uncertainty(evaluation, sources, data.train.targets, objective, metrics)
    intervals = {name: list(found.interval(name, value)) for name, value in evaluation.scalars().items()}
    return {
        "intervals": {split: intervals},
        "baselines": {split: found.baselines},
        "replicates": {split: found.replicates},
    }
