"""Horizontal flips."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from toolkit.api.contracts import Batch, DataSpec, Draws
from toolkit_augment.pixels import Share, on_host, per_sample


def horizontal_flip(spec: DataSpec, *, p: Share = 0.5) -> HorizontalFlip:  # noqa: ARG001 - every factory takes the spec
    """Left and right exchanged, in all frames of a clip alike.

    p: probability, 0 to 1, for each sample.
    """
    return HorizontalFlip(p)


def alternating_flip(spec: DataSpec) -> AlternatingFlip:  # noqa: ARG001 - every factory takes the spec
    """Left and right exchanged in every second epoch: for half of the samples in the first, third, ..., for the others
    in the second, fourth, ... (K. Jordan, arXiv 2404.00498). Two epochs show each sample both ways, as chance does not.
    """
    return AlternatingFlip()


@dataclass(frozen=True)
class HorizontalFlip:
    p: float

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        return _flipped(batch, self.mirrored(draws))

    def mirrored(self, draws: Draws) -> Tensor:
        return draws.chance(self.p)


@dataclass(frozen=True)
class AlternatingFlip:
    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        return _flipped(batch, self.mirrored(draws))

    def mirrored(self, draws: Draws) -> Tensor:
        return draws.alternating()


def _flipped(batch: Batch, drawn: Tensor) -> Batch:
    flip = flip_one_by_one if on_host(batch.pixels) else flip_at_once
    return replace(batch, pixels=flip(batch.pixels, drawn))


def flip_one_by_one(pixels: Tensor, drawn: Tensor) -> Tensor:
    """All flipped in one call, which costs less than a call for each, then those put back that were not drawn."""
    out = pixels.flip(-1)
    room, kept = out.numpy(), pixels.numpy()  # NumPy copies a sample in a tenth of the time of a call of torch
    for sample in drawn.logical_not().nonzero().flatten().tolist():
        room[sample] = kept[sample]
    return out


def flip_at_once(pixels: Tensor, drawn: Tensor) -> Tensor:
    return torch.where(per_sample(drawn, pixels), pixels.flip(-1), pixels)
