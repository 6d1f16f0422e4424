"""An image backbone on each frame of a clip, and how the frames' features become one answer.

The frames of a batch of clips go through the backbone as one batch of images, `[B * T, 3, H, W]`; what stands behind it
knows T.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import torch
from pydantic import Field
from torch import Tensor, nn

from toolkit.api.contracts import DataSpec
from toolkit.transfer.classifier import classification_head

Head: TypeAlias = Annotated[
    Literal["average", "lstm", "gru", "attention"],
    "how the frames of a clip become one answer: average (of their logits, TSN, arXiv 1608.00859), lstm or gru (mean "
    "of its outputs), or attention (transformer encoder with learned positions).",
]
HeadWidth: TypeAlias = Annotated[
    int, Field(ge=1), "channels of lstm, gru or attention (there a multiple of 64); unset: 256."
]
HeadLayers: TypeAlias = Annotated[
    int, Field(ge=1), "layers of lstm, gru or attention; unset: 1 of lstm and gru, 2 of attention."
]
"""Types of the arguments `head`, `head_width` and `head_layers`, and what they mean."""

WIDTH = 256
LAYERS = {"lstm": 1, "gru": 1, "attention": 2}
ATTENTION_CHANNELS = 64
"""Channels of each attention head, as in nearly every published transformer."""


@dataclass(frozen=True)
class Temporal:
    """The arguments that say how frames become one answer; all framewise models share them."""

    head: Head = "average"
    width: int | None = None
    layers: int | None = None

    def __post_init__(self) -> None:
        if self.head == "average":
            for key in ("width", "layers"):
                if getattr(self, key) is not None:
                    raise ValueError(f'head_{key}: needs head = "lstm", "gru" or "attention"')
        if self.head == "attention" and (self.width or WIDTH) % ATTENTION_CHANNELS:
            raise ValueError(f"head_width: must be a multiple of {ATTENTION_CHANNELS} for attention, got {self.width}")

    def check(self, frames: int | None) -> None:
        """Raise ValueError if these arguments need clips and `frames` is None."""
        if frames is None and self.head != "average":
            raise ValueError(f'head: "{self.head}" needs clips, and these are images: add a [clip] table')

    def over_frames(self, frames: int | None, features: int, classify: Callable[[int], nn.Module]) -> nn.Module:
        """From a backbone's features, `[B, F]` of images or `[B * T, F]` of clips of T = `frames`, to logits `[B, C]`.

        classify: makes a module `[..., F]` -> `[..., C]` for the F it is given.
        """
        self.check(frames)
        if frames is None:
            return classify(features)
        if self.head == "average":
            return nn.Sequential(classify(features), nn.Unflatten(0, (-1, frames)), Mean())
        width, layers = self.width or WIDTH, self.layers or LAYERS[self.head]
        return nn.Sequential(
            nn.BatchNorm1d(features),
            nn.Linear(features, width),
            nn.Unflatten(0, (-1, frames)),
            Attention(frames, width, layers) if self.head == "attention" else Recurrent(self.head, width, layers),
            Mean(),
            classify(width),
        )


@dataclass(frozen=True)
class Layers:
    """The arguments of the head that replaces a classifier's last layer."""

    dropout: float
    hidden: int | None
    temporal: Temporal

    def head(self, spec: DataSpec, features: int) -> nn.Module:
        """From a backbone's features of images or frames to logits `[B, C]`."""

        def classify(features: int) -> nn.Module:
            return classification_head(features, len(spec.classes), hidden=self.hidden, dropout=self.dropout)

        return self.temporal.over_frames(spec.frames, features, classify)


def framewise(backbone: nn.Module, frames: int | None) -> nn.Module:
    """For clips the backbone on every frame, `[B, T, 3, H, W]` -> `[B * T, F]`; for images the backbone itself."""
    return backbone if frames is None else nn.Sequential(nn.Flatten(0, 1), backbone)


class Mean(nn.Module):
    """`[B, T, F]` -> `[B, F]`. Of logits, this is the consensus of temporal segment networks (arXiv 1608.00859)."""

    def forward(self, frames: Tensor) -> Tensor:
        return frames.mean(dim=1)


class Recurrent(nn.Module):
    """LSTM or GRU over the frames, `[B, T, W]` -> the outputs after each, `[B, T, W]`.

    Its user takes their mean, not the last: every frame then has a short way to the loss, and which of the two makes
    little difference to what is reached in the end (arXiv 1503.08909).
    """

    def __init__(self, kind: Literal["lstm", "gru"], width: int, layers: int) -> None:
        super().__init__()
        self.cells = {"lstm": nn.LSTM, "gru": nn.GRU}[kind](width, width, layers, batch_first=True)

    def forward(self, frames: Tensor) -> Tensor:
        outputs: Tensor = self.cells(frames)[0]
        return outputs


class Attention(nn.Module):
    """Pre-norm transformer encoder (arXiv 1706.03762, 2002.04745) with a learned position for each of the T frames,
    `[B, T, W]` -> `[B, T, W]`."""

    def __init__(self, frames: int, width: int, layers: int) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.empty(frames, width))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.encoder = nn.Sequential(*(_encoder_layer(width) for _ in range(layers)), nn.LayerNorm(width))

    def forward(self, frames: Tensor) -> Tensor:
        encoded: Tensor = self.encoder(frames + self.position)
        return encoded


def _encoder_layer(width: int) -> nn.Module:
    heads = width // ATTENTION_CHANNELS
    return nn.TransformerEncoderLayer(
        width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
