"""Answers of features that no head reads: those of the items that are most similar."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from toolkit.api.contracts import Pretraining, TargetForm
from toolkit.training.answers import logits_of

NEIGHBOURS = 20
"""Items that answer for one, each with the weight exp(cosine / TEMPERATURE), as Z. Wu et al. judge features (arXiv
1805.01978); with 20 as M. Caron et al. do (arXiv 2104.14294)."""
TEMPERATURE = 0.07
ROWS = 1024
"""Items that are compared with all at a time."""
MEASURED = 4096
"""Items, evenly spaced, whose spread is measured."""


def neighbours_logits(features: Tensor, targets: Tensor, form: TargetForm, classes: int) -> Tensor:
    """float32 `[N, C]` of features `[N, F]` and the targets of the same items: the logits of the weighted mean of the
    targets of each item's nearest neighbours among the others. The mean target of all counts as one neighbour more
    where answers are probabilities, so that none is 0. Without others, all logits are 0."""
    shares = functional.one_hot(targets, classes).float() if form == "index" else targets.float()
    count = min(NEIGHBOURS, len(features) - 1)
    if not count:
        return torch.zeros_like(shares)
    directions = functional.normalize(features.float(), dim=1)
    found = []
    for start in range(0, len(directions), ROWS):
        rows = directions[start : start + ROWS]
        similar = rows @ directions.T
        itself = torch.arange(len(rows))
        similar[itself, start + itself] = -math.inf
        nearest = similar.topk(count)
        weights = (nearest.values / TEMPERATURE).softmax(1)
        found.append(torch.einsum("nk,nkc->nc", weights, shares[nearest.indices]))
    answers = torch.cat(found)
    return logits_of(answers if form == "number" else (count * answers + shares.mean(0)) / (count + 1), form)


@torch.no_grad()
def spread_of(objective: Pretraining, features: Tensor, device: torch.device) -> float:
    """The standard deviation over items of each value of a projected direction, their mean over the D values, as a
    multiple of that of directions drawn evenly, 1 / sqrt(D) (X. Chen and K. He, arXiv 2011.10566, section 4.1). 0: the
    features have collapsed. NaN of fewer than two items."""
    if len(features) < 2:
        return math.nan
    chosen = features[:: -(-len(features) // MEASURED)]
    directions = functional.normalize(objective.projected(chosen.to(device)).float(), dim=1)
    return float(directions.std(0, correction=0).mean() * math.sqrt(directions.shape[1]))
