"""What all tests share: one thread, also in the processes they start (the results are the same, and threads of several
processes that wait for each other on the same cores take many times as long), and a cache of their own."""

from __future__ import annotations

import functools
import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tests.blank import blank
from tests.small import Squares
from tests.traced import once
from toolkit.export import graph
from toolkit.runs.report import figures


def pytest_configure() -> None:
    settings.register_profile("untimed", deadline=None)
    settings.load_profile("untimed")
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    gc.set_threshold(50_000, 20, 20)  # by default it looks for cycles for an eighth of the time of all


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("TOOLKIT_LONG"):
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="takes long: runs with TOOLKIT_LONG=1"))


def pytest_collection_finish() -> None:
    """The garbage collector need not look at libraries and tests again and again, a tenth of the time of all."""
    gc.collect()
    gc.freeze()


ONCE = {
    "torch.onnx._internal.exporter._registration": ("ONNXRegistry.from_torchlib", None),
    "toolkit_cifar.dataset": ("draw_objects", 8),
    "toolkit_har.sample": ("clip", 400),
}
"""Functions that give the same whenever they are called, and take long: the operators that torch's exporter gathers for
each model again, and pictures of the samples. How many answers are kept of each."""


def pytest_runtest_setup() -> None:
    """Where a later torch has no such function, tests are slower."""
    for module, (path, size) in ONCE.items():
        *owners, name = path.split(".")
        owner = functools.reduce(lambda found, one: getattr(found, one, None), owners, sys.modules.get(module))
        slow = getattr(owner, name, None)
        if slow is not None and not hasattr(slow, "cache_info"):
            kept = functools.lru_cache(size)(slow)
            setattr(owner, name, staticmethod(kept) if isinstance(owner, type) else kept)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def _imports() -> tuple[int, str]:
    """Differs once something was imported: Python keeps modules in the order in which they came."""
    return len(sys.modules), next(reversed(sys.modules))


@functools.lru_cache(maxsize=1)
def _names(_count: int, _last: str) -> frozenset[str]:
    """Of all modules. There are thousands: most tests import none, and take those of the test before."""
    return frozenset(sys.modules)


@pytest.fixture(autouse=True)
def _forgotten_plugins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A plugin that a test installs for itself is not found imported by the next, which may have one of its name."""
    state = _imports()
    before = _names(*state)
    yield
    if _imports() == state:
        return
    made_here = str(tmp_path_factory.getbasetemp())
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(made_here):
            del sys.modules[name]


@pytest.fixture(scope="session", autouse=True)
def _unsynced() -> Iterator[None]:
    """Files are not forced onto the disk: what that is for is a loss of power, and a run waits for it 100 times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _traced_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "_answering", once(graph._answering))
        yield


_PAINTED = figures._png


@pytest.fixture(scope="session", autouse=True)
def _blank_figures() -> Iterator[None]:
    """Figures are not painted, which takes longer than all else of a small run, but where something looks at them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "_png", blank)
        yield


@contextmanager
def painted() -> Iterator[None]:
    """Paints the figures of what is made inside."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "_png", _PAINTED)
        yield


@pytest.fixture(autouse=True)
def _painted_figures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Paints them where a test's mark `draws` says that it looks at them."""
    with painted() if request.node.get_closest_marker("draws") else nullcontext():
        yield


@pytest.fixture
def seeded() -> Iterator[None]:
    """torch's global generator begins at one seed; afterwards it is where it was."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks whose weights are what memory holds: drawing tens of millions takes longer than all else of a test that
    looks at names and shapes, or that loads the weights."""
    for name in ("kaiming_normal_", "kaiming_uniform_", "normal_", "trunc_normal_", "uniform_"):
        monkeypatch.setattr(torch.nn.init, name, lambda tensor, *_, **__: tensor)


@pytest.fixture
def squares() -> Squares:
    return Squares(24)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; tests that need it carry the mark `real`."""
    named = os.environ.get("TOOLKIT_DATA")
    if not named or not Path(named).is_dir():
        pytest.skip("the real data is not here: TOOLKIT_DATA names no folder")
    return Path(named).resolve()


@pytest.fixture
def decoding() -> Callable[[], int]:
    """Counts the threads for decoding that were started since the test began: pools of earlier tests may not have been
    collected yet."""
    before = set(threading.enumerate())
    return lambda: sum(thread.name.startswith("decode") for thread in set(threading.enumerate()) - before)
