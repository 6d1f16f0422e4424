"""The network: normalisation in front of a model, so that pixels go in as uint8 wherever it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from toolkit.api.contracts import Headed
from toolkit.api.errors import Problem, RecipeError
from toolkit.training.modes import evaluating
from toolkit.training.similarity import Similarity
from toolkit.transfer.vectors import vectors

if TYPE_CHECKING:
    from toolkit.api.contracts import DataSpec


CACHED = 1 << 19
"""How many values are normalised at a time on the CPU: as floats they stay in its caches until they are done."""


class Normalize(nn.Module):
    """uint8 `[..., 3, H, W]` to float32 with zero mean and unit deviation per channel."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        super().__init__()
        deviation = torch.tensor(std).view(3, 1, 1)
        self.register_buffer("scale", 1 / (255 * deviation), persistent=False)
        self.register_buffer("shift", -torch.tensor(mean).view(3, 1, 1) / deviation, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        if pixels.device.type == "cpu" and pixels.stride(-3) == 1 and not torch.compiler.is_compiling():
            return self._by_rows(pixels)
        return torch.addcmul(self.shift, pixels.to(self.scale.dtype), self.scale)

    def _by_rows(self, pixels: Tensor) -> Tensor:
        """The same numbers for pixels whose channels lie innermost, five times as fast: whole rows are contiguous, as
        three channels are not for a processor's wide registers, and floats are written to memory once, not twice."""
        rows = pixels.movedim(-3, -1).flatten(-2)
        scale, shift = (channels.flatten().repeat(pixels.shape[-1]) for channels in (self.scale, self.shift))
        normalized = torch.empty(rows.shape, dtype=scale.dtype)
        count = max(CACHED // rows.shape[-1], 1)
        for bytes_, floats in zip(
            rows.flatten(0, -2).split(count), normalized.flatten(0, -2).split(count), strict=True
        ):
            torch.addcmul(shift, floats.copy_(bytes_), scale, out=floats)
        return normalized.view(*rows.shape[:-1], pixels.shape[-1], 3).movedim(-1, -3)


class Network(nn.Module):
    """uint8 pixels `[B, 3, H, W]` or `[B, T, 3, H, W]` to logits `[B, C]`. A model that is `Headed` also takes what its
    backbone has made of them, which is floats."""

    similarity: Similarity | None
    """To the classes that were learned, of a trained network whose features are judged; no part of its state."""

    def __init__(self, model: nn.Module, spec: DataSpec) -> None:
        super().__init__()
        self.normalize = Normalize(spec.mean, spec.std)
        self.model = model
        self.similarity = None

    def forward(self, pixels: Tensor, *, features: bool = False) -> Tensor:
        """Logits; with `features` what the backbone of a model that is `Headed` gives."""
        if features:
            return self.features(pixels)
        if pixels.is_floating_point():
            return cast(Headed, self.model).answer(pixels)
        logits: Tensor = self.model(self.normalize(pixels))
        return logits

    def features(self, pixels: Tensor) -> Tensor:
        """What the backbone of a model that is `Headed` gives for uint8 pixels; features stay as they are. Raises
        RecipeError for another model."""
        if pixels.is_floating_point():
            return pixels
        if not isinstance(self.model, Headed):
            message = "has no backbone and head of its own, and the task asks for its features: use another model"
            raise RecipeError(f"model {type(self.model).__name__}", [Problem("model.name", message)])
        return self.model.features(self.normalize(pixels))


def feature_size(network: Network, spec: DataSpec) -> int:
    """The size F of the vectors `[B, F]` of the features of a network whose model is `Headed`."""
    device = next((one.device for one in network.parameters()), torch.device("cpu"))
    pixels = torch.zeros((1, *spec.item_shape), dtype=torch.uint8, device=device)
    with torch.no_grad(), evaluating(network):
        return vectors(network.features(pixels), 1).shape[1]
