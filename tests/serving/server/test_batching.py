"""Batches of requests: who shares one, who waits, and who is refused."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from toolkit.api.errors import BundleError
from toolkit.serving.server.batching import Batcher
from toolkit.serving.server.refusals import Refused

LONG = 60.0
"""Seconds that no test waits."""


class Model:
    """Answers with the mean; notes its batches, and may wait until it is let go."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, ...]] = []
        self.waited: list[float] = []
        self.go = threading.Event()
        self.go.set()
        self.begun = threading.Event()

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.begun.set()
        assert self.go.wait(LONG)
        self.batches.append(pixels.shape)
        return pixels.reshape(len(pixels), -1).mean(1, keepdims=True, dtype=np.float32)

    def batch(self, size: int, waited: Sequence[float], took: float) -> None:
        assert size == len(waited)
        assert took >= 0
        self.waited += waited


def level(value: int, side: int = 2) -> NDArray[np.uint8]:
    return np.full((side, side, 3), value, np.uint8)


def answered(
    work: Callable[[Batcher], Coroutine[Any, Any, Any]],
    model: Model,
    batch: int = 4,
    delay: float = LONG,
    most: int = 8,
    threads: int = 1,
) -> Any:
    async def run() -> Any:
        with ThreadPoolExecutor(threads) as pool:
            return await work(Batcher([model], batch, delay, most, pool, model))

    return asyncio.run(run())


def test_a_full_batch_does_not_wait() -> None:
    model = Model()

    async def work(batcher: Batcher) -> list[float]:
        asked = [batcher.ask([level(value)]) for value in (1, 2)] + [batcher.ask([level(3), level(4)])]
        return [float(row[0]) for rows in await asyncio.gather(*asked) for row in rows]

    assert answered(work, model) == [1, 2, 3, 4]
    assert model.batches == [(4, 2, 2, 3)]
    assert len(model.waited) == 4


def test_what_is_alone_is_answered_after_the_delay() -> None:
    model = Model()
    answers = answered(lambda batcher: batcher.ask([level(7)]), model, delay=0.001)
    assert answers.tolist() == [[7]]


async def reached(condition: Callable[[], bool]) -> None:
    """Returns once it holds, while the loop goes on."""
    while not condition():
        await asyncio.sleep(0.001)


def test_a_full_batch_is_ready_while_another_is_computed_and_needs_no_loop_to_begin() -> None:
    model = Model()

    async def work(batcher: Batcher) -> int:
        model.go.clear()
        first = [asyncio.create_task(batcher.ask([level(value)])) for value in (1, 2)]
        await reached(model.begun.is_set)
        second = [asyncio.create_task(batcher.ask([level(value)])) for value in (3, 4)]
        await reached(lambda: batcher.batches == 2)
        model.go.set()
        for _ in range(int(LONG * 1000)):  # the loop stands still until both are computed
            if len(model.batches) == 2:
                break
            time.sleep(0.001)
        computed = len(model.batches)
        assert [float((await one)[0, 0]) for one in (*first, *second)] == [1, 2, 3, 4]
        return computed

    assert answered(work, model, batch=2, threads=2) == 2


def test_what_does_not_fill_a_batch_waits_for_others_while_nothing_is_free() -> None:
    model = Model()

    async def work(batcher: Batcher) -> None:
        model.go.clear()
        asked = [asyncio.create_task(batcher.ask([level(1)]))]
        await reached(model.begun.is_set)
        for value in (2, 3):
            asked.append(asyncio.create_task(batcher.ask([level(value)])))
            await asyncio.sleep(0.01)  # longer than the delay
        assert batcher.batches == 1
        model.go.set()
        assert [float((await one)[0, 0]) for one in asked] == [1, 2, 3]

    answered(work, model, delay=0, threads=2)
    assert [shape[0] for shape in model.batches] == [1, 2]


def test_a_large_request_is_several_batches() -> None:
    model = Model()
    answers = answered(lambda batcher: batcher.ask([level(value) for value in range(10)]), model, delay=0)
    assert answers[:, 0].tolist() == [*range(10)]
    assert [shape[0] for shape in model.batches] == [4, 4, 2]


def test_inputs_of_other_sizes_do_not_share_a_batch() -> None:
    model = Model()

    async def work(batcher: Batcher) -> Any:
        return await asyncio.gather(*(batcher.ask([level(value, side)]) for value, side in ((1, 2), (2, 3), (3, 2))))

    assert [float(rows[0, 0]) for rows in answered(work, model, delay=0.01)] == [1, 2, 3]
    assert sorted(model.batches) == [(1, 3, 3, 3), (2, 2, 2, 3)]


def test_one_that_fails_fails_for_its_batch_alone() -> None:
    model = Model()

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        if pixels.max() == 9:
            raise BundleError("no")
        return model(pixels)

    async def work(batcher: Batcher) -> Any:
        batcher.runs = [run]
        first = await asyncio.gather(batcher.ask([level(9)]), batcher.ask([level(1)]), return_exceptions=True)
        return first, await batcher.ask([level(3), level(5)])

    failed, answers = answered(work, model, batch=2)
    assert [type(error) for error in failed] == [BundleError, BundleError]
    assert answers[:, 0].tolist() == [3, 5]


def test_what_was_given_up_is_not_computed() -> None:
    model = Model()

    async def work(batcher: Batcher) -> Any:
        given_up = asyncio.create_task(batcher.ask([level(1)]))
        await asyncio.sleep(0)
        given_up.cancel()
        return await batcher.ask([level(2), level(3)])

    assert answered(work, model, batch=3)[:, 0].tolist() == [2, 3]
    assert model.batches == [(2, 2, 2, 3)]


def test_closing_answers_what_waits_at_once() -> None:
    model = Model()

    async def work(batcher: Batcher) -> Any:
        asked = asyncio.create_task(batcher.ask([level(5)]))
        await asyncio.sleep(0)
        await batcher.close()
        return [
            await asked,
            await batcher.ask([level(6)]),
        ]  # the second by one who had the model before it was replaced

    assert [rows.tolist() for rows in answered(work, model)] == [[[5]], [[6]]]


def test_too_many_are_refused_with_the_time_to_wait() -> None:
    async def work(batcher: Batcher) -> Any:
        says = "100 inputs are being answered; at most 8 may be"
        with batcher.admit(100), pytest.raises(Refused, match=says) as refused, batcher.admit(1):
            pass  # nobody else was here, so even 100 were taken
        with batcher.admit(8), pytest.raises(Refused), batcher.admit(1):
            pass
        with batcher.admit(7), batcher.admit(1):
            assert batcher.admitted == 8
        assert batcher.admitted == 0
        return refused.value

    refused = answered(work, Model())
    assert (refused.status, refused.headers) == (429, {"Retry-After": "1"})
