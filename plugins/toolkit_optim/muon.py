"""Muon for filters: momentum whose update is made orthogonal, next to plain momentum for all other parameters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

_Share = Annotated[float, Field(ge=0, lt=1)]
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of a, b and c in X <- aX + (bA + cA^2)X, where A is X times its transpose: they bring singular values near 1 in few
iterations (K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024)."""


def muon(  # noqa: PLR0913 - the arguments are the keys of a recipe
    params: list[dict[str, Any]],
    *,
    lr: float,
    momentum: _Share = 0.6,
    nesterov: bool = True,
    iterations: Annotated[int, Field(ge=1)] = 3,
    normalise: bool = True,
    others: Annotated[float, Field(gt=0)] = 1.0,
    others_momentum: _Share = 0.85,
    weight_decay: Annotated[float, Field(ge=0)] = 0.0,
) -> torch.optim.Optimizer:
    """Muon (K. Jordan et al., 2024) for filters of convolutions, SGD with Nesterov momentum for all other parameters.

    A filter bank is taken as a matrix with a row for each output channel. Its update has singular values near 1, so
    its size does not depend on that of the gradient.

    momentum: weight of the past steps, of filters
    nesterov: look ahead by the momentum, for filters
    iterations: of Newton and Schulz, which make an update orthogonal
    normalise: scale each filter bank, before a step, to the norm of the square root of its output channels
    others: factor on the learning rate of all parameters that are not filters
    others_momentum: weight of the past steps, of these
    weight_decay: share of a weight that each step adds to its gradient at the full rate; of these
    """
    arguments = {
        "lr": lr,
        "momentum": momentum,
        "nesterov": nesterov,
        "iterations": iterations,
        "normalise": normalise,
        "others": others,
        "others_momentum": others_momentum,
        "weight_decay": weight_decay,
    }
    if any(hasattr(parameter, "placements") for group in params for parameter in group["params"]):
        raise ValueError('muon: needs whole filters, which train.strategy = "fsdp" divides')
    return Muon(params, arguments)


class Muon(torch.optim.Optimizer):
    """Parameters of three dimensions or more are filters."""

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take a step; a `closure` is not asked."""
        del closure
        with torch.no_grad():
            alike: dict[tuple[int, ...], list[tuple[Tensor, Tensor, dict[str, Any]]]] = defaultdict(list)
            for group in self.param_groups:
                for parameter in group["params"]:
                    gradient: Tensor | None = parameter.grad
                    if gradient is None:
                        continue
                    if parameter.ndim < 3:
                        self._step_other(parameter, gradient, group)
                    else:
                        matrix = self._direction(parameter, gradient, group).flatten(1)
                        alike[(*matrix.shape, group["iterations"])].append((parameter, matrix, group))
            for (*_, iterations), same in alike.items():
                updates = orthogonal(torch.stack([matrix for _, matrix, _ in same]), iterations)
                for (parameter, _, group), update in zip(same, updates, strict=True):
                    if group["normalise"]:
                        parameter.mul_(len(parameter) ** 0.5 / parameter.norm().clamp(min=1e-12))
                    parameter.add_(update.view_as(parameter), alpha=-group["lr"])

    def _direction(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
        past = self._past(parameter).mul_(group["momentum"]).add_(gradient)
        return torch.add(gradient, past, alpha=group["momentum"]) if group["nesterov"] else past

    def _step_other(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        # The decay follows the schedule, not the rate itself: rates of this optimizer may be far above 1.
        full = group["others"] * group.get("base_lr", group["lr"])
        gradient = torch.add(gradient, parameter, alpha=group["weight_decay"] / full if full else 0.0)
        past = self._past(parameter).mul_(group["others_momentum"]).add_(gradient)
        parameter.add_(gradient.add(past, alpha=group["others_momentum"]), alpha=-group["others"] * group["lr"])

    def _past(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        past: Tensor = state["momentum_buffer"]
        return past


def orthogonal(matrices: Tensor, iterations: int) -> Tensor:
    """Matrices `[N, R, C]` with the singular vectors of the given ones and singular values near 1, all at once. On a
    GPU in bf16, which is exact enough for an update."""
    a, b, c = _COEFFICIENTS
    wide = matrices.shape[1] <= matrices.shape[2]
    found = matrices if wide else matrices.mT
    found = found.to(torch.bfloat16) if found.is_cuda else found.float()
    found = found / found.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(iterations):
        squares = found @ found.mT
        found = a * found + (b * squares + c * squares @ squares) @ found
    result: Tensor = found if wide else found.mT
    return result.to(matrices.dtype)
