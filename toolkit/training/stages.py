"""What changes from epoch to epoch besides the rate: how many layers are trained, and how large training items are.

An epoch's stage follows from its number alone, so a run that resumes needs no state of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from toolkit.data.loader import Share
from toolkit.data.store.resampling import resize
from toolkit.training.optimize import Layers, frozen_modules


@dataclass(frozen=True)
class Stage:
    """What one epoch trains."""

    layers: int | None = None
    """How many of the model's last layers are trained with its head; None: all."""
    size: int | None = None
    """Side, in pixels, of its training items; None: that of the data."""
    factor: float | None = None
    """Factor on the learning rates of all its steps; None: the schedule's."""


@dataclass(frozen=True)
class Fixres:
    """Small training items, and larger ones in the last epochs (FixRes, arXiv 1906.06423)."""

    size: int
    """Side, in pixels, of training items before the last epochs."""
    last: Stage
    """What the last epochs train."""
    epochs: int
    """How many these are."""


@dataclass(frozen=True)
class Stages:
    """The stage of each epoch of a training."""

    epochs: int = 0
    layers: int | None = None
    """As `Stage.layers`, of the first epoch."""
    thaw_every: int | None = None
    """Epochs after which one more layer is trained (gradual unfreezing, arXiv 1801.06146); None: never."""
    fixres: Fixres | None = None
    trainable: frozenset[str] = frozenset()
    """Names of the model's parameters that it lets be trained."""

    @property
    def vary(self) -> bool:
        """Whether epochs differ."""
        return self.thaw_every is not None or self.fixres is not None

    @property
    def thaw(self) -> bool:
        """Whether some layers are trained from a later epoch on than others."""
        last = self.fixres.last.layers if self.fixres else None
        joins = self.layers is not None and last is not None and last > self.layers
        return self.thaw_every is not None or joins

    def of(self, epoch: int) -> Stage:
        """The stage of an epoch, counted from 0."""
        if self.fixres and epoch >= self.epochs - self.fixres.epochs:
            return self.fixres.last
        thawed = epoch // self.thaw_every if self.thaw_every else 0
        layers = None if self.layers is None else self.layers + thawed
        return Stage(layers, self.fixres.size if self.fixres else None)

    def begin(self, model: nn.Module, epoch: int) -> Sequence[nn.Module]:
        """Let gradients reach what this epoch trains alone. Returns the modules of frozen layers, which stay in
        evaluation mode."""
        trained = self.of(epoch).layers
        if self.vary:
            layers = Layers.of(model)
            first = 0 if trained is None else len(layers) - trained
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name in self.trainable and layers.depth(name) >= first)
        return frozen_modules(model, trained)


WHOLE = Stages()
"""All layers in every epoch, at the size of the data."""


def trainable(model: nn.Module) -> frozenset[str]:
    """The names of the parameters that a gradient reaches."""
    return frozenset(name for name, parameter in model.named_parameters() if parameter.requires_grad)


def at_size(shares: Iterable[Share], size: int | None) -> Iterator[Share]:
    """Batches with items of `size` x `size` pixels; None: as they are."""
    for share in shares:
        yield share if size is None else replace(share, pixels=smaller(share.pixels, size))


def smaller(pixels: Tensor, size: int) -> Tensor:
    """uint8 `[..., 3, H, W]` to `[..., 3, size, size]`, antialiased and bilinear, on any device."""
    if pixels.device.type == "cpu":
        return resize(pixels, size, size)
    frames = pixels.reshape(-1, *pixels.shape[-3:]).float()  # a GPU has no such kernel for uint8
    floats = functional.interpolate(frames, (size, size), mode="bilinear", antialias=True)
    return floats.round_().clamp_(0, 255).to(torch.uint8).view(*pixels.shape[:-2], size, size)
