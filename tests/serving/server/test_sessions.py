"""Several sessions of one model: as many batches are computed at a time."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests import model_server, toy_bundle
from tests.serving.server.test_batching import LONG, Model, level
from tests.serving.server.test_uploads import png
from toolkit.api.errors import BundleError
from toolkit.serving.bundle import Bundle, session
from toolkit.serving.server import command, models
from toolkit.serving.server.batching import Batcher
from toolkit.serving.server.models import Opening
from toolkit.serving.server.settings import Settings


def batcher(runs: list[Model], pool: ThreadPoolExecutor) -> Batcher:
    return Batcher(runs, 1, 0.0, 64, pool, runs[0])  # type: ignore[arg-type]


def test_batches_are_computed_at_the_same_time_and_each_gets_its_own_answer() -> None:
    """Neither batch ends before both have begun."""
    both = threading.Barrier(2, timeout=LONG)

    class Meeting(Model):
        def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            both.wait()
            return super().__call__(pixels)

    async def run() -> list[float]:
        with ThreadPoolExecutor(2) as pool:
            batches = batcher([Meeting(), Meeting()], pool)
            found = await asyncio.gather(*(batches.ask([level(value)]) for value in range(10)))
            await batches.close()
            return [float(one[0, 0]) for one in found]

    assert asyncio.run(run()) == [*map(float, range(10))]


def test_one_session_that_fails_leaves_the_others_alone() -> None:
    class Broken(Model):
        def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            raise BundleError("it cannot")

    async def run() -> list[object]:
        with ThreadPoolExecutor(2) as pool:
            batches = batcher([Model(), Broken()], pool)
            found = await asyncio.gather(*(batches.ask([level(7)]) for _ in range(20)), return_exceptions=True)
            await batches.close()
            return [float(one[0, 0]) if isinstance(one, np.ndarray) else str(one) for one in found]

    assert set(asyncio.run(run())) == {7.0, "it cannot"}


def test_what_is_asked_after_the_end_is_answered_too() -> None:
    """A request may hold a model that was replaced."""

    async def run() -> float:
        with ThreadPoolExecutor(2) as pool:
            batches = batcher([Model(), Model()], pool)
            await batches.ask([level(1)])
            await batches.close()
            return float((await batches.ask([level(2)]))[0, 0])

    assert asyncio.run(run()) == 2


def test_sessions_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    options = session.session_options

    def seen(*arguments: object) -> object:
        made = options(*arguments)  # type: ignore[arg-type]
        given.append(made.intra_op_num_threads)
        return made

    monkeypatch.setattr(session, "session_options", seen)
    monkeypatch.setattr(models, "physical_cores", lambda: 8)
    bundle = toy_bundle.write(tmp_path / "toy")
    found = Opening("cpu", sessions=3).load(bundle)
    assert given == [2, 2, 2]
    assert len({id(one.session) for one in found}) == 3
    given.clear()
    monkeypatch.setattr(models, "physical_cores", lambda: 2)
    Opening("cpu", sessions=3).load(bundle)
    assert given == [1, 1, 1]
    given.clear()
    Bundle.load(bundle, device="cpu", threads=5)
    assert given == [5]


def test_a_server_with_several_sessions_says_so_and_answers(tmp_path: Path) -> None:
    bundle = toy_bundle.write(tmp_path / "toy")
    with model_server.running([bundle], Settings(port=0, sessions=2)) as server:
        assert command.greeting(server)[0] == "toy: fp32 on cpu (asked for), batches of up to 16, 2 at a time"
        answer = httpx.post(f"{server.address}/v1/predict", files={"file": png(250)}).json()["answers"][0]
        assert answer["prediction"] == ["bright"]
