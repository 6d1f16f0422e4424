"""What the randomness of an epoch's clips comes from."""

from __future__ import annotations

from typing import NamedTuple

import torch

from toolkit.system.randomness import generator


class Draws(NamedTuple):
    """The training items of one epoch, each with numbers of its own."""

    seed: int
    epoch: int

    def of(self, item: int, time: int, count: int) -> list[float]:
        """`count` numbers, uniform in 0..1, for the `time`-th clip (from 0) of an item."""
        numbers: list[float] = torch.rand(
            count, generator=generator("cpu", self.seed, "clip", self.epoch, item, time), dtype=torch.float64
        ).tolist()
        return numbers
