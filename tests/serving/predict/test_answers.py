"""Decoding ahead and answering in batches: nothing is lost, doubled, reordered or piled up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.api.errors import DataError
from toolkit.serving.predict.answers import AHEAD, Answer, ModelInput, answer_all, read_sources
from toolkit.serving.predict.inputs import Source


def sources(count: int) -> list[Source]:
    return [Source(str(number), "image", str(number)) for number in range(count)]


def square(value: float) -> ModelInput:
    return np.full((2, 2, 3), value, np.uint8)


def read(source: Source, stop: threading.Event) -> list[ModelInput]:
    return [square(int(source.place) % 251)]


def predict(squares: Sequence[ModelInput]) -> np.ndarray:
    """The level of each square and its complement."""
    levels = np.array([item[0, 0, 0] for item in squares], np.float32) / 255
    return np.stack([levels, 1 - levels], axis=1)


def mean(probabilities: np.ndarray) -> np.ndarray:
    return probabilities.mean(0)


def answers(
    items: Sequence[Source],
    read: Callable[[Source, threading.Event], Sequence[ModelInput]],
    predict: Callable[[Sequence[ModelInput]], np.ndarray],
    *,
    batch: int,
    threads: int,
) -> Iterator[Answer]:
    """As `predict` puts the two halves together."""
    with closing(read_sources(items, read, threads=threads, batch=batch)) as decoded:
        yield from answer_all(decoded, predict, mean, batch=batch)


@settings(max_examples=60)
@given(
    counts=st.lists(st.integers(0, 5), max_size=40),
    batch=st.integers(1, 9),
    threads=st.integers(1, 4),
    pauses=st.randoms(use_true_random=False),
)
def test_each_source_is_answered_once_in_order_by_the_mean_of_its_squares(counts, batch, threads, pauses) -> None:
    """`counts` are the squares of each source; one without any cannot be read."""
    delays = [pauses.choice([0, 0, 0.001]) for _ in counts]
    levels = [[(7 * place + 31 * number) % 251 for place in range(count)] for number, count in enumerate(counts)]
    calls: list[int] = []

    def read_some(source: Source, stop: threading.Event) -> list[ModelInput]:
        number = int(source.place)
        time.sleep(delays[number])
        if not levels[number]:
            raise DataError(f"{source.name}: broken")
        return [square(level) for level in levels[number]]

    def counted(squares: Sequence[ModelInput]) -> np.ndarray:
        calls.append(len(squares))
        return predict(squares)

    found = list(answers(sources(len(counts)), read_some, counted, batch=batch, threads=threads))
    assert [answer.source for answer in found] == sources(len(counts))
    for answer, own in zip(found, levels, strict=True):
        if own:
            assert answer.probabilities is not None
            assert answer.probabilities.dtype == np.float32
            assert answer.probabilities == pytest.approx([np.mean(own) / 255, 1 - np.mean(own) / 255], abs=1e-6)
        else:
            assert answer == Answer(answer.source, None, f"{answer.source.name}: broken")
    assert sum(calls) == sum(counts)
    assert all(size == batch for size in calls[:-1])


def test_an_answer_does_not_wait_for_batches_after_its_own() -> None:
    read_so_far: list[str] = []

    def noted(source: Source, stop: threading.Event) -> list[ModelInput]:
        read_so_far.append(source.name)
        return read(source, stop)

    found = answers(sources(500), noted, predict, batch=4, threads=2)
    assert next(found).source.name == "0"
    assert len(read_so_far) <= (AHEAD + 1) * 4
    found.close()


@pytest.mark.parametrize("count", [200, 1800])
def test_what_is_held_does_not_grow_with_the_number_of_sources(count: int) -> None:
    batch, lock, alive, most = 8, threading.Lock(), [0], [0]

    class Counted(np.ndarray):
        def __del__(self) -> None:
            with lock:
                alive[0] -= 1

    def counted(source: Source, stop: threading.Event) -> list[ModelInput]:
        with lock:
            alive[0] += 1
            most[0] = max(most[0], alive[0])
        return [np.zeros((2, 2, 3), np.uint8).view(Counted)]

    def constant(squares: Sequence[ModelInput]) -> np.ndarray:
        return np.ones((len(squares), 2), np.float32)

    assert sum(1 for _ in answers(sources(count), counted, constant, batch=batch, threads=2)) == count
    assert batch <= most[0] <= (AHEAD + 1) * batch + 2
    assert alive[0] == 0


def test_sources_of_many_squares_are_read_by_every_thread_and_no_more() -> None:
    together = threading.Barrier(3, timeout=20)
    begun = [0]

    def wide(source: Source, stop: threading.Event) -> list[ModelInput]:
        begun[0] += 1
        if int(source.place) < 3:
            together.wait()
        return [square(1)] * 100

    found = answers(sources(50), wide, predict, batch=4, threads=3)
    next(found)
    assert begun[0] <= 4
    found.close()


def test_leaving_early_stops_reading_and_ends_the_threads(decoding: Callable[[], int]) -> None:
    stopped: list[bool] = []

    def slow(source: Source, stop: threading.Event) -> list[ModelInput]:
        if int(source.place) > 8:
            stopped.append(stop.wait(30))
        return [square(1)]

    found = answers(sources(100), slow, predict, batch=4, threads=2)
    next(found)
    found.close()
    assert all(stopped)
    assert len(stopped) <= 2
    assert decoding() == 0


def test_what_the_session_raises_ends_it(decoding: Callable[[], int]) -> None:
    def fails(squares: Sequence[ModelInput]) -> np.ndarray:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        list(answers(sources(100), read, fails, batch=4, threads=2))
    assert decoding() == 0


def test_what_is_unforeseen_in_a_reader_is_not_passed_over(decoding: Callable[[], int]) -> None:
    def fails(source: Source, stop: threading.Event) -> list[ModelInput]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(answers(sources(3), fails, predict, batch=4, threads=2))
    assert decoding() == 0
