"""What is measured of items while they are scored: how bright they are, and how large their files' pictures are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from toolkit.api.contracts import Batch
from toolkit.data.columns import BRIGHTNESS, SIZE
from toolkit.system.ranks import ALONE, Ranks

LUMINANCE = (0.299, 0.587, 0.114)
"""Shares of red, green and blue (ITU-R BT.601)."""
SAMPLED = 64
"""Rows and columns of a picture whose pixels are measured, at least, where it has as many."""
FRAMES = 4
"""Frames of a clip that are measured, at least, where it has as many."""


def brightness(pixels: Tensor) -> Tensor:
    """The mean luminance, 0 to 255, of uint8 pictures `[..., 3, H, W]`, from evenly spaced pixels: float32 `[...]`."""
    height, width = pixels.shape[-2:]
    sampled = pixels[..., :: max(height // SAMPLED, 1), :: max(width // SAMPLED, 1)].float().mean((-2, -1))
    return sampled @ torch.tensor(LUMINANCE, device=pixels.device)


class Measuring:
    """The measures of a split's items, by index. Several threads may add to it."""

    def __init__(self) -> None:
        self._batches: list[tuple[Tensor, Tensor]] = []
        self._pictures: defaultdict[int, list[float]] = defaultdict(list)
        self._sides: dict[int, int] = {}

    def through(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches of an evaluation, measured on their device. A copy to the CPU would make it wait."""
        for batch in batches:
            if items := len(batch.index):
                pixels = batch.pixels
                if pixels.ndim == 5:
                    pixels = pixels[:, :: max(pixels.shape[1] // FRAMES, 1)]
                self._batches.append((batch.index, brightness(pixels).reshape(items, -1).mean(1)))
            yield batch

    def see(self, index: int, picture: Tensor) -> None:
        """Take a picture of an item as it was decoded, uint8 `[3, H, W]`; of a video any number of frames."""
        self._pictures[index].append(float(brightness(picture)))
        self._sides[index] = min(picture.shape[-2:])

    def columns(
        self, ids: Sequence[str], sides: Mapping[int, int] | None = None, ranks: Ranks = ALONE
    ) -> dict[str, dict[str, float]]:
        """The measures of all items of all ranks, by column and id.

        `sides` are the shorter sides, in pixels, of the items that were decoded before they became batches. Where one
        is not known, since it came out of a cache, there is no column of sizes: that of some items would mislead.
        """
        known = {**(sides or {}), **self._sides}
        rows = [(index, value, known.get(index)) for index, value in self._brightness()]
        every = [row for part in ranks.gather(rows) for row in part]
        columns = {BRIGHTNESS: {ids[index]: value for index, value, _ in every}}
        sizes = {ids[index]: float(side) for index, _, side in every if side is not None}
        return {**columns, SIZE: sizes} if sizes.keys() == columns[BRIGHTNESS].keys() else columns

    def _brightness(self) -> Iterator[tuple[int, float]]:
        for index, values in self._batches:
            yield from zip(index.tolist(), values.tolist(), strict=True)
        for item, seen in self._pictures.items():
            yield item, sum(seen) / len(seen)
