"""Stochastic depth (arXiv 1603.09382): how likely the residual branches of a model are dropped for an item."""

from __future__ import annotations

from torch import nn

RATES = {"StochasticDepth": "p", "DropPath": "drop_prob"}
"""By the class of a layer that drops branches, the attribute with its probability: torchvision's, and timm's."""


def set_drop_path(model: nn.Module, greatest: float, name: str) -> None:
    """Let `greatest` be the probability of the branch that is dropped most. Others keep their share of it: in published
    models they rise linearly from the first block to the last one.

    Raises ValueError if the model `name` drops none.
    """
    found = [(module, RATES[kind]) for module in model.modules() if (kind := type(module).__name__) in RATES]
    before = max((float(getattr(module, key)) for module, key in found), default=0.0)
    if not before:
        raise ValueError(f"drop_path: {name} has no branches that could be dropped")
    for module, key in found:
        setattr(module, key, greatest * getattr(module, key) / before)
