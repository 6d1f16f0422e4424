"""What a teacher answers about every training item: computed once where no augmentation changes more than the side that
is left, and looked up from then on.

What is known changes no draw and no order of items. An answer is the one that the teacher would give, up to the
rounding of another batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from toolkit.api.contracts import Augmentation, Batch, Draws, Mirroring
from toolkit.data.loader import Loader, drawn_for
from toolkit.training.asked import Asked, Known, Question
from toolkit.training.features import Featuring


@dataclass(frozen=True)
class Asking:
    """Emitted once where a teacher is asked in each step."""

    epoch: int
    """Epoch under way, from 1."""
    reason: str


@dataclass
class Taught:
    """The answers of a frozen network in evaluation mode; in memory alone: a run that resumes computes them again."""

    teacher: nn.Module
    features: bool
    """Whether its features are asked for, not its outputs."""
    train: Loader
    mirrors: Sequence[Mirroring]
    """All augmentations of the run."""
    autocast: Callable[[], AbstractContextManager[None]]
    seed: int
    batch: int
    _rows: Tensor | None = None
    """`[N, ...]` of the training items by their numbers; with `mirrors` `[2, N, ...]`, the mirrored items last."""

    def ready(self, epoch: int) -> Iterator[Featuring]:
        """Compute the answers; nothing where they are there."""
        if self._rows is not None:
            return
        started, done = time.perf_counter(), 0
        views: Sequence[Sequence[Augmentation]] = ([], [mirror]) if self.mirrors else ([],)
        count = len(views) * self.train.training_items
        sides = []
        for augmentations in views:
            rows: Tensor | None = None
            for batch in self.train.in_order(self.batch, augmentations, seed=self.seed, epoch=0):
                if len(batch.pixels):
                    found = self._of(batch.pixels)
                    if rows is None:
                        rows = found.new_zeros((self.train.training_items, *found.shape[1:]))
                    rows[batch.index.to(rows.device)] = found
                done += len(batch.pixels)
                yield Featuring(epoch, min(done, count - 1), count, time.perf_counter() - started, taught=True)
            sides.append(rows)
        there = [rows for rows in sides if rows is not None]
        self._rows = torch.stack(there) if there else torch.empty(0)
        yield Featuring(epoch, count, count, time.perf_counter() - started, taught=True)

    def known(self, part: Batch, epoch: int) -> Known:
        """The answers about the items of a part of a training batch."""
        for _ in self.ready(epoch + 1):
            pass
        if self._rows is None:
            raise AssertionError("they are there once they are ready")
        device = self._rows.device
        sides = torch.zeros(len(part.index), dtype=torch.bool, device=part.pixels.device)
        draws = drawn_for(part, len(self.mirrors), part.pixels.device, seed=self.seed, epoch=epoch)
        for mirroring, its in zip(self.mirrors, draws, strict=True):
            sides ^= mirroring.mirrored(its)
        answer = self._rows[sides.long().to(device), part.index.to(device, non_blocking=True)]
        return Known(Question(part.pixels, self.teacher, self.features), answer)

    @torch.no_grad()
    def _of(self, pixels: Tensor) -> Tensor:
        asked = Asked(self.teacher, self.autocast)
        return asked.features(pixels) if self.features else asked(pixels)


def mirror(batch: Batch, draws: Draws) -> Batch:
    """All items mirrored."""
    del draws
    return replace(batch, pixels=batch.pixels.flip(-1))
