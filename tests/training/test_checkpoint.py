"""Checkpoints: whole or absent, and read without running anything from them."""

from __future__ import annotations

import errno
import io
import pickle
import random
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests import small
from toolkit.api import files
from toolkit.api.errors import CheckpointError, RunFailed
from toolkit.data.damage import Damage
from toolkit.data.store.corrupt import Corrupt, Met, Skipped
from toolkit.system.checkpoints import FORMAT, seal
from toolkit.training.checkpoint import BestCheckpoint, Checkpoint, LastCheckpoint, Origin
from toolkit.training.state import SavedState, State

MET: Met = ({3: "damaged"}, {1: (2, 12)})
RECIPE = "[train]\nepochs = 3"
ORIGIN = Origin(
    recipe=RECIPE, digest="d", classes=["a", "b"], sample=False, protocol={"seed": 1}, notes=[], precision="fp32"
)


def tiny_state() -> State:
    torch.manual_seed(0)
    return small.state(small.setup(small.Squares(4), small.Squares(2)), network=nn.Linear(2, 1))


def last(epoch: int) -> LastCheckpoint:
    state = tiny_state().state_dict()
    state["epoch"] = epoch
    return LastCheckpoint(origin=ORIGIN, state=state, met={"train": MET})


def best() -> BestCheckpoint:
    network = {"weight": torch.arange(3.0), "steps": torch.tensor(4)}
    return BestCheckpoint(origin=ORIGIN, network=network, objective={}, epoch=2, valid={"loss": 1.5})


def contents(checkpoint: Checkpoint) -> dict[str, Any]:
    return {"format": FORMAT, **vars(checkpoint), "origin": vars(checkpoint.origin)}


def write(content: object, path: Path) -> None:
    """As another program would that knows of the checksum."""
    archive = io.BytesIO()
    torch.save(content, archive)
    seal(archive)
    path.write_bytes(archive.getvalue())


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    last(1).save(tmp_path / "last.pt")
    read = LastCheckpoint.load(tmp_path / "last.pt")
    assert (read.origin, read.state["epoch"], read.met) == (ORIGIN, 1, {"train": MET})
    best().save(tmp_path / "best.pt")
    loaded = BestCheckpoint.load(tmp_path / "best.pt")
    assert loaded.network["weight"].tolist() == [0, 1, 2]
    assert (loaded.origin, loaded.epoch, loaded.valid) == (ORIGIN, 2, {"loss": 1.5})


def test_what_reading_has_met_is_known_after_a_resume(tmp_path: Path) -> None:
    skipped = Skipped(Corrupt(), "abcd")
    last(1).restore(tiny_state(), {"train": skipped}, tmp_path / "last.pt")
    assert (skipped.reasons, skipped.damaged) == ({3: "damaged"}, {1: Damage(2, 12)})


@pytest.mark.parametrize("known", [{"train": Skipped(Corrupt(), "abc")}, {"test": Skipped(Corrupt(), "abcd")}])
def test_items_that_the_data_lacks_do_not_fit(known: dict[str, Skipped], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="its state does not fit the run"):
        last(1).restore(tiny_state(), known, tmp_path / "last.pt")


def test_one_kind_of_checkpoint_is_not_taken_for_another(tmp_path: Path) -> None:
    last(1).save(tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"expected epoch, network, objective, origin, valid"):
        BestCheckpoint.load(tmp_path / "a.pt")


def test_a_checkpoint_from_before_this_format_is_refused(tmp_path: Path) -> None:
    torch.save({**contents(last(1)), "format": 2}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"not a checkpoint of this version \(format 3\)") as failure:
        LastCheckpoint.load(tmp_path / "a.pt")
    assert failure.value.next_step == "train again with this version"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"text"])
def test_damaged_files_are_reported(tmp_path: Path, content: bytes) -> None:
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


def test_a_missing_or_foreign_checkpoint_is_reported(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="checkpoint not found"):
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
    assert LastCheckpoint.load(path).state["epoch"] == 1
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


def test_other_programs_read_a_checkpoint(tmp_path: Path) -> None:
    best().save(tmp_path / "best.pt")
    assert torch.load(tmp_path / "best.pt", weights_only=True)["epoch"] == 2
    with zipfile.ZipFile(tmp_path / "best.pt") as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"toolkit-sha256:")


def test_every_flipped_bit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    best().save(path)
    content = path.read_bytes()
    draw = random.Random(0)
    ends = [0, 8 * len(content) - 1]
    for bit in [*ends, *(draw.randrange(8 * len(content)) for _ in range(118))]:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"damaged checkpoint|not a readable checkpoint"):
            BestCheckpoint.load(path)


@pytest.mark.parametrize("length", [0, 1, 21, 60, -1, -80, -500])
def test_a_file_cut_short_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "best.pt"
    best().save(path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match=r"damaged checkpoint|not a readable checkpoint"):
        BestCheckpoint.load(path)


