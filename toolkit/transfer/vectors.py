"""From the features of a backbone, in the shape that it gives them, to one vector an item."""

from __future__ import annotations

from torch import Tensor


def vectors(features: Tensor, items: int) -> Tensor:
    """float32 `[items, F]` of features `[B, F]`, of sequences `[B, T, F]` their mean over T, and of feature maps
    `[B, F, ...]` with two or more further axes their mean over these. B is `items`, or a multiple of it: the rows of an
    item, its frames say, then lie next to each other, and their mean is taken."""
    rows = features.float()
    if rows.ndim == 3:
        rows = rows.mean(1)
    elif rows.ndim > 3:
        rows = rows.flatten(2).mean(2)
    return rows if rows.shape[0] == items else rows.unflatten(0, (items, -1)).mean(1)
