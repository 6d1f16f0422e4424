"""Work that threads do before its results are needed, in order and within bounds."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from toolkit.api.errors import DataError

K = TypeVar("K")
T = TypeVar("T")


def in_background(
    make: Callable[[threading.Event], Iterator[T]], *, room: int, name: str = "decode"
) -> Generator[T, None, None]:
    """The items of `make(stop)`, made by a thread of this name that stays at most `room` of them ahead. What it raises
    is raised here. Closing the generator sets `stop` and ends the thread before its next item."""
    stop = threading.Event()
    items = ((item,) for item in make(stop))
    pool = ThreadPoolExecutor(1, thread_name_prefix=name)
    ahead = deque(pool.submit(next, items, None) for _ in range(room + 1))  # one of them is being made
    try:
        while (item := ahead.popleft().result()) is not None:
            ahead.append(pool.submit(next, items, None))
            yield item[0]
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def read_ahead(
    items: Iterable[K],
    read: Callable[[K, threading.Event], T],
    *,
    threads: int,
    most: int,
    room: int,
    weight: Callable[[T], int],
) -> Generator[tuple[K, T | DataError], None, None]:
    """Each item with what `read(item, stop)` makes of it, or its DataError, in order, by `threads` at a time. Closing
    the generator sets `stop` and ends the threads.

    At most `most` items are begun, and none while those that were read and not taken weigh `room` or more: but the one
    whose turn is next always is, since nothing behind it can leave before.
    """
    pending: deque[tuple[K, Future[T | DataError]]] = deque()
    changed, stop = threading.Condition(), threading.Event()
    held = turn = 0

    def work(place: int, item: K) -> T | DataError:
        nonlocal held
        with changed:
            changed.wait_for(lambda: held < room or place <= turn or stop.is_set())
        if stop.is_set():
            raise CancelledError
        try:
            found = read(item, stop)
        except DataError as error:
            return error
        with changed:
            held += weight(found)
        return found

    numbered = enumerate(items)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        pending.extend((item, pool.submit(work, place, item)) for place, item in islice(numbered, most))
        while pending:
            item, future = pending.popleft()
            found = future.result()
            with changed:
                turn += 1
                held -= 0 if isinstance(found, DataError) else weight(found)
                changed.notify_all()
            pending.extend((item, pool.submit(work, place, item)) for place, item in islice(numbered, 1))
            yield item, found
    finally:
        stop.set()
        with changed:
            changed.notify_all()
        pool.shutdown(cancel_futures=True)