def test_a_checkpoint_without_a_checksum_is_refused(tmp_path: Path) -> None:
    torch.save(contents(best()), tmp_path / "best.pt")
    with pytest.raises(CheckpointError, match="damaged checkpoint: it has no checksum") as failure:
        BestCheckpoint.load(tmp_path / "best.pt")
    assert failure.value.next_step == "name another run, or train again"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    replace(best(), network={"a": torch.ones(2), "b": torch.tensor([1, value])}).save(tmp_path / "best.pt")
    with pytest.raises(CheckpointError, match=r"weights that are not finite \(NaN or infinite\): b$"):
        BestCheckpoint.load(tmp_path / "best.pt")


@pytest.mark.parametrize(
    ("value", "reason"),
    [(torch.ones(2, device="meta"), "meta: without values"), (torch.eye(2).to_sparse(), "sparse")],
)
def test_tensors_without_plain_values_are_refused(tmp_path: Path, value: torch.Tensor, reason: str) -> None:
    replace(best(), network={"a": value}).save(tmp_path / "best.pt")
    with pytest.raises(CheckpointError, match=rf"expected plain tensors, got a \({reason}\)$"):
        BestCheckpoint.load(tmp_path / "best.pt")


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"network": {"a": [1, 2]}}, "network"),
        ({"network": [torch.ones(1)]}, "network"),
        ({"network": {1: torch.ones(1)}}, "network"),
        ({"objective": None}, "objective"),
        ({"epoch": "2"}, "epoch"),
        ({"epoch": True}, "epoch"),
        ({"valid": {"loss": "low"}, "epoch": 1.5}, "epoch, valid"),
        ({"origin": {**vars(ORIGIN), "classes": "ab"}}, "classes"),
        ({"origin": {**vars(ORIGIN), "precision": "fp4"}}, "precision"),
        ({"origin": {**vars(ORIGIN), "notes": [1]}}, "notes"),
        ({"origin": {**vars(ORIGIN), "recipe": "no recipe"}}, "recipe"),
        ({"origin": {**vars(ORIGIN), "recipe": "train = 1"}}, "recipe"),
    ],
)
def test_values_of_other_types_are_named(tmp_path: Path, changed: dict[str, Any], named: str) -> None:
    write({**contents(best()), **changed}, tmp_path / "best.pt")
    with pytest.raises(CheckpointError, match=rf"damaged checkpoint: unexpected values of {named}$"):
        BestCheckpoint.load(tmp_path / "best.pt")


@pytest.mark.parametrize("key", sorted(SavedState.__annotations__))
@pytest.mark.parametrize("value", ["text", -1.5, [1], {"a": [1]}, torch.ones(2)])
def test_a_state_with_other_types_is_refused(tmp_path: Path, key: str, value: object) -> None:
    if (key == "best_score" and isinstance(value, float)) or (key == "scaler" and isinstance(value, dict)):
        pytest.skip("any such value fits")
    write({**contents(last(1)), "state": {**last(1).state, key: value}}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match="damaged checkpoint"):
        LastCheckpoint.load(tmp_path / "last.pt").restore(tiny_state(), {}, tmp_path / "last.pt")


@pytest.mark.parametrize("key", sorted(SavedState.__annotations__))
def test_a_state_without_a_part_is_refused(tmp_path: Path, key: str) -> None:
    state = {name: value for name, value in last(1).state.items() if name != key}
    write({**contents(last(1)), "state": state}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match="unexpected values of state"):
        LastCheckpoint.load(tmp_path / "last.pt")


@pytest.mark.parametrize(
    "group", [{"lr": "fast"}, {"base_lr": None}, {"params": [0]}, {"params": [0, 1, 2]}, {"more": 1}]
)
def test_an_optimizer_of_other_settings_is_refused(tmp_path: Path, group: dict[str, Any]) -> None:
    checkpoint = last(1)
    checkpoint.state["optimizer"]["param_groups"][0].update(group)
    checkpoint.save(tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match="its state does not fit the run"):
        LastCheckpoint.load(tmp_path / "last.pt").restore(tiny_state(), {}, tmp_path / "last.pt")


def test_best_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not fit the model of this recipe") as failure:
        best().restore(nn.Linear(2, 1), small.Classification(0.0, None), tmp_path / "best.pt")
    assert failure.value.next_step == "run the same command without the overrides of the model"


def test_a_state_is_restored(tmp_path: Path) -> None:
    last(1).save(tmp_path / "last.pt")
    state = tiny_state()
    saved = LastCheckpoint.load(tmp_path / "last.pt")
    saved.restore(state, {}, tmp_path / "last.pt")
    assert state.epoch == 1
    assert all(torch.equal(value, saved.state["network"][name]) for name, value in state.network.state_dict().items())
