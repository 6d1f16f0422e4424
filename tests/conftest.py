"""What all tests share: one thread (the results are the same, the machine is shared) and a cache of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tests.small import Squares


def pytest_configure() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


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
