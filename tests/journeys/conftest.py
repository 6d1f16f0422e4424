"""Each journey begins in an empty folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.journeys.user import User


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> User:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr("toolkit.cli.init.start.has_gpu", lambda: False)
    return User(capsys)
