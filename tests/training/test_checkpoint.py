"""Checkpoints: whole or absent, and read without running anything from them."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path

import pytest
import torch

from toolkit.api import files
from toolkit.api.errors import CheckpointError, RunFailed
from toolkit.training.checkpoint import BestCheckpoint, LastCheckpoint, Origin

ORIGIN = Origin(
    recipe="seed = 0", digest="d", classes=["a", "b"], sample=False, protocol={"seed": 1}, notes=[], precision="fp32"
)


def last(epoch: int) -> LastCheckpoint:
    return LastCheckpoint(origin=ORIGIN, state={"epoch": epoch, "best_score": None}, skipped={"train": {3: "damaged"}})


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    last(1).save(tmp_path / "last.pt")
    assert LastCheckpoint.load(tmp_path / "last.pt") == last(1)
    best = BestCheckpoint(
        origin=ORIGIN, network={"weight": torch.arange(3)}, objective={}, epoch=2, valid={"loss": 1.5}
    )
    best.save(tmp_path / "best.pt")
    loaded = BestCheckpoint.load(tmp_path / "best.pt")
    assert loaded.network["weight"].tolist() == [0, 1, 2]
    assert (loaded.origin, loaded.epoch, loaded.valid) == (ORIGIN, 2, {"loss": 1.5})


def test_one_kind_of_checkpoint_is_not_taken_for_another(tmp_path: Path) -> None:
    last(1).save(tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"expected epoch, network, objective, origin, valid"):
        BestCheckpoint.load(tmp_path / "a.pt")


def test_a_checkpoint_from_before_this_format_is_refused(tmp_path: Path) -> None:
    torch.save({"format": 1, "digest": "d", "state": {}}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"not a checkpoint of this version \(format 2\)") as failure:
        LastCheckpoint.load(tmp_path / "a.pt")
    assert failure.value.next_step == "train anew with this version"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"text"])
def test_damaged_files_are_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        LastCheckpoint.load(tmp_path / "a.pt")


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (str(tmp_path / "ran"),)

    (tmp_path / "a.pt").write_bytes(pickle.dumps({"format": Trap()}))
    with pytest.raises(CheckpointError):
        LastCheckpoint.load(tmp_path / "a.pt")
    assert not (tmp_path / "ran").exists()


def test_a_missing_or_foreign_checkpoint_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        LastCheckpoint.load(tmp_path / "a.pt")
    torch.save({"epoch": 3}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="not a checkpoint of this version"):
        LastCheckpoint.load(tmp_path / "a.pt")


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    last(1).save(path)

    def full(self: Path, data: bytes) -> int:
        self.open("wb").close()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RunFailed, match="No space left on device; what was there before is untouched") as failure:
        last(2).save(path)
    monkeypatch.undo()
    assert failure.value.next_step is not None
    assert f"--resume {tmp_path}" in failure.value.next_step
    assert LastCheckpoint.load(path) == last(1)
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
