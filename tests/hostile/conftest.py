"""What the families of damaged input share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from unittest.mock import patch

import pytest

from tests.hostile.trials import Trial, trials


@pytest.fixture(scope="session")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """`trial(*words)` runs a command in a process of its own, and returns how it ended."""
    with patch.dict(os.environ, TOOLKIT_CACHE=str(tmp_path_factory.mktemp("cache"))), trials() as run:
        yield run
