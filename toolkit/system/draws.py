"""What augmentations draw: numbers of each item's own, whatever batch, rank or device the item comes in.

An item has a stream of words for each epoch and each augmentation: Philox's, keyed by (seed, epoch), counted by (item,
place of the augmentation in the list, number of the block). A draw takes the next words of it.

Few numbers are made on the host, where the items' numbers are known, and sent: Philox costs a GPU over a hundred
launches. Many (one for each pixel) are made on the device. Both give equal bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from toolkit.api.contracts import Draws, Visit
from toolkit.system import exact
from toolkit.system.philox import BITS, BLOCK, MASK, on_device, on_host
from toolkit.system.philox import Words as HostWords

Shape: TypeAlias = tuple[int, ...]
Words: TypeAlias = Any
"""uint64 NumPy array or int64 tensor `[B, ...]` of values below 2^32: both know the same operators."""

GROUP = 4
"""Items that may be mixed with each other: so many consecutive ones of the global batch. Few, so that a rank's share of
a small batch is whole groups. Who meets in a group changes with each epoch's order."""
MANY = 1 << 16
"""Words from which on a GPU makes its own, and a CPU makes them in parts."""
CACHED = 1 << 14
"""Words made at a time on the CPU: what they are made of stays in a core's second-level cache."""
LEAST_EXPONENT = -700.0
"""What `exact.exp` takes at least; nobody sees a share of e^-700."""


