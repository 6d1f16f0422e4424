"""Threads that work ahead: in order, within bounds, and ended with the code that takes what they make."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from toolkit.api.errors import DataError
from toolkit.system.background import in_background, read_ahead


def test_what_is_made_in_the_background_comes_in_order_and_never_far_ahead(decoding: Callable[[], int]) -> None:
    made = [0]

    def make(stop: threading.Event) -> Iterator[int]:
        for number in range(50):
            made[0] += 1
            yield number

    found = in_background(make, room=3)
    for number in range(50):
        assert next(found) == number
        assert made[0] <= number + 1 + 3 + 1 + 1
    assert list(found) == []
    assert decoding() == 0


def test_leaving_the_background_stops_it(decoding: Callable[[], int]) -> None:
    seen: list[bool] = []

    def make(stop: threading.Event) -> Iterator[int]:
        try:
            while not stop.is_set():
                yield 1
        finally:
            seen.append(stop.is_set())

    found = in_background(make, room=2)
    next(found)
    found.close()
    assert seen == [True]
    assert decoding() == 0


def test_what_the_background_raises_is_raised_here(decoding: Callable[[], int]) -> None:
    def make(stop: threading.Event) -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    found = in_background(make, room=2)
    assert next(found) == 1
    with pytest.raises(ZeroDivisionError):
        next(found)
    assert decoding() == 0


def test_a_thread_that_waits_for_room_ends_at_once(decoding: Callable[[], int]) -> None:
    """It holds no generator up, however often one is left early."""
    full = threading.Event()

    def make(stop: threading.Event) -> Iterator[int]:
        yield from range(3)
        full.set()
        yield from range(100)

    for _ in range(20):
        found = in_background(make, room=2)
        assert next(found) == 0
        full.wait(20)
        found.close()
        full.clear()
    assert decoding() == 0


@pytest.mark.parametrize("room", [1, 7, 1000])
@pytest.mark.parametrize("threads", [1, 4])
def test_what_is_read_ahead_comes_in_order_with_its_errors(
    room: int, threads: int, decoding: Callable[[], int]
) -> None:
    def read(number: int, stop: threading.Event) -> list[int]:
        time.sleep(0.001 * (number % 3))
        if number % 5 == 4:
            raise DataError(f"{number} is broken")
        return [number] * (number % 4)

    reading = read_ahead(iter(range(40)), read, threads=threads, most=9, room=room, weight=len)
    found = [(item, str(one) if isinstance(one, DataError) else one) for item, one in reading]
    assert found == [(n, f"{n} is broken" if n % 5 == 4 else [n] * (n % 4)) for n in range(40)]
    assert decoding() == 0


def test_no_item_is_begun_while_others_fill_the_room(decoding: Callable[[], int]) -> None:
    begun: list[int] = []
    three = threading.Semaphore(0)

    def read(number: int, stop: threading.Event) -> int:
        begun.append(number)
        three.release()
        return 10

    reading = read_ahead(range(100), read, threads=1, most=50, room=30, weight=lambda weight: weight)
    assert next(reading) == (0, 10)
    for _ in range(4):
        assert three.acquire(timeout=20)
    assert begun == [0, 1, 2, 3]
    assert next(reading) == (1, 10)
    assert three.acquire(timeout=20)
    assert begun == [0, 1, 2, 3, 4]
    reading.close()
    assert begun == [0, 1, 2, 3, 4]
    assert decoding() == 0
