"""A set of classes an item: a sigmoid and a threshold for each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from toolkit.api.contracts import DataSpec, Forward, TargetForm

MOST_WEIGHT = 100.0
"""A class rarer than this weighs no more: few items would decide every step."""


def multi_label(
    spec: DataSpec,
    *,
    targets: Sequence[Sequence[int]] = (),
    thresholds: Literal["fixed", "f1"] = "f1",
    positive_weights: Literal["none", "balanced"] = "none",
) -> MultiLabel:
    """Each item shows a set of classes, perhaps none: a sigmoid a class, binary cross-entropy.

    thresholds: from which probability a class counts as present: `fixed`: 0.5; `f1`: for each class the one with the
      best F1 on the validation split.
    positive_weights: how much an item that shows a class counts in that class's loss; `balanced`: as much as the items
      that do not show it, all together.
    """
    weights = balanced(targets, len(spec.classes)) if positive_weights == "balanced" else None
    return MultiLabel(len(spec.classes), choose=thresholds == "f1", positive_weights=weights)


def balanced(targets: Sequence[Sequence[int]], classes: int) -> Tensor:
    """float32 `[C]`: items without a class by items with it, at most `MOST_WEIGHT`; 1 for a class that no
    item shows, or each."""
    shown = torch.tensor([number for target in targets for number in target], dtype=torch.int64)
    counts = torch.bincount(shown, minlength=classes)
    told_apart = (counts > 0) & (counts < len(targets))
    return torch.where(told_apart, (len(targets) - counts) / counts, 1.0).clamp(max=MOST_WEIGHT)


class MultiLabel(nn.Module):
    """Binary cross-entropy of sigmoids, the mean over classes; targets are float32 `[B, C]`, 0..1."""

    targets: TargetForm = "set"
    thresholds: Tensor
    positive_weights: Tensor | None

    def __init__(self, classes: int, *, choose: bool, positive_weights: Tensor | None) -> None:
        super().__init__()
        self.choose = choose
        self.register_buffer("thresholds", torch.full((classes,), 0.5))
        self.register_buffer("positive_weights", positive_weights, persistent=False)

    def loss(self, forward: Forward, pixels: Tensor, targets: Tensor) -> Tensor:
        logits = forward(pixels)
        losses = functional.binary_cross_entropy_with_logits(
            logits, targets, pos_weight=self.positive_weights, reduction="none"
        )
        return losses.mean(1).sum()

    def weight(self, targets: Tensor) -> int:
        return len(targets)

    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(logits, targets)

    def logits(self, outputs: Tensor) -> Tensor:
        return outputs

    def settle(self, logits: Tensor, targets: Tensor) -> None:
        """For each class the threshold with the best F1; 0.5 where no item of the split shows the class."""
        if self.choose:
            self.thresholds.copy_(best_thresholds(logits.sigmoid(), targets))


def best_thresholds(answers: Tensor, targets: Tensor) -> Tensor:
    """float32 `[C]`: half-way between the answer below and above the cut with the best F1, of answers and targets
    `[N, C]`. Of equally good cuts the one nearest to 0.5 is taken, so a class that is separated without an error
    keeps a margin on both sides."""
    order = answers.argsort(dim=0, descending=True)
    sorted_answers, hits = answers.gather(0, order).double(), targets.gather(0, order).double()
    taken = torch.arange(1, len(answers) + 1, dtype=torch.float64, device=answers.device)[:, None]
    shown = hits.sum(0)
    f1 = 2 * hits.cumsum(0) / (taken + shown)
    below = torch.cat([sorted_answers[1:], torch.zeros_like(sorted_answers[:1])])
    cuts = (sorted_answers + below) / 2
    # Between equal answers there is no cut.
    f1 = f1.masked_fill(sorted_answers == below, -1.0)
    nearest = torch.where(f1 >= f1.amax(0) - 1e-12, (cuts - 0.5).abs(), torch.inf).argmin(0)
    chosen = cuts.gather(0, nearest[None])[0]
    return torch.where(shown > 0, chosen, 0.5).clamp(1e-4, 1 - 1e-4).float()
