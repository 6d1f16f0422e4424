from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file
from torch import Tensor, nn

from toolkit.api.errors import EXIT_DATA, WeightsError
from toolkit.system.checkpoints import seal
from toolkit.transfer.files import read_weights


def network() -> dict[str, Tensor]:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).state_dict()


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=0, atol=0)


def save_safely(weights: dict[str, Tensor], path: Path) -> None:
    save_file(weights, path)


def save_old(weights: dict[str, Tensor], path: Path) -> None:
    torch.save(weights, path, _use_new_zipfile_serialization=False)


def refused(path: Path) -> WeightsError:
    with pytest.raises(WeightsError) as caught:
        read_weights(path)
    assert caught.value.exit_code == EXIT_DATA
    assert caught.value.next_step
    return caught.value


def test_a_length_that_begins_as_a_pickle_does(tmp_path: Path) -> None:
    """The header of safetensors has any length, such as 128 bytes or 640: its first byte is then that of pickles."""
    made = (save({"weight": torch.ones(2)}, {"padding": "x" * padding}) for padding in range(200))
    (tmp_path / "w.safetensors").write_bytes(next(content for content in made if content.startswith(b"\x80")))
    assert_same(read_weights(tmp_path / "w.safetensors"), {"weight": torch.ones(2)})


@pytest.mark.parametrize("save", [save_safely, torch.save, save_old])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".PTH", ".pyth", ".ckpt", ".bin", ""])
def test_the_content_decides_how_a_file_is_read(tmp_path: Path, suffix: str, save: Callable[[Any, Path], None]) -> None:
    weights = network()
    save(weights, tmp_path / f"weights{suffix}")
    assert_same(read_weights(tmp_path / f"weights{suffix}"), weights)


@pytest.mark.parametrize(
    "wrapper",
    [
        *("state_dict", "model_state_dict", "model_state", "model", "net"),
        *("model_ema", "ema", "state_dict_ema", "ema_state_dict"),
    ],
)
def test_a_state_dict_inside_is_found(tmp_path: Path, wrapper: str) -> None:
    weights = network()
    torch.save({wrapper: weights, "epoch": 3, "optimizer": {"state": {}}}, tmp_path / "weights.pt")
    assert_same(read_weights(tmp_path / "weights.pt"), weights)
    torch.save({"model": {wrapper: {"state_dict": weights}}}, tmp_path / "weights.pt")
    assert_same(read_weights(tmp_path / "weights.pt"), weights)


def test_the_trained_weights_come_before_averaged_ones(tmp_path: Path) -> None:
    weights = network()
    torch.save({"ema": network(), "model": weights}, tmp_path / "weights.pt")
    assert_same(read_weights(tmp_path / "weights.pt"), weights)


def test_a_lightning_checkpoint(tmp_path: Path) -> None:
    content = {
        "state_dict": {f"model.{name}": value for name, value in network().items()},
        "pytorch-lightning_version": "2.5.0",
        "hyper_parameters": {"lr": 0.1, "_class_path": "os.system"},
        "optimizer_states": [{"state": {}}],
        "loops": {},
    }
    torch.save(content, tmp_path / "last.ckpt")
    assert read_weights(tmp_path / "last.ckpt").keys() == content["state_dict"].keys()


def shards(folder: Path, **changes: Any) -> Path:
    weights = network()
    names = list(weights)
    save_file({name: weights[name] for name in names[:3]}, folder / "model-1.safetensors")
    save_file({name: weights[name] for name in names[3:]}, folder / "model-2.safetensors")
    places = {name: f"model-{1 if name in names[:3] else 2}.safetensors" for name in names}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places | changes}))
    return index


