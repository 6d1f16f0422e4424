"""Batches of a split, on the device, ready for the step, while the step before is still running.

Small splits of images are resident: fetching a batch is one gather, on the device itself where it has the room. Others,
and clips, come through a thread that fetches ahead, pins and copies on a side stream, so that the step does not wait.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TypeAlias

import torch
from torch import Tensor

from toolkit.api.clips import Averaged
from toolkit.api.contracts import Augmentation, Batch, DataSpec, Targets
from toolkit.api.errors import DataError
from toolkit.data.store.resampling import centre_crop
from toolkit.data.store.store import Draws, Store
from toolkit.data.targets import FORMS
from toolkit.system.background import in_background
from toolkit.system.randomness import generator, order
from toolkit.system.ranks import ALONE, Ranks

Fetch: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Pixels at an index, and the index without the items that were skipped."""
Ready: TypeAlias = Callable[[Tensor], Batch]
"""The batch of an index, on its way to the device."""
Begin: TypeAlias = Callable[[Tensor], None]
"""Starts on the items at an index, without waiting for them."""

AHEAD = 2
"""Batches fetched ahead: one being copied while one waits."""


def batches_in(count: int, size: int) -> int:
    """Training batches in an epoch of `count` items: the last partial one is dropped, unless it is the only one."""
    return max(count // size, 1) if count else 0


@dataclass(frozen=True)
class Share(Batch):
    """The part of a training batch that one rank computes; the whole batch, if it is alone."""

    places: Tensor
    """int64 `[B]` on the CPU: where the items stand in the whole batch."""
    size: int
    """Items of the whole batch, skipped ones too."""
    counts: tuple[int, ...]
    """Items of each rank's share, without the skipped ones."""

    @property
    def items(self) -> int:
        """Items of the whole batch, without the skipped ones."""
        return sum(self.counts)

    @classmethod
    def whole(cls, batch: Batch) -> Share:
        """All of a batch."""
        count = len(batch.pixels)
        return cls(batch.pixels, batch.targets, batch.index, torch.arange(count), count, (count,))


@dataclass(frozen=True)
class Loader:
    """Batches of one split on one device."""

    store: Store
    spec: DataSpec
    device: torch.device
    share_of_device: float = 0.5
    """Largest share of the device's free memory that a resident split may take."""
    ranks: Ranks = ALONE
    """Those that train together: each gets its share of a training batch, and whole batches of an evaluation."""

    def training(
        self, size: int, augmentations: Sequence[Augmentation], *, seed: int, epoch: int, start: int
    ) -> Iterator[Share]:
        """This rank's share of the augmented batches `start`, `start + 1`, ... of an epoch, shuffled. Which items and
        which draws a batch gets depends on (seed, epoch, number of the batch) alone, and which clips are drawn from a
        video not even on `size`. One whose items are all skipped is empty. The items after the last batch are decoded
        too, so that the next epoch finds all of them."""
        numbers = self._numbers(size, seed=seed, epoch=epoch)
        count = batches_in(self.training_items, size)
        shares = [batch[self.ranks.share(len(batch))] for batch in numbers]
        fetched = self._fetch(shares[start:count], partial(self.store.drawn, draws=Draws(seed, epoch)))
        for number, batch in enumerate(fetched, start):
            chosen = augmentations if len(batch.index) else ()
            changed = self._cropped(augment(batch, chosen, self.device, seed=seed, epoch=epoch, step=number))
            yield self._share(changed, numbers[number])
        for unused in shares[count:]:
            self.store.keep(unused // self._clips_per_video)

    def _share(self, batch: Batch, numbers: Tensor) -> Share:
        """A batch as this rank's share of the one with these numbers."""
        mine = self.ranks.share(len(numbers))
        asked = numbers[mine] // self._clips_per_video
        places = torch.arange(len(numbers))[mine][torch.isin(asked, batch.index)]
        counts = self.ranks.counts(len(batch.index))
        if 0 in counts and any(counts):
            raise DataError(
                f"{self.ranks}: one rank's share of a batch has no items",
                next_step=f"use batches of at least {self.ranks.count} items that can be read (--set train.batch=...)",
            )
        return Share(batch.pixels, batch.targets, batch.index, places, len(numbers), counts)

    def evaluation(self, size: int) -> Iterator[Batch]:
        """All items in order, centre-cropped; of videos all views: pixels are `[B * V, T, 3, S, S]` with B * V at most
        `size`, where V is. Of R ranks each has every R-th batch."""
        items = max(size // (self.spec.clip.views if self.spec.clip else 1), 1)
        batches = torch.arange(len(self.store)).split(items)
        for batch in self._fetch(batches[self.ranks.rank :: self.ranks.count], self.store.views):
            yield self._cropped(batch)

    def at(self, index: Sequence[int]) -> Batch:
        """The items at `index`, as stored: not cropped, not augmented; of videos the middle."""
        return self._ready(torch.tensor(index, dtype=torch.int64), self.store.fetch)

    def views(self, index: Sequence[int]) -> Batch:
        """The items at `index` as stored, of videos all views of evaluation: `[B * V, T, 3, S, S]`."""
        return self._ready(torch.tensor(index, dtype=torch.int64), self.store.views)

    @property
    def training_items(self) -> int:
        """Items of a training epoch: images, or clips of all videos."""
        return len(self.store) * self._clips_per_video

    def epoch_items(self, size: int) -> int:
        """Of them, those in the batches of `size` that an epoch trains."""
        return min(batches_in(self.training_items, size) * size, self.training_items)

    @property
    def average(self) -> Averaged:
        """What evaluation averages over the views of an item."""
        return self.spec.clip.average if self.spec.clip else "probabilities"

    @property
    def _clips_per_video(self) -> int:
        return self.spec.clip.clips_per_video if self.spec.clip else 1

    def places(self, size: int, *, seed: int, epoch: int) -> Sequence[Tensor]:
        """The items of each batch of a training epoch, what is left over last."""
        return [numbers // self._clips_per_video for numbers in self._numbers(size, seed=seed, epoch=epoch)]

    def _numbers(self, size: int, *, seed: int, epoch: int) -> Sequence[Tensor]:
        """As `places`, by the numbers that `drawn` takes: an image's own, or those of a video's clips."""
        each = self._clips_per_video
        visited = order(len(self.store), seed, epoch)[:, None] * each + torch.arange(each)
        return list(torch.split(visited.flatten(), size))

    def _cropped(self, batch: Batch) -> Batch:
        if batch.pixels.shape[-1] == self.spec.size:
            return batch
        return Batch(centre_crop(batch.pixels, self.spec.size), batch.targets, batch.index)

    def _fetch(self, places: Sequence[Tensor], fetch: Fetch) -> Iterator[Batch]:
        ready = partial(self._ready, fetch=fetch)
        if self.store.resident(self.device, self.share_of_device):
            return map(ready, places)
        return prefetched(places, ready, self.device, begin=self.store.begin)

    def _ready(self, index: Tensor, fetch: Fetch) -> Batch:
        pixels, index = fetch(index)
        targets = self._targets.index_select(0, index.to(self.device, non_blocking=True))
        if self.device.type == "cuda" and not pixels.is_cuda:
            return Batch(pixels.pin_memory().to(self.device, non_blocking=True), targets, index)
        return Batch(pixels.to(self.device), targets, index)

    @cached_property
    def _targets(self) -> Tensor:
        """Of all items, on the device: see `target_tensor`."""
        return target_tensor(self.store.split.targets, self.spec).to(self.device)


def target_tensor(targets: Targets, spec: DataSpec) -> Tensor:
    """int64 `[N]` of class indices; where targets are sets, float32 `[N, C]`: 1 for each class of the set, else 0;
    where they are numbers, float32 `[N, C]` of these."""
    return FORMS[spec.targets].tensor(targets, len(spec.classes))


def augment(
    batch: Batch, augmentations: Sequence[Augmentation], device: torch.device, *, seed: int, epoch: int, step: int
) -> Batch:
    """The batch after all augmentations; each draws from a generator of its own place."""
    for place, augmentation in enumerate(augmentations):
        batch = augmentation(batch, generator(device, seed, "augment", epoch, step, place))
    return batch


def prefetched(places: Sequence[Tensor], ready: Ready, device: torch.device, *, begin: Begin) -> Iterator[Batch]:
    """Batches at `places` in order, fetched by a thread that stays `AHEAD` of the caller.

    `begin` gets a batch while the one before is fetched, so that decoding never waits for a copy.
    The thread's errors are raised here. Closing the iterator ends the thread before its next batch.
    """

    def fetch(stop: threading.Event) -> Iterator[tuple[Batch, torch.cuda.Event | None]]:  # noqa: ARG001 - asked between batches
        stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        for place, index in enumerate(places):
            for soon in places[place : place + 2]:
                begin(soon)
            if stream is None:
                yield ready(index), None
                continue
            with torch.cuda.stream(stream):
                batch = ready(index)
                copied = stream.record_event()
            yield batch, copied

    with closing(in_background(fetch, room=AHEAD, name="prefetch")) as fetched:
        for batch, copied in fetched:
            if copied is not None:  # it may still be running on the side stream
                stream = torch.cuda.current_stream(device)
                stream.wait_event(copied)
                batch.pixels.record_stream(stream)
                batch.targets.record_stream(stream)
            yield batch
