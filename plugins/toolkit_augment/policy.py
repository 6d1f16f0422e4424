"""RandAugment and TrivialAugment: operations drawn for each sample from one list.

On the CPU each operation works on the samples that drew it. On an accelerator it works on the whole batch and the
result is kept where it was drawn: fourteen passes for each operation a sample gets, without waiting for the device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from toolkit.api.contracts import Batch, DataSpec, Draws
from toolkit_augment.operations import Most, Operation, operations
from toolkit_augment.pixels import on_host, per_sample

LEVELS = 30
"""Magnitudes count from 0 to this."""
RAND_AUGMENT = Most(shear=0.3, translate=lambda side: side * 150 / 331, rotate=30.0, enhance=0.9, posterize=4)
TRIVIAL_AUGMENT = Most(shear=0.99, translate=lambda _: 32.0, rotate=135.0, enhance=0.99, posterize=6)


def rand_augment(
    spec: DataSpec,  # noqa: ARG001 - every factory takes the spec
    *,
    num_ops: Annotated[int, Field(ge=1)] = 2,
    magnitude: Annotated[int, Field(ge=0, le=LEVELS)] = 9,
) -> RandAugment:
    """Operations drawn evenly from fourteen, all of one magnitude, each in a random direction (arXiv 1909.13719).

    num_ops: how many operations each sample gets, one after the other.
    magnitude: strength of all of them, 0 to 30.
    """
    return RandAugment(operations(RAND_AUGMENT), num_ops, magnitude / LEVELS)


@dataclass(frozen=True)
class RandAugment:
    operations: tuple[Operation, ...]
    num_ops: int
    level: float

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        pixels = batch.pixels
        for _ in range(self.num_ops):
            level = torch.full((len(pixels),), self.level, device=pixels.device)
            pixels = apply_drawn(pixels, self.operations, level, draws)
        return replace(batch, pixels=pixels)


def trivial_augment(spec: DataSpec) -> TrivialAugment:  # noqa: ARG001 - every factory takes the spec
    """One operation drawn evenly from fourteen, its magnitude from 31, its direction from two (arXiv 2103.10158)."""
    return TrivialAugment(operations(TRIVIAL_AUGMENT))


@dataclass(frozen=True)
class TrivialAugment:
    operations: tuple[Operation, ...]

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        steps = draws.integers(0, LEVELS + 1)
        level = steps / torch.full_like(steps, LEVELS)  # by a number, a GPU multiplies with its inverse
        return replace(batch, pixels=apply_drawn(batch.pixels, self.operations, level, draws))


def apply_drawn(pixels: Tensor, choices: tuple[Operation, ...], level: Tensor, draws: Draws) -> Tensor:
    """`pixels` after one operation a sample, drawn evenly from `choices`, at `level` `[B]` in a drawn direction."""
    chosen = draws.integers(0, len(choices))
    sign = torch.where(draws.chance(0.5), -1.0, 1.0)
    apply = apply_to_drawn if on_host(pixels) else apply_to_all
    return apply(pixels, choices, chosen, level, level * sign)


def apply_to_drawn(
    pixels: Tensor, choices: tuple[Operation, ...], chosen: Tensor, level: Tensor, signed: Tensor
) -> Tensor:
    out = torch.empty_like(pixels)
    for place, operation in enumerate(choices):
        samples = (chosen == place).nonzero().flatten()
        if len(samples):
            amount = (signed if operation.signed else level)[samples]
            out[samples] = operation.apply(pixels[samples], amount)
    return out


def apply_to_all(
    pixels: Tensor, choices: tuple[Operation, ...], chosen: Tensor, level: Tensor, signed: Tensor
) -> Tensor:
    out = pixels
    for place, operation in enumerate(choices):
        amount = signed if operation.signed else level
        out = torch.where(per_sample(chosen == place, pixels), operation.apply(pixels, amount), out)
    return out
