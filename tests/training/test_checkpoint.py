"""Checkpoints: whole or absent, and read without running anything from them."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path

import pytest
import torch

from toolkit.api import files
from toolkit.api.errors import CheckpointError, RunFailed
from toolkit.training import checkpoint


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a.pt", {"weights": torch.arange(3), "names": ["a", None, 1.5]})
    state = checkpoint.load(tmp_path / "a.pt")
    assert state["weights"].tolist() == [0, 1, 2]
    assert state["names"] == ["a", None, 1.5]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"text"])
def test_damaged_files_are_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        checkpoint.load(tmp_path / "a.pt")


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (str(tmp_path / "ran"),)

    (tmp_path / "a.pt").write_bytes(pickle.dumps({"format": Trap()}))
    with pytest.raises(CheckpointError):
        checkpoint.load(tmp_path / "a.pt")
    assert not (tmp_path / "ran").exists()


def test_a_missing_or_foreign_checkpoint_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        checkpoint.load(tmp_path / "a.pt")
    torch.save({"epoch": 3}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="not a checkpoint of this version"):
        checkpoint.load(tmp_path / "a.pt")


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"epoch": 1})

    def full(self: Path, data: bytes) -> int:
        self.open("wb").close()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RunFailed, match="No space left on device; what was there before is untouched") as failure:
        checkpoint.save(path, {"epoch": 2})
    monkeypatch.undo()
    assert failure.value.next_step is not None
    assert f"--resume {tmp_path}" in failure.value.next_step
    assert checkpoint.load(path)["epoch"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_replaced_file_has_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    files.write_atomically(tmp_path / "folder" / "a", b"x")
    assert (tmp_path / "folder" / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_cache_directory_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path))
    assert files.cache_directory() == tmp_path
    monkeypatch.delenv("TOOLKIT_CACHE")
    assert files.cache_directory().name == "toolkit"
