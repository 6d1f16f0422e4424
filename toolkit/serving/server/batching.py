"""Requests that share a batch: each waits a little for others, and none waits in an endless queue.

While a batch is computed, the next one is made ready behind it, if it is full: what computes then goes on without
waiting for the event loop. What does not fill a batch waits for others meanwhile, since nothing is free to compute it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

from toolkit.serving.server.refusals import BUSY, Refused

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FORGETTING = 0.2
"""Weight of the latest batch in the mean time that one takes."""
AHEAD = 2
"""Batches of each run at a time: one that is computed, and one that is ready."""


Run: TypeAlias = "Callable[[NDArray[np.uint8]], NDArray[np.float32]]"


class Watch(Protocol):
    """What is measured of batches."""

    def batch(self, size: int, waited: Sequence[float], took: float) -> None:
        """A batch of `size` inputs, each of which `waited` so many seconds, and which `took` so many to compute."""


@dataclass(eq=False)
class _Waiting:
    """One input of a request."""

    pixels: NDArray[np.uint8]
    since: float
    answer: asyncio.Future[NDArray[np.float32]]


@dataclass(frozen=True)
class _Computed:
    """The rows of a batch, when it was begun and how many seconds it took."""

    rows: NDArray[np.float32]
    begun: float
    took: float


@dataclass(eq=False)
class Batcher:
    """Inputs of many requests, answered in batches of one shape by `runs`, in threads of `pool`. All methods are for
    the event loop's thread."""

    runs: Sequence[Run]
    """Each computes one batch at a time, from uint8 `[N, ...]` to float32 `[N, C]`."""
    batch: int
    delay: float
    """Seconds that an input waits for others, unless a batch is full before."""
    most: int
    """Inputs of all requests that are being answered."""
    pool: Executor
    watch: Watch
    _shapes: dict[tuple[int, ...], deque[_Waiting]] = field(default_factory=dict)
    _count: int = 0
    _admitted: int = 0
    _seconds: float = 0.0
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _closing: bool = False
    _taken: int = 0
    _free: SimpleQueue[Run] = field(default_factory=SimpleQueue)
    """Those of `runs` that compute nothing, for the threads of `pool`."""
    _collecting: asyncio.Lock = field(default_factory=asyncio.Lock)
    _workers: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def admitted(self) -> int:
        """Inputs of the requests that are being answered."""
        return self._admitted

    @property
    def batches(self) -> int:
        """Batches that are computed or ready."""
        return self._taken

    @contextmanager
    def admit(self, inputs: int) -> Iterator[None]:
        """Keep room for so many inputs inside the block, whose request asks for these. Raises Refused where they would
        be too many; a request that finds nobody else is always taken, whatever its size."""
        if self._admitted and self._admitted + inputs > self.most:
            wait = max(1, math.ceil(self._seconds * self._admitted / self.batch / len(self.runs)))
            message = f"{self._admitted} inputs are being answered; at most {self.most} may be"
            raise Refused(BUSY, message, retry_after=wait)
        self._admitted += inputs
        try:
            yield
        finally:
            self._admitted -= inputs

    async def ask(self, inputs: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """The row of each of N inputs, in their order. Raises what `run` raises."""
        if all(worker.done() for worker in self._workers):
            self._free = SimpleQueue()
            for run in self.runs:
                self._free.put(run)
            self._workers = [asyncio.create_task(self._work()) for _ in range(AHEAD * len(self.runs))]
        loop, now = asyncio.get_running_loop(), time.perf_counter()
        found = [_Waiting(pixels, now, loop.create_future()) for pixels in inputs]
        for one in found:
            self._shapes.setdefault(one.pixels.shape, deque()).append(one)
        self._count += len(found)
        self._arrived.set()
        if len(found) == 1:
            return (await found[0].answer)[None]
        return np.stack(await asyncio.gather(*(one.answer for one in found)))

    async def close(self) -> None:
        """Return once all that waits is answered."""
        self._closing = True
        self._arrived.set()
        await asyncio.gather(*self._workers)

    async def _work(self) -> None:
        while True:
            async with self._collecting:
                while not self._count:
                    if self._closing:
                        return
                    self._arrived.clear()
                    await self._arrived.wait()
                taken = await self._collected()
                self._taken += 1
            try:
                await self._answer(taken)
            finally:
                self._taken -= 1
                self._arrived.set()  # what is not full may be computed now

    async def _collected(self) -> list[_Waiting]:
        """The next batch: of the shape that has waited longest, once it is full, or has waited long enough and can be
        computed at once."""
        group = min(self._shapes.values(), key=lambda group: group[0].since)
        until = group[0].since + self.delay
        while len(group) < self.batch and not self._closing:
            left = until - time.perf_counter() if self._taken < len(self.runs) else None
            if left is not None and left <= 0:
                break
            self._arrived.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), left)
        taken = [group.popleft() for _ in range(min(self.batch, len(group)))]
        self._count -= len(taken)
        if not group:
            del self._shapes[taken[0].pixels.shape]
        return taken

    async def _answer(self, taken: Sequence[_Waiting]) -> None:
        wanted = [one for one in taken if not one.answer.done()]  # a request that was given up needs no answer
        if not wanted:
            return
        try:
            pixels = [one.pixels for one in wanted]
            found = await asyncio.get_running_loop().run_in_executor(self.pool, self._computed, pixels)
        except Exception as error:
            for one in wanted:
                if not one.answer.done():
                    one.answer.set_exception(error)
            return
        took = found.took
        self._seconds = took if not self._seconds else _FORGETTING * took + (1 - _FORGETTING) * self._seconds
        self.watch.batch(len(wanted), [found.begun - one.since for one in wanted], took)
        for one, row in zip(wanted, found.rows, strict=True):
            if not one.answer.done():
                one.answer.set_result(row)

    def _computed(self, pixels: Sequence[NDArray[np.uint8]]) -> _Computed:
        """By the first run that is free, in a thread of `pool`."""
        batch, free = np.stack(pixels), self._free
        run = free.get()
        try:
            begun = time.perf_counter()
            return _Computed(run(batch), begun, time.perf_counter() - begun)
        finally:
            free.put(run)