def test_an_index_of_several_files(tmp_path: Path) -> None:
    index = shards(tmp_path)
    assert read_weights(index).keys() == network().keys()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"0.bias": "../model-1.safetensors"}, "expected names of other files in its folder"),
        ({"0.bias": "/etc/hostname"}, "expected names of other files in its folder"),
        ({"0.bias": "model.safetensors.index.json"}, "expected names of other files in its folder"),
        ({"0.bias": 3}, "expected a table weight_map of file names"),
        ({"0.bias": "model-3.safetensors"}, "model-3.safetensors: no such weights file"),
        ({"9.bias": "model-1.safetensors"}, "not in the files it lists: 9.bias"),
    ],
)
def test_an_index_that_does_not_hold(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    assert reason in refused(shards(tmp_path, **changes)).message


@pytest.mark.parametrize("content", ["{}", '{"weight_map": {}}', '{"weight_map": []}', "{", '{"a": ' + "[" * 100000])
def test_json_that_is_no_index(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.index.json").write_text(content)
    assert "damaged, or not a weights file" in refused(tmp_path / "a.index.json").message


def test_missing_file(tmp_path: Path) -> None:
    error = refused(tmp_path / "absent.pt")
    assert error.message == f"{tmp_path / 'absent.pt'}: no such weights file"
    assert error.next_step == "check the path"


@pytest.mark.skipif(os.name != "posix", reason="needs named pipes")
def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "weights.pt")
    assert "no such weights file" in refused(tmp_path / "weights.pt").message


@pytest.mark.parametrize("content", [b"", b"text", b"\x89HDF\r\n", b"PK\x03\x04 cut", b"\x80\x02}q\x00", b"GIF89a"])
def test_a_file_of_another_kind(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weights.pt").write_bytes(content)
    assert "damaged, or not a weights file" in refused(tmp_path / "weights.pt").message


@pytest.mark.parametrize("save", [save_safely, torch.save, save_old])
def test_truncated_file(tmp_path: Path, save: Callable[[Any, Path], None]) -> None:
    path = tmp_path / "weights"
    save(network(), path)
    path.write_bytes(path.read_bytes()[:-100])
    assert "damaged, or not a weights file" in refused(path).message


class RunsCode:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("ran"),))


def test_a_file_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("weights.pt").write_bytes(pickle.dumps({"weight": RunsCode()}))
    refused(Path("weights.pt"))
    assert not Path("ran").exists()


def test_a_checkpoint_with_objects_says_how_to_take_its_tensors_out(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"model": {"a": torch.ones(1)}, "args": argparse.Namespace(lr=0.1)}, path)
    error = refused(path)
    assert error.message == f"{path}: holds argparse.Namespace besides tensors, and reading that could run code"
    assert "torch.save(torch.load(PATH, weights_only=False)[KEY], NEW)" in str(error.next_step)


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    """A small file could otherwise fill the memory."""
    torch.save({"a": torch.zeros(100000)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(tmp_path / "small.pt", "w") as small:
        for member in plain.infolist():
            small.writestr(member.filename, plain.read(member), zipfile.ZIP_DEFLATED)
    assert refused(tmp_path / "small.pt").message.endswith("a compressed archive, which torch.save does not write")


def test_a_checksum_that_does_not_match_is_refused(tmp_path: Path) -> None:
    archive = io.BytesIO()
    torch.save({"a": torch.arange(100.0)}, archive)
    seal(archive)
    content = bytearray(archive.getvalue())
    (tmp_path / "a.pt").write_bytes(content)
    assert read_weights(tmp_path / "a.pt")["a"].sum() == 4950
    content[len(content) // 2] ^= 1
    (tmp_path / "a.pt").write_bytes(content)
    assert refused(tmp_path / "a.pt").message.endswith("its bytes do not match its checksum")


@pytest.mark.parametrize("content", [[1, 2], {}, {"epoch": 3}, {"model": {"epoch": 3}}, {"a": torch.zeros(1), "b": 1}])
def test_content_that_is_no_state_dict(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "weights.pt")
    error = refused(tmp_path / "weights.pt")
    assert "holds no state dict" in error.message
    assert error.next_step == "write one with torch.save(model.state_dict(), PATH)"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: torch.ones(2, 2, device="meta"), "meta: without values"),
        (lambda: torch.eye(2).to_sparse(), "sparse"),
        (lambda: torch.eye(2).to_sparse_csr(), "sparse"),
        (lambda: torch.quantize_per_tensor(torch.eye(2), 0.1, 0, torch.qint8), "quantized"),
    ],
)
def test_tensors_without_plain_values_are_refused(tmp_path: Path, make: Callable[[], Tensor], reason: str) -> None:
    torch.save({"a": torch.ones(1), "b": make()}, tmp_path / "weights.pt")
    assert refused(tmp_path / "weights.pt").message.endswith(f": expected plain tensors, got b ({reason})")
