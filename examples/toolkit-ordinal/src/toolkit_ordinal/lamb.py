"""An optimizer: Adam, with a rate for each layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

Share = Annotated[float, Field(ge=0, lt=1)]


def lamb(
    params: list[dict[str, Any]],
    *,
    lr: float,
    betas: tuple[Share, Share] = (0.9, 0.999),
    eps: Annotated[float, Field(gt=0)] = 1e-6,
    weight_decay: Annotated[float, Field(ge=0)] = 0.0,
) -> Lamb:
    """LAMB (arXiv 1904.00962): a step of Adam, made as long as the layer's weights times the rate; for large batches.

    betas: weights of the past in the means of gradients and of their squares, 0 to 1
    eps: added to the root of the mean square
    weight_decay: share of a weight that is added to Adam's step before its length is taken
    """
    return Lamb(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})


class Lamb(torch.optim.Optimizer):
    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Move every parameter that has a gradient, by what its group says now: the core sets `lr` before each step."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, weight.grad, group)

    def _move(self, weight: Tensor, gradient: Tensor, group: Mapping[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state |= {"taken": 0, "mean": torch.zeros_like(weight), "square": torch.zeros_like(weight)}
        first, second = group["betas"]
        state["taken"] += 1
        state["mean"].lerp_(gradient, 1 - first)
        state["square"].lerp_(gradient.square(), 1 - second)
        root = (state["square"] / (1 - second ** state["taken"])).sqrt_().add_(group["eps"])
        step = state["mean"] / (1 - first ** state["taken"]) / root
        step.add_(weight, alpha=group["weight_decay"])
        # Chosen on the device: nothing waits for it.
        length, wanted = step.norm(), weight.norm()
        trust = torch.where((length > 0) & (wanted > 0), wanted / length, 1.0)
        weight.sub_(group["lr"] * trust * step)
