"""A task: one class an item, of classes that are in order, such as ages, grades or stages of a disease."""

from __future__ import annotations

import torch
from toolkit.api.contracts import DataSpec, Forward, TargetForm
from torch import Tensor, nn
from torch.nn import functional


def ordinal(spec: DataSpec, *, order: tuple[str, ...] = ()) -> Ordinal:
    """Classes in order: is the item above the first class, if so above the second, and so on.

    Each of these questions is a sigmoid. The answers follow from the questions, so they always agree with each other:
    the continuation ratio model, as CORN trains it (arXiv 2111.08851). The last of the network's C outputs is not used.

    order: the classes from the lowest to the highest; empty: in the order of the dataset
    """
    places = {name: place for place, name in enumerate(spec.classes)}
    named = order or spec.classes
    if sorted(named) != sorted(places):
        raise ValueError(f"order: must name each of {', '.join(spec.classes)} once, got {', '.join(order)}")
    return Ordinal([places[name] for name in named])


class Ordinal(nn.Module):
    """`order` holds the class at each rank. Targets are int64 `[B]`, or float32 `[B, C]` of shares of classes."""

    targets: TargetForm = "index"
    thresholds = None
    rank_of: Tensor

    def __init__(self, order: list[int]) -> None:
        super().__init__()
        # Made of the recipe and the data, so there is nothing to save.
        self.register_buffer("rank_of", torch.tensor(order).argsort(), persistent=False)

    def loss(self, forward: Forward, pixels: Tensor, targets: Tensor) -> Tensor:
        """The negative logarithm of the probability of the items' classes, summed."""
        logits = self.logits(forward(pixels))
        shares = targets if targets.ndim == 2 else functional.one_hot(targets, logits.shape[1])
        return -(shares * logits).sum()

    def weight(self, targets: Tensor) -> int:
        """The number of items."""
        return len(targets)

    def logits(self, outputs: Tensor) -> Tensor:
        """The logarithm of each class's probability: above all lower classes, and not above this one."""
        asked = outputs[..., :-1]
        above = functional.pad(functional.logsigmoid(asked).cumsum(-1), (1, 0))
        by_rank = above + functional.pad(functional.logsigmoid(-asked), (0, 1))
        return by_rank[..., self.rank_of]

    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean loss."""
        return functional.cross_entropy(logits, targets)

    def settle(self, logits: Tensor, targets: Tensor) -> None:
        """There is nothing to choose: the likeliest class is the answer."""
