from __future__ import annotations

import argparse
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from toolkit.api.errors import EXIT_DATA, WeightsError
from toolkit.transfer.weights import load_weights, read_weights


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=0, atol=0)


def save_safely(weights: dict[str, Tensor], path: Path) -> None:
    save_file(weights, path)


@pytest.mark.parametrize(("suffix", "save"), [(".safetensors", save_safely), (".pt", torch.save), (".pth", torch.save)])
def test_reads_what_was_written(tmp_path: Path, suffix: str, save: Callable[[Any, Path], None]) -> None:
    weights = snapshot(network())
    save(weights, tmp_path / f"weights{suffix}")
    assert_same(read_weights(tmp_path / f"weights{suffix}"), weights)


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_finds_a_wrapped_and_prefixed_state_dict(tmp_path: Path, wrapper: str, prefix: str) -> None:
    weights = snapshot(network())
    content = {wrapper: {prefix + name: value for name, value in weights.items()}, "epoch": 3}
    torch.save(content, tmp_path / "weights.pt")
    assert_same(read_weights(tmp_path / "weights.pt"), weights)


def test_a_prefix_only_some_names_share_stays(tmp_path: Path) -> None:
    weights = {"module.weight": torch.zeros(1), "bias": torch.zeros(1)}
    torch.save(weights, tmp_path / "weights.pt")
    assert read_weights(tmp_path / "weights.pt").keys() == weights.keys()


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.pt: no such weights file") as caught:
        read_weights(tmp_path / "absent.pt")
    assert caught.value.next_step
    assert caught.value.exit_code == EXIT_DATA


def test_unknown_suffix(tmp_path: Path) -> None:
    (tmp_path / "weights.h5").touch()
    with pytest.raises(WeightsError, match=r'weights\.h5: unknown suffix "\.h5"') as caught:
        read_weights(tmp_path / "weights.h5")
    assert caught.value.next_step == "give a file that ends in .safetensors, .pt, .pth, .pyth"


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04 cut short", b"\x80\x02}q\x00"])
def test_damaged_file(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="damaged, or no weights file"):
        read_weights(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_truncated_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    (save_safely if suffix == ".safetensors" else torch.save)(snapshot(network()), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="damaged, or no weights file"):
        read_weights(path)


class RunsCode:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("ran"),))


def test_a_file_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("weights.pt").write_bytes(pickle.dumps({"weight": RunsCode()}))
    with pytest.raises(WeightsError, match="damaged, or no weights file"):
        read_weights(Path("weights.pt"))
    assert not Path("ran").exists()


def test_a_checkpoint_with_objects_says_how_to_take_its_tensors_out(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"model": {"a": torch.ones(1)}, "args": argparse.Namespace(lr=0.1)}, path)
    with pytest.raises(WeightsError) as caught:
        read_weights(path)
    assert caught.value.message == f"{path}: holds argparse.Namespace beside tensors, and reading that could run code"
    assert "torch.save(torch.load(PATH, weights_only=False)[KEY], NEW)" in str(caught.value.next_step)


@pytest.mark.parametrize("content", [[1, 2], {}, {"epoch": 3}, {"model": {"epoch": 3}}, {"a": torch.zeros(1), "b": 1}])
def test_content_that_is_no_state_dict(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match="holds no state dict") as caught:
        read_weights(tmp_path / "weights.pt")
    assert "torch.save(model.state_dict(), PATH)" in str(caught.value.next_step)


def test_load_copies_every_tensor() -> None:
    module, other = network(), network()
    load_weights(module, snapshot(other), source="other")
    assert_same(snapshot(module), snapshot(other))


def test_half_precision_is_cast() -> None:
    module, other = network(), network()
    load_weights(module, {name: value.half() for name, value in snapshot(other).items()}, source="other")
    for name, value in module.state_dict().items():
        assert value.dtype == other.state_dict()[name].dtype
        torch.testing.assert_close(value, other.state_dict()[name], rtol=1e-3, atol=1e-3)


def test_batch_norm_counters_may_be_missing() -> None:
    module, other = network(), network()
    weights = snapshot(other)
    del weights["1.num_batches_tracked"]
    load_weights(module, weights, source="other")
    torch.testing.assert_close(module.state_dict()["0.weight"], weights["0.weight"])


def test_ignored_prefixes_are_left_alone_on_both_sides() -> None:
    module, other = network(), network()
    before = snapshot(module)
    weights = snapshot(other) | {"2.weight": torch.zeros(1000, 4), "2.extra": torch.zeros(1)}
    del weights["2.bias"]
    load_weights(module, weights, ignore=("2.",), source="other")
    torch.testing.assert_close(module.state_dict()["2.weight"], before["2.weight"])
    torch.testing.assert_close(module.state_dict()["0.weight"], weights["0.weight"])


@given(
    missing=st.sets(st.sampled_from(["0.weight", "0.bias", "1.running_mean", "2.bias"])),
    unexpected=st.sets(st.text(st.characters(categories=["Ll"]), min_size=1, max_size=5)),
    mis_shaped=st.sets(st.sampled_from(["1.weight", "1.bias", "2.weight"])),
)
def test_every_name_that_does_not_fit_is_listed(missing: set[str], unexpected: set[str], mis_shaped: set[str]) -> None:
    module = network()
    before = snapshot(module)
    weights = {name: value + 1 for name, value in before.items() if name not in missing}
    weights |= {name: torch.zeros(1) for name in unexpected} | {name: torch.zeros(7, 7) for name in mis_shaped}
    if not missing and not unexpected and not mis_shaped:
        load_weights(module, weights, source="other")
        return
    with pytest.raises(WeightsError, match="other: the weights do not fit the model") as caught:
        load_weights(module, weights, source="other")
    assert set(caught.value.missing) == missing
    assert set(caught.value.unexpected) == unexpected
    assert {text.split()[0] for text in caught.value.mis_shaped} == mis_shaped
    assert_same(snapshot(module), before)


def test_the_message_gives_both_shapes() -> None:
    weights = snapshot(network()) | {"2.weight": torch.zeros(5, 4)}
    with pytest.raises(WeightsError) as caught:
        load_weights(network(), weights, source="weights.pt")
    assert caught.value.lines() == [
        "weights.pt: the weights do not fit the model",
        "  1 mis-shaped: 2.weight (5x4 given, 2x4 wanted)",
    ]
    assert caught.value.next_step