def groups_of(count: int) -> Tensor:
    """int64 `[count]` on the CPU: the group of each place in a global batch of `count` items.

    `GROUP` consecutive places form one; what remains belongs to the last, so that no item of a larger batch is alone.
    """
    return (torch.arange(count) // GROUP).clamp(max=max(count // GROUP, 1) - 1)


def draws_of_each(
    count: int, visit: Visit, seed: int, device: torch.device, *, turns: Turns | None = None
) -> list[ItemDraws]:
    """The draws of `count` augmentations in a list, whose first words are made together. `turns` are those of
    `alternating`, by default of the first epoch of a run with this seed."""
    streams = Streams(visit, seed, device, turns)
    first = streams.blocks(range(count), range(1)) if count else ()
    return [ItemDraws(streams, place, words) for place, words in enumerate(first)]


def draws_of(items: Tensor, seed: int) -> ItemDraws:
    """Draws on the CPU for `items`, int64 `[B]`, which are a global batch of their own."""
    return draws_of_each(1, Visit(items, torch.arange(len(items)), len(items)), seed, torch.device("cpu"))[0]


class Turns(NamedTuple):
    """What draws that alternate are keyed by."""

    seed: int
    """Of the whole run: the same in every epoch."""
    epoch: int


class Streams:
    """The words of a batch's items, for any place in the list of augmentations."""

    def __init__(self, visit: Visit, seed: int, device: torch.device, turns: Turns | None = None) -> None:
        self.turns = turns or Turns(seed, 0)
        self.items, self.device = visit.items.numpy(), device
        self.groups = groups_of(visit.size)[visit.places].numpy()
        self._key = _key(seed)
        self._halves = (self.items & MASK).astype(np.uint64), (self.items >> BITS).astype(np.uint64)

    def __len__(self) -> int:
        return len(self.items)

    def blocks(self, places: range, numbers: range, part: slice = slice(None), *, seed: int | None = None) -> HostWords:
        """`[places, words, B]`: words of these blocks, of the items in `part`; of the streams of `seed`."""
        key = self._key if seed is None else _key(seed)
        low, high = (half[part] for half in self._halves)
        shape = (len(places), len(numbers), len(low))
        even, odd = np.empty((2, *shape), np.uint64), np.empty((2, *shape), np.uint64)
        even[0], even[1] = np.array(numbers, np.uint64)[:, None], low
        odd[0], odd[1] = np.array(places, np.uint64)[:, None, None], high
        words = on_host(even.reshape(2, -1), odd.reshape(2, -1), key).reshape(BLOCK, *shape)
        return np.moveaxis(words, 0, 2).reshape(len(places), len(numbers) * BLOCK, len(low))

    def on_host(self, place: int, start: int, end: int) -> HostWords:
        """`[B, end - start]`: these words of the streams at `place`."""
        numbers, skipped = _blocks(start, end), start % BLOCK
        step = max(1, CACHED // max(end - start, 1))
        parts = [
            self.blocks(range(place, place + 1), numbers, slice(first, first + step))[0, skipped:][: end - start].T
            for first in range(0, max(len(self), 1), step)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def on_device(self, place: int, start: int, end: int) -> Tensor:
        """The same, int64, made on the device."""
        numbers, skipped = _blocks(start, end), start % BLOCK
        items = self.sent(self.items)[:, None]
        block = torch.arange(numbers.start, numbers.stop, device=self.device)
        words = on_device(block, torch.full_like(block, place), items & MASK, items >> BITS, self._key)
        return words.permute(1, 2, 0).flatten(1)[:, skipped : skipped + end - start]

    def alternating(self, place: int) -> NDArray[np.bool_]:
        """`[B]`: a fair coin for each item, which the next epoch turns over."""
        words = self.blocks(range(place, place + 1), range(1), seed=self.turns.seed)[0, 0]
        turned: NDArray[np.bool_] = (words + self.turns.epoch) % 2 == 1
        return turned

    def sent(self, values: NDArray[Any]) -> Tensor:
        """As a tensor on the device, for which nothing waits."""
        tensor = torch.from_numpy(values)
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor


def _key(seed: int) -> tuple[int, int]:
    return seed & MASK, seed >> BITS


def _blocks(start: int, end: int) -> range:
    """The blocks that these words of a stream are of."""
    return range(start // BLOCK, -(-end // BLOCK))


class ItemDraws(Draws):
    """The draws of one augmentation: `made` are words `[words, B]` of its streams from the first one on."""

    def __init__(self, streams: Streams, place: int, made: HostWords) -> None:
        self._streams, self._place = streams, place
        self._made, self._made_from = made, 0
        self._taken = 0

    @property
    def device(self) -> torch.device:
        return self._streams.device

    def __len__(self) -> int:
        return len(self._streams)

    def uniform(self, low: float = 0.0, high: float = 1.0, shape: Shape = ()) -> Tensor:
        return self._sent(_shares(self._words(shape)) * (high - low) + low, "float32")

    def log_uniform(self, low: float, high: float, shape: Shape = ()) -> Tensor:
        start, end = math.log(low), math.log(high)
        return self._sent(exact.exp(_shares(self._words(shape)) * (end - start) + start), "float32")

    def normal(self, mean: float = 0.0, std: float = 1.0, shape: Shape = ()) -> Tensor:
        # Box and Muller 1958, of which the cosine alone: a second normal would cost as much code again
        def of(words: Words, others: Words) -> Words:
            length = exact.root(exact.log(_inside(words)) * -2.0)
            return exact.of_type(length * exact.cosine(_inside(others)) * std + mean, "float32")

        return self._sent(_in_parts(of, self._words(shape), self._words(shape)), "float32")

    def beta(self, alpha: float, shape: Shape = ()) -> Tensor:
        # Devroye 1996, "Random variate generation in one line of code", with U^(1 / alpha) as `small`
        small = exact.exp(np.maximum(exact.log(_inside(self._host_words(shape))) / alpha, LEAST_EXPONENT))
        cosine = exact.cosine(_inside(self._host_words(shape)))
        odds = (1.0 - small) * cosine * cosine
        return self._sent((1.0 + np.copysign(exact.root(odds / (odds + small)), cosine)) / 2.0, "float32")

    def chance(self, p: float, shape: Shape = ()) -> Tensor:
        return self._sent(self._words(shape) < round(p * (MASK + 1)), "bool")

    def alternating(self) -> Tensor:
        return self._streams.sent(self._streams.alternating(self._place))

    def integers(self, low: int, high: int | Tensor, shape: Shape = ()) -> Tensor:
        words = self._words(shape)
        if not isinstance(high, Tensor):
            return self._sent(words * (high - low) >> BITS, "int64") + low
        return (self._sent(words, "int64") * (high - low).view(-1, *[1] * len(shape)) >> BITS) + low

    def bytes(self, shape: Shape = ()) -> Tensor:
        count = math.prod(shape)
        words = self._words((-(-count // 4),))
        octets: Words
        if isinstance(words, Tensor):
            octets = words.int().contiguous().view(torch.uint8)
        else:
            octets = np.ascontiguousarray(words, "<u4").view(np.uint8)
        return self._sent(octets[:, :count].reshape(len(self), *shape), "uint8")

    def orders(self, count: int) -> Tensor:
        return self._sent(self._host_words((count,)).argsort(axis=1, kind="stable"), "int64")

    def partners(self) -> Tensor:
        groups, items = self._streams.groups, self._streams.items
        around = np.lexsort((items, self._host_words(()), groups))
        starts = np.flatnonzero(np.diff(groups[around], prepend=-1))
        following = np.roll(around, -1)
        following[np.roll(starts, -1) - 1] = around[starts]  # the last of a group is followed by its first
        partners = np.empty_like(around)
        partners[around] = following
        return self._sent(partners, "int64")

    def seeds(self) -> list[int]:
        high, low = self._host_words((2,)).T
        seeds: list[int] = ((high << BITS | low) >> 1).tolist()
        return seeds

    def _words(self, shape: Shape) -> Words:
        """The next words of each item's stream, as many as `shape` holds."""
        few = self.device.type != "cuda" or math.prod(shape) * len(self) < MANY
        return self._host_words(shape) if few else self._device_words(shape)

    def _device_words(self, shape: Shape) -> Tensor:
        start = self._taken
        self._taken += math.prod(shape)
        return self._streams.on_device(self._place, start, self._taken).reshape(len(self), *shape)

    def _host_words(self, shape: Shape) -> HostWords:
        count, start = math.prod(shape), self._taken
        end = self._taken = start + count
        if count * len(self) >= MANY:
            return self._streams.on_host(self._place, start, end).reshape(len(self), *shape)
        if not self._made_from <= start <= end <= self._made_from + len(self._made):
            numbers = _blocks(start, end)
            # one block more costs little, and the next draw needs no call
            ahead = range(numbers.start, numbers.stop + 1)
            self._made = self._streams.blocks(range(self._place, self._place + 1), ahead)[0]
            self._made_from = numbers.start * BLOCK
        made = self._made[start - self._made_from : end - self._made_from]
        return made.T.reshape(len(self), *shape)

    def _sent(self, values: Words, name: str) -> Tensor:
        """As this type, on the device."""
        typed = exact.of_type(values, name)
        return typed if isinstance(typed, Tensor) else self._streams.sent(typed)


def _in_parts(function: Callable[[Words, Words], Words], words: Words, others: Words) -> Words:
    """What `function` gives of each pair of words; on the CPU of so many at a time that they stay in the cache."""
    if isinstance(words, Tensor) or words.size <= CACHED:
        return function(words, others)
    pairs = zip(*(np.array_split(each.reshape(-1), -(-each.size // CACHED)) for each in (words, others)), strict=True)
    return np.concatenate([function(*pair) for pair in pairs]).reshape(words.shape)


def _shares(words: Words) -> Words:
    """float64 in [0, 1) of the upper 24 bits, as many as a float32 holds."""
    return exact.of_type(words >> 8, "float64") * 2.0**-24


def _inside(words: Words) -> Words:
    """float64 above 0 and below 1."""
    return (exact.of_type(words, "float64") + 0.5) * 2.0**-32
