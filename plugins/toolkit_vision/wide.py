"""Wide residual networks for small images."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from toolkit.api.contracts import DataSpec
from toolkit.transfer.framewise import Head, HeadLayers, HeadWidth, Temporal, framewise

BASE = 16
"""Channels of the stem, and of the first group where the network is not widened."""
BLOCK_LAYERS = 6
"""Convolutions of one block in each of the three groups."""
OUTSIDE = 4
"""Layers besides these: the stem, and the three shortcuts that the paper counts."""


def wide_resnet(
    spec: DataSpec,
    *,
    depth: Annotated[int, Field(ge=10)] = 28,
    width: Annotated[int, Field(ge=1)] = 10,
    block_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    head: Head = "average",
    head_width: HeadWidth | None = None,
    head_layers: HeadLayers | None = None,
) -> WideResNet:
    """WRN-depth-width for images of 32 px (arXiv 1605.07146): 36.5 M parameters by default. Of clips it sees each frame
    on its own.

    depth: layers, 4 more than a multiple of 6.
    width: how many times as many channels as in a narrow network.
    block_dropout: share of values zeroed between the two convolutions of each block; 0.3 in the paper, where used.
    """
    blocks, rest = divmod(depth - OUTSIDE, BLOCK_LAYERS)
    if rest:
        raise ValueError(f"depth: must be {OUTSIDE} more than a multiple of {BLOCK_LAYERS}, got {depth}")
    temporal = Temporal(head, head_width, head_layers)
    return WideResNet(blocks, width, block_dropout, len(spec.classes), spec.frames, temporal)


class WideResNet(nn.Module):
    """`[B, 3, H, W]` or, with `frames`, `[B, T, 3, H, W]` float -> logits `[B, C]`."""

    def __init__(
        self, blocks: int, width: int, dropout: float, classes: int, frames: int | None, temporal: Temporal
    ) -> None:
        super().__init__()
        channels = [BASE, BASE * width, 2 * BASE * width, 4 * BASE * width]
        groups = [
            _group(before, after, blocks, stride=1 if group == 0 else 2, dropout=dropout)
            for group, (before, after) in enumerate(pairwise(channels))
        ]
        stem = nn.Conv2d(3, BASE, 3, padding=1, bias=False)
        pooled = [nn.BatchNorm2d(channels[-1]), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.groups = framewise(nn.Sequential(stem, *groups, *pooled), frames)
        self.head = temporal.over_frames(frames, channels[-1], partial(nn.Linear, out_features=classes))
        for module in self.groups.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def parts(self) -> Mapping[str, nn.Module]:
        return {"backbone": self.groups, "head": self.head}

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.head(self.groups(pixels))
        return logits


def _group(before: int, after: int, blocks: int, *, stride: int, dropout: float) -> nn.Sequential:
    first = Block(before, after, stride, dropout)
    return nn.Sequential(first, *(Block(after, after, 1, dropout) for _ in range(blocks - 1)))


class Block(nn.Module):
    """Norm, ReLU, convolution, twice, with a shortcut that is the identity unless the shape changes
    (arXiv 1603.05027)."""

    def __init__(self, before: int, after: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        changes = stride > 1 or before != after
        self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False) if changes else None

    def forward(self, features: Tensor) -> Tensor:
        normed = functional.relu(self.norm1(features))
        around: Tensor = features if self.shortcut is None else self.shortcut(normed)
        inside: Tensor = self.conv2(self.dropout(functional.relu(self.norm2(self.conv1(normed)))))
        return around + inside
