"""How like the features of an input are to those of the classes that a network has learned."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from toolkit.api.contracts import Batch
from toolkit.system.ranks import ALONE, Ranks
from toolkit.training.modes import evaluating
from toolkit.training.sharded import in_step, is_sharded
from toolkit.transfer.vectors import vectors


class Similarity(nn.Module):
    """Vectors of features `[B, F]` to float32 `[B]`, -1..1: the cosine of the angle to the nearest of the directions
    `[C, F]` that the features of the classes have on average. Features that no class has are far from all of them,
    where a head may be sure of any class.

    Source: the cosine classifier of Gidaris and Komodakis, "Dynamic few-shot visual learning without forgetting",
    CVPR 2018; as a score of what is unknown see Sun, Ming, Zhu and Li, "Out-of-distribution detection with deep nearest
    neighbors", ICML 2022, with one neighbour a class: its mean.
    """

    directions: Tensor

    def __init__(self, directions: Tensor) -> None:
        super().__init__()
        self.register_buffer("directions", directions, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        # autocast would round cosines, which differ little, to two or three digits
        kind = features.device.type
        with torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext():
            nearest: Tensor = (_directions(features) @ self.directions.mT).amax(-1)
        return nearest


@torch.no_grad()
def fit_similarity(network: nn.Module, batches: Iterable[Batch], *, classes: int, ranks: Ranks = ALONE) -> Similarity:
    """The similarity to `classes` classes, by the features of all items of the batches, in evaluation mode. Each of
    several `ranks` has batches of its own; all get the same.

    network: a `Network` whose model is `Headed`
    """
    sums = torch.zeros(classes, 1, dtype=torch.float64)
    with evaluating(network):
        for batch in in_step(batches, ranks) if is_sharded(network) else batches:
            if not len(batch.pixels):
                continue
            features = network(batch.pixels, features=True)
            if items := len(batch.index):
                found = _directions(vectors(features, items)).cpu().double()
                sums = sums.expand(-1, found.shape[1]).index_add(0, batch.targets.cpu(), found)
    total = torch.stack(torch.broadcast_tensors(*ranks.gather(sums))).sum(0)
    return Similarity(_directions(total[total.any(1)]))


def _directions(rows: Tensor) -> Tensor:
    """float32 rows of length 1."""
    return nn.functional.normalize(rows.float(), dim=-1)
