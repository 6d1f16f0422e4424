"""A published network taken apart: what makes features, and the fully connected layer that makes logits."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Network:
    """A network of another library and, made of its own layers, its two parts."""

    whole: nn.Module
    """With the names of the library, and without the last layer."""
    features: nn.Module
    """`[B, T, 3, H, W]` -> `[B, F]`."""
    last: nn.Linear
    """`[B, F]` -> logits `[B, C]`."""
    last_name: str
    """What the library calls the last layer."""


class TimeInside(nn.Module):
    """`[B, T, 3, H, W]` -> `[B, 3, T, H, W]`. Channels that lay innermost still do: no copy, and channels_last_3d."""

    def forward(self, clips: Tensor) -> Tensor:
        return clips.movedim(1, 2)
