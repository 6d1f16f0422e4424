"""The command data index, and what goes wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shard_files import picture, write_parquet, write_tars, write_video_tars
from toolkit.api.errors import EXIT_DATA, EXIT_DONE, EXIT_USAGE
from toolkit.cli.main import main


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))


def test_an_index_is_written_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, file = write_tars(tmp_path / "data", 2, 5), tmp_path / "a.index"
    command = ["data", "index", str(root), "--output", str(file)]
    assert main(command) == EXIT_DONE
    shown = capsys.readouterr()
    assert "10 images in 2 blocks of 2 shards" in shown.out
    assert "cls: 2 values" in shown.out
    assert f"index: {file}" in shown.out
    assert "indexed part-001.tar" in shown.err
    before = file.stat().st_mtime_ns
    assert main(command) == EXIT_DONE
    assert "indexed" not in capsys.readouterr().err
    assert file.stat().st_mtime_ns == before
    assert main([*command, "--force"]) == EXIT_DONE
    assert file.stat().st_mtime_ns > before


def test_columns_and_the_content_may_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_parquet(tmp_path / "a.parquet", [picture(0), picture(1)], [0, 1], patient=["a", "b"])
    assert main(["data", "index", str(path), "--column", "patient", "--content", "image"]) == EXIT_DONE
    assert "patient: 2 values" in capsys.readouterr().out


def test_videos_are_counted_as_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "index", str(write_video_tars(tmp_path / "data", 1, 2))]) == EXIT_DONE
    assert "2 videos in 1 block of 1 shard" in capsys.readouterr().out


def test_what_cannot_be_indexed_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "index", str(tmp_path / "none")]) == EXIT_DATA
    assert f"error: {tmp_path / 'none'}: no shards found" in capsys.readouterr().err


def test_an_unknown_action_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "idnex", "shards"]) == EXIT_USAGE
    assert 'no such command "idnex"; did you mean "index"?' in capsys.readouterr().err
