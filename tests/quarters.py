"""A model with a backbone and a head, small enough to be followed by hand."""

from __future__ import annotations

from torch import Tensor, nn


class Quarters(nn.Module):
    """The features of a frame of 4 x 4 pixels are the means of the four quarters of each channel. The answer to a clip
    is the mean over its frames."""

    def __init__(self, frames: int = 1) -> None:
        super().__init__()
        self.frames = frames
        self.head = nn.Linear(12, 3)

    def parts(self) -> dict[str, nn.Module]:
        return {"head": self.head}

    def features(self, pixels: Tensor) -> Tensor:
        """`[B, 12]`, of clips `[B * T, 12]`."""
        return nn.functional.avg_pool2d(pixels.flatten(0, -4), 2).flatten(1)

    def answer(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(features)
        return logits.unflatten(0, (-1, self.frames)).mean(1)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.answer(self.features(pixels))
