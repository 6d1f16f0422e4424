"""Requests that share a batch: each waits a little for others, and none waits in an endless queue."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

from toolkit.serving.server.refusals import BUSY, Refused

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FORGETTING = 0.2
"""Weight of the latest batch in the mean time that one takes."""


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
    _collecting: asyncio.Lock = field(default_factory=asyncio.Lock)
    _workers: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def admitted(self) -> int:
        """Inputs of the requests that are being answered."""
        return self._admitted

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
            self._workers = [asyncio.create_task(self._work(run)) for run in self.runs]
        loop, now = asyncio.get_running_loop(), time.perf_counter()
        found = [_Waiting(pixels, now, loop.create_future()) for pixels in inputs]
        for one in found:
            self._shapes.setdefault(one.pixels.shape, deque()).append(one)
        self._count += len(found)
        self._arrived.set()
        return np.stack(await asyncio.gather(*(one.answer for one in found)))

    async def close(self) -> None:
        """Return once all that waits is answered."""
        self._closing = True
        self._arrived.set()
        await asyncio.gather(*self._workers)

    async def _work(self, run: Run) -> None:
        while True:
            async with self._collecting:
                while not self._count:
                    if self._closing:
                        return
                    self._arrived.clear()
                    await self._arrived.wait()
                taken = await self._collected()
            await self._answer(taken, run)

    async def _collected(self) -> list[_Waiting]:
        """The next batch: of the shape that has waited longest, once it is full or has waited long enough."""
        group = min(self._shapes.values(), key=lambda group: group[0].since)
        until = group[0].since + self.delay
        while len(group) < self.batch and not self._closing and (left := until - time.perf_counter()) > 0:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), left)
            except TimeoutError:
                break
        taken = [group.popleft() for _ in range(min(self.batch, len(group)))]
        self._count -= len(taken)
        if not group:
            del self._shapes[taken[0].pixels.shape]
        return taken

    async def _answer(self, taken: Sequence[_Waiting], run: Run) -> None:
        wanted = [one for one in taken if not one.answer.done()]  # a request that was given up needs no answer
        if not wanted:
            return
        begun = time.perf_counter()
        try:
            pixels = np.stack([one.pixels for one in wanted])
            answers = await asyncio.get_running_loop().run_in_executor(self.pool, run, pixels)
        except Exception as error:
            for one in wanted:
                if not one.answer.done():
                    one.answer.set_exception(error)
            return
        took = time.perf_counter() - begun
        self._seconds = took if not self._seconds else _FORGETTING * took + (1 - _FORGETTING) * self._seconds
        self.watch.batch(len(wanted), [begun - one.since for one in wanted], took)
        for one, row in zip(wanted, answers, strict=True):
            if not one.answer.done():
                one.answer.set_result(row)
