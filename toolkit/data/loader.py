"""Batches of a split, on the device, ready for the step, while the step before is still running.

Small splits of images are resident: fetching a batch is one gather, on the device itself where it has the room. Others,
and clips, come through a thread that fetches ahead, pins and copies on a side stream, so that the step does not wait.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TypeAlias

import torch
from torch import Tensor

from toolkit.api.clips import Averaged
from toolkit.api.contracts import Augmentation, Batch, DataSpec, Draws, Targets, Visit
from toolkit.api.errors import DataError
from toolkit.data.blocks import BlockBatches, BlockOrder
from toolkit.data.store.resampling import centre_crop
from toolkit.data.store.store import Store
from toolkit.data.targets import FORMS
from toolkit.system.background import in_background
from toolkit.system.draws import Turns, draws_of_each, groups_of
from toolkit.system.randomness import derive, order
from toolkit.system.ranks import ALONE, Ranks

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

    counts: tuple[int, ...] = ()
    """Items of each rank's share, without the skipped ones."""
    waits: tuple[float, ...] = ()
    """Seconds that each rank waited for its share."""

    @property
    def items(self) -> int:
        """Items of the whole batch, without the skipped ones."""
        return sum(self.counts)

    @classmethod
    def whole(cls, pixels: Tensor, targets: Tensor) -> Share:
        """A batch of the first items."""
        index = torch.arange(len(pixels))
        return cls(pixels, targets, index, Visit(index, index, len(index)), (len(index),))


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
        self, size: int, augmentations: Sequence[Augmentation], *, seed: int, epoch: int, start: int, views: int = 1
    ) -> Iterator[Share]:
        """This rank's share of the augmented batches `start`, `start + 1`, ... of an epoch, shuffled. Which items a
        batch gets depends on (seed, epoch, number of the batch) alone, and what is drawn for an item on (seed, epoch,
        item, view). With several `views` of each item, pixels are `[B, views, ...]`. A batch whose items are all
        skipped is empty. The items after the last batch are decoded too, so that the next epoch finds all of them."""
        numbers = self._numbers(size, seed=seed, epoch=epoch)
        count = batches_in(self.training_items, size)
        whole = min(size, self.training_items)
        mine = _whole_groups(whole, self.ranks)
        ready = partial(self._drawn, mine=mine, size=whole, seed=derive(seed, "clip", epoch))
        begun = time.perf_counter()
        for batch in self._fetch(self._announced(numbers, range(start, count), mine), ready):
            chosen = augmentations if len(batch.index) else ()
            drawn = [
                self._cropped(augment(batch, chosen, self.device, seed=seed, epoch=epoch, view=view))
                for view in range(views)
            ]
            changed = drawn[0] if views == 1 else replace(drawn[0], pixels=side_by_side([one.pixels for one in drawn]))
            yield self._share(replace(changed, visit=batch.visit), time.perf_counter() - begun)
            begun = time.perf_counter()
        for unused in numbers[count:]:
            self.store.keep(unused[self.ranks.share(len(unused))] // self._clips_per_video)

    def in_order(
        self, size: int, augmentations: Sequence[Augmentation], *, seed: int, epoch: int
    ) -> Generator[Batch, None, None]:
        """All training items in the order of their numbers, each as `training` draws it in this epoch. Items of one
        batch are neighbours, so an augmentation that mixes items gives others."""
        ready = partial(self._drawn, mine=slice(None), size=size, seed=derive(seed, "clip", epoch))
        for batch in self._fetch(torch.arange(self.training_items).split(size), ready):
            chosen = augmentations if len(batch.index) else ()
            changed = self._cropped(augment(batch, chosen, self.device, seed=seed, epoch=epoch))
            yield replace(changed, visit=batch.visit)

    def _share(self, batch: Batch, waited: float) -> Share:
        found, waits = zip(*self.ranks.each(len(batch.index), waited), strict=True)
        counts = tuple(int(count) for count in found)
        if 0 in counts and any(counts):
            raise DataError(
                f"no item of the share of rank {counts.index(0)} can be read, while other ranks have some",
                next_step="repair the data, or use larger batches: --set train.batch=...",
            )
        return Share(batch.pixels, batch.targets, batch.index, batch.visit, counts, waits)

    def evaluation(self, size: int) -> Iterator[Batch]:
        """All items in order, centre-cropped; of videos all views: pixels are `[B * V, T, 3, S, S]` with B * V at most
        `size`, where V is. Of R ranks each has every R-th batch."""
        items = max(size // (self.spec.clip.views if self.spec.clip else 1), 1)
        for batch in self._fetch(self._ascending(items), self.views):
            yield self._cropped(batch)

    def _ascending(self, items: int) -> Iterator[Tensor]:
        """Every R-th batch of an evaluation."""
        count, blocks = len(self.store), self.store.blocks
        for first in range(self.ranks.rank * items, count, self.ranks.count * items):
            index = torch.arange(first, min(first + items, count))
            if blocks is not None:
                self.store.expect(blocks.following(index))
            yield index

    def _announced(self, numbers: Sequence[Tensor], steps: range, mine: slice) -> Iterator[Tensor]:
        """This rank's share of these batches. The store learns in time which blocks they need."""
        announced: tuple[int, ...] = ()
        for step in steps:
            if isinstance(numbers, BlockBatches) and (coming := numbers.blocks(step, mine)) != announced:
                self.store.expect(coming)
                announced = coming
            yield numbers[step][mine]

    def at(self, index: Sequence[int]) -> Batch:
        """The items at `index`, as stored: not cropped, not augmented; of videos the middle. They may be augmented: as
        the first clip of a video, and as a global batch of their own."""
        pixels, places = self.store.fetch(torch.tensor(index, dtype=torch.int64))
        visit = Visit(places * self._clips_per_video, torch.arange(len(places)), len(places))
        return replace(self._ready(pixels, places), visit=visit)

    def first(self, count: int) -> Tensor:
        """uint8 pixels `[N, ...]` on the CPU of the first `count` items, as evaluation sees them."""
        return self._cropped(self.views(torch.arange(min(count, len(self.store))))).pixels.cpu()

    def views(self, index: Sequence[int] | Tensor) -> Batch:
        """The items at `index` as stored, of videos all views of evaluation: `[B * V, T, 3, S, S]`."""
        return self._ready(*self.store.views(torch.as_tensor(index, dtype=torch.int64)))

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

    def places(self, size: int, *, seed: int, epoch: int, step: int) -> Tensor:
        """The items of one batch of a training epoch."""
        return self._numbers(size, seed=seed, epoch=epoch)[step] // self._clips_per_video

    def _numbers(self, size: int, *, seed: int, epoch: int) -> Sequence[Tensor]:
        """What `drawn` takes for each batch of a training epoch, what is left over last: an image's own number, or
        those of a video's clips."""
        each = self._clips_per_video
        if (blocks := self.store.blocks) is not None:
            count = batches_in(self.training_items, size)
            return BlockBatches(BlockOrder(blocks, seed, epoch), size, count, each=each)
        visited = order(len(self.store), seed, epoch)[:, None] * each + torch.arange(each)
        return list(torch.split(visited.flatten(), size))

    def _cropped(self, batch: Batch) -> Batch:
        if batch.pixels.shape[-1] == self.spec.size:
            return batch
        return replace(batch, pixels=centre_crop(batch.pixels, self.spec.size))

    def _fetch(self, places: Iterable[Tensor], ready: Ready) -> Iterator[Batch]:
        if self.store.resident(self.device, self.share_of_device):
            return map(ready, places)
        return prefetched(places, ready, self.device, begin=self.store.begin)

    def _drawn(self, numbers: Tensor, mine: slice, size: int, seed: int) -> Batch:
        """This rank's share, `mine`, of a training batch of `size` items, of which not all may be there."""
        pixels, items = self.store.drawn(numbers, seed)
        places = torch.arange(size)[mine][: len(numbers)]
        if len(items) < len(numbers):
            places = places[torch.isin(numbers, items)]
        return replace(self._ready(pixels, items // self._clips_per_video), visit=Visit(items, places, size))

    def _ready(self, pixels: Tensor, index: Tensor) -> Batch:
        targets = self._targets.index_select(0, index.to(self.device, non_blocking=True))
        if self.device.type == "cuda" and not pixels.is_cuda:
            return Batch(pixels.pin_memory().to(self.device, non_blocking=True), targets, index)
        return Batch(pixels.to(self.device), targets, index)

    @cached_property
    def _targets(self) -> Tensor:
        """Of all items, on the device: see `target_tensor`."""
        return target_tensor(self.store.split.targets, self.spec).to(self.device)


def _whole_groups(size: int, ranks: Ranks) -> slice:
    """The places in a batch of `size` items that are a rank's: whole groups, because items of one may be mixed."""
    if not size:
        return slice(0)
    groups = groups_of(size)
    mine = ranks.share(int(groups.max()) + 1)
    first, last = torch.searchsorted(groups, torch.tensor([mine.start, mine.stop])).tolist()
    return slice(first, last)


def target_tensor(targets: Targets, spec: DataSpec) -> Tensor:
    """int64 `[N]` of class indices; where targets are sets, float32 `[N, C]`: 1 for each class of the set, else 0;
    where they are numbers, float32 `[N, C]` of these."""
    return FORMS[spec.targets].tensor(targets, len(spec.classes))


def drawn_for(
    batch: Batch, count: int, device: torch.device, *, seed: int, epoch: int, view: int = 0
) -> Sequence[Draws]:
    """What each of `count` augmentations draws for a training batch."""
    if batch.visit is None:
        raise AssertionError("what is not a training batch has nothing to draw by")
    place = ("augment", "view", view) if view else ("augment",)
    turns = Turns(derive(seed, *place), epoch)
    return draws_of_each(count, batch.visit, derive(seed, *place, epoch), device, turns=turns)


def side_by_side(views: Sequence[Tensor]) -> Tensor:
    """`[B, V, ..., 3, H, W]` of V views `[B, ..., 3, H, W]`, in their memory layout."""
    if views[0].stride(-3) == 1:  # channels innermost
        return torch.stack([view.movedim(-3, -1) for view in views], dim=1).movedim(-1, -3)
    return torch.stack(list(views), dim=1)


def augment(
    batch: Batch, augmentations: Sequence[Augmentation], device: torch.device, *, seed: int, epoch: int, view: int = 0
) -> Batch:
    """A training batch after all augmentations; see `Draws` for what each of them draws. Another `view` is drawn
    apart."""
    for augmentation, its in zip(
        augmentations, drawn_for(batch, len(augmentations), device, seed=seed, epoch=epoch, view=view), strict=True
    ):
        batch = augmentation(batch, its)
    return batch


def prefetched(places: Iterable[Tensor], ready: Ready, device: torch.device, *, begin: Begin) -> Iterator[Batch]:
    """Batches at `places` in order, fetched by a thread that stays `AHEAD` of the caller.

    `begin` gets a batch while the one before is fetched, so that decoding never waits for a copy.
    The thread's errors are raised here. Closing the iterator ends the thread before its next batch.
    """

    def fetch(stop: threading.Event) -> Iterator[tuple[Batch, torch.cuda.Event | None]]:  # noqa: ARG001 - asked between batches
        stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        rest = iter(places)
        index = next(rest, None)
        while index is not None:
            begin(index)
            if (following := next(rest, None)) is not None:
                begin(following)
            if stream is None:
                yield ready(index), None
            else:
                with torch.cuda.stream(stream):
                    batch = ready(index)
                    copied = stream.record_event()
                yield batch, copied
            index = following

    with closing(in_background(fetch, room=AHEAD, name="prefetch")) as fetched:
        for batch, copied in fetched:
            if copied is not None:  # it may still be running on the side stream
                stream = torch.cuda.current_stream(device)
                stream.wait_event(copied)
                batch.pixels.record_stream(stream)
                batch.targets.record_stream(stream)
            yield batch
