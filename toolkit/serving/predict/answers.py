"""From sources to answers: decoded ahead by threads while the session runs, answered in full batches, told in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Full, Queue
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np

from toolkit.api.errors import DataError
from toolkit.serving.predict.inputs import Source

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")
View: TypeAlias = "NDArray[np.uint8]"
"""One input of the model, uint8 `[S, S, 3]`, or of a model of clips `[T, S, S, 3]`."""
Read: TypeAlias = Callable[[Source, threading.Event], Sequence[View]]
"""The views of one source, at least one; DataError where it cannot be read. May end early once the event is set."""
Decoded: TypeAlias = tuple[Source, "Sequence[View] | DataError"]
"""A source with its views, or why there are none."""
Predict: TypeAlias = Callable[[Sequence[View]], "NDArray[np.float32]"]
"""The probabilities, `[N, C]`, of N views."""
Average: TypeAlias = Callable[["NDArray[np.float32]"], "NDArray[np.float32]"]
"""From the probabilities `[V, C]` of the views of one source to the answer `[C]`."""

AHEAD = 2
"""Batches decoded ahead: one that the session takes next, one under way."""


@dataclass(frozen=True)
class Answer:
    """What became of a source: the probabilities of its classes, or why it could not be read."""

    source: Source
    probabilities: NDArray[np.float32] | None
    """`[C]`; where there are several views their average."""
    problem: str = ""


def answer_all(
    decoded: Iterable[Decoded], predict: Predict, average: Average, *, batch: int
) -> Generator[Answer, None, None]:
    """One answer for each that is decoded, in their order. All calls of `predict` but the last get `batch` views."""
    waiting: deque[_Open] = deque()
    ready: list[View] = []
    for source, found in decoded:
        if isinstance(found, DataError):
            waiting.append(_Open(source, 0, found.message))
        else:
            waiting.append(_Open(source, len(found)))
            ready += found
        while len(ready) >= batch:
            _share_out(predict(ready[:batch]), waiting)
            del ready[:batch]
        yield from _finished(waiting, average)
    if ready:
        _share_out(predict(ready), waiting)
    yield from _finished(waiting, average)


def read_ahead(
    sources: Iterable[Source], read: Read, *, threads: int, batch: int, views: Callable[[Source], int] = lambda _: 1
) -> Generator[Decoded, None, None]:
    """Each source with its views or why there are none, in order, read by `threads` at a time. Closing it ends them.

    views: how many a source has at most. What is read or held at a time is bounded by `AHEAD` batches, or by one source
    a thread where that is more.
    """
    pending: deque[tuple[Source, Future[Sequence[View]]]] = deque()
    held, room = 0, AHEAD * batch
    stop = threading.Event()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        for source in sources:
            pending.append((source, pool.submit(read, source, stop)))
            held += views(source)
            while held >= room and len(pending) >= threads:
                held -= views(pending[0][0])
                yield _taken(*pending.popleft())
        while pending:
            yield _taken(*pending.popleft())
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def in_background(make: Callable[[threading.Event], Iterator[T]], *, room: int) -> Generator[T, None, None]:
    """The items of `make(stop)`, made by a thread that stays at most `room` of them ahead. What it raises is raised
    here. Closing it sets `stop` and ends the thread."""
    made: Queue[tuple[T] | BaseException | None] = Queue(room)
    stop = threading.Event()
    thread = threading.Thread(target=_make_into, args=(made, make, stop), name="decode", daemon=True)
    thread.start()
    try:
        while (item := made.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item[0]
    finally:
        stop.set()
        thread.join()


def _make_into(
    made: Queue[tuple[T] | BaseException | None], make: Callable[[threading.Event], Iterator[T]], stop: threading.Event
) -> None:
    try:
        for item in make(stop):
            _put(made, (item,), stop)
            if stop.is_set():
                return
    except BaseException as error:
        _put(made, error, stop)
    else:
        _put(made, None, stop)


def _put(queue: Queue[T], item: T, stop: threading.Event) -> None:
    """Put `item` as soon as there is room, unless `stop` is set before."""
    while not stop.is_set():
        with suppress(Full):
            queue.put(item, timeout=_STOP_SECONDS)
            return


_STOP_SECONDS = 0.1
"""How long a thread that waits for room may take to notice that it is not wanted any more."""


@dataclass
class _Open:
    """A source some of whose views are not answered yet."""

    source: Source
    missing: int
    problem: str = ""
    rows: list[NDArray[np.float32]] = field(default_factory=list)

    def closed(self, average: Average) -> Answer:
        if self.problem:
            return Answer(self.source, None, self.problem)
        return Answer(self.source, average(np.stack(self.rows)))


def _taken(source: Source, future: Future[Sequence[View]]) -> Decoded:
    try:
        return source, future.result()
    except DataError as error:
        return source, error


def _share_out(probabilities: NDArray[np.float32], waiting: Iterable[_Open]) -> None:
    """Give each row to the first source that misses one."""
    rows = iter(probabilities)
    for item in waiting:
        while item.missing:
            row = next(rows, None)
            if row is None:
                return
            item.rows.append(row)
            item.missing -= 1


def _finished(waiting: deque[_Open], average: Average) -> Iterator[Answer]:
    while waiting and not waiting[0].missing:
        yield waiting.popleft().closed(average)
