"""Temporal shift: a ResNet on frames that sees its neighbours in time at no cost in multiply-adds."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.resnet import BasicBlock, Bottleneck

Shift: TypeAlias = Annotated[
    bool,
    "move an eighth of the channels a frame forward and an eighth a frame back before the first convolution of each "
    "residual branch (TSM, arXiv 1811.08383).",
]
"""Type of an argument `shift`, and what it means."""
_SHARE = 8
"""One channel in so many moves forward in time, and one back."""


def shift_in_time(resnet: nn.Module, frames: int) -> None:
    """Let the first convolution of every residual branch see an eighth of its channels from the frame before and an
    eighth from the frame after (TSM, arXiv 1811.08383, residual shift)."""
    for block in resnet.modules():
        if isinstance(block, (BasicBlock, Bottleneck)):
            block.set_submodule("conv1", nn.Sequential(TemporalShift(frames), block.conv1))


class TemporalShift(nn.Module):
    """`[B * T, C, H, W]`, the same after an eighth of the channels moved a frame back and an eighth a frame forward;
    what moves in at the ends of a clip is zero."""

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.frames = frames

    def forward(self, features: Tensor) -> Tensor:
        moving = features.shape[1] // _SHARE
        clips = features.unflatten(0, (-1, self.frames)).movedim(2, -1)  # channels innermost, as they lie in memory
        later, earlier, still = clips.split([moving, moving, features.shape[1] - 2 * moving], dim=-1)
        later = functional.pad(later[:, 1:], (0, 0, 0, 0, 0, 0, 0, 1))
        earlier = functional.pad(earlier[:, :-1], (0, 0, 0, 0, 0, 0, 1, 0))
        return torch.cat([later, earlier, still], dim=-1).movedim(-1, 2).flatten(0, 1)
