"""From sources to answers: decoded ahead by threads while the session runs, answered in full batches, told in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from toolkit.errors import DataError
from toolkit.predict.inputs import Source

if TYPE_CHECKING:
    from numpy.typing import NDArray

Square: TypeAlias = "NDArray[np.uint8]"
"""One input of the model, uint8 `[S, S, 3]`."""
Read: TypeAlias = Callable[[Source, threading.Event], Sequence[Square]]
"""The squares of one source, at least one; DataError where it cannot be read. May end early once the event is set."""
Predict: TypeAlias = Callable[[Sequence[Square]], "NDArray[np.float32]"]
"""The probabilities, `[N, C]`, of N squares."""

AHEAD = 2
"""Batches decoded ahead: one that the session takes next, one under way."""


@dataclass(frozen=True)
class Answer:
    """What became of a source: the probabilities of its classes, or why it could not be read."""

    source: Source
    probabilities: NDArray[np.float32] | None
    """`[C]`; of a video the mean over its frames."""
    problem: str = ""


def answer_all(
    sources: Iterable[Source],
    read: Read,
    predict: Predict,
    *,
    batch: int,
    threads: int,
    squares: Callable[[Source], int] = lambda _: 1,
) -> Generator[Answer, None, None]:
    """One answer a source, in their order. All calls of `predict` but the last get `batch` squares.

    squares: how many a source has at most. What is decoded and not answered yet is bounded by `AHEAD` batches, or by
    one source a thread where that is more.
    """
    waiting: deque[_Open] = deque()
    ready: list[Square] = []
    with closing(read_ahead(sources, read, threads=threads, room=AHEAD * batch, squares=squares)) as decoded:
        for source, found in decoded:
            if isinstance(found, DataError):
                waiting.append(_Open(source, 0, found.message))
            else:
                waiting.append(_Open(source, len(found)))
                ready += found
            while len(ready) >= batch:
                _share_out(predict(ready[:batch]), waiting)
                del ready[:batch]
            yield from _finished(waiting)
    if ready:
        _share_out(predict(ready), waiting)
    yield from _finished(waiting)


def read_ahead(
    sources: Iterable[Source], read: Read, *, threads: int, room: int, squares: Callable[[Source], int]
) -> Generator[tuple[Source, Sequence[Square] | DataError], None, None]:
    """Each source with its squares or why there are none, in order; `room` squares are read or held at a time, and at
    least one source a thread. Closing it ends the threads."""
    pending: deque[tuple[Source, Future[Sequence[Square]]]] = deque()
    held = 0
    stop = threading.Event()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        for source in sources:
            pending.append((source, pool.submit(read, source, stop)))
            held += squares(source)
            while held >= room and len(pending) >= threads:
                held -= squares(pending[0][0])
                yield _taken(*pending.popleft())
        while pending:
            yield _taken(*pending.popleft())
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


@dataclass
class _Open:
    """A source some of whose squares are not answered yet."""

    source: Source
    missing: int
    problem: str = ""
    count: int = 0
    total: NDArray[np.float64] | float = 0.0

    def closed(self) -> Answer:
        if self.problem:
            return Answer(self.source, None, self.problem)
        return Answer(self.source, np.asarray(self.total / self.count, np.float32))


def _taken(source: Source, future: Future[Sequence[Square]]) -> tuple[Source, Sequence[Square] | DataError]:
    try:
        return source, future.result()
    except DataError as error:
        return source, error


def _share_out(probabilities: NDArray[np.float32], waiting: Iterable[_Open]) -> None:
    """Give each row to the first source that misses one."""
    rows = iter(probabilities.astype(np.float64))
    for item in waiting:
        while item.missing:
            row = next(rows, None)
            if row is None:
                return
            item.total = item.total + row
            item.count += 1
            item.missing -= 1


def _finished(waiting: deque[_Open]) -> Iterator[Answer]:
    while waiting and not waiting[0].missing:
        yield waiting.popleft().closed()
