"""The search for a precision: what stays in float, what it costs, and when the model stays in fp32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from tests.export.models import noise, run_session
from toolkit.api.contracts import DataSpec
from toolkit.api.errors import EXIT_DONE, DataError
from toolkit.cli.main import main
from toolkit.export import precision, write
from toolkit.export.gate import Ask, Held
from toolkit.export.graph import to_onnx
from toolkit.export.integers import GATED, QUANTISED, Ranged, ranged
from toolkit.export.precision import Chosen, fewest, search
from toolkit.recipe.tables import LIMITS
from toolkit.serving.bundle import Searched, read_manifest
from toolkit.training.network import Network
from toolkit_tasks.classification import Classification

SQUARES = noise(8, 20, 20, 3)


class Gated(nn.Module):
    """Four layers with SiLU, and squeeze-and-excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.wide = nn.Conv2d(8, 8, 3, padding=1)
        self.squeeze = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 3)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        features = nn.functional.silu(self.wide(nn.functional.silu(self.stem(pixels))))
        pooled = nn.functional.adaptive_avg_pool2d(features, 1)
        logits: torch.Tensor = self.head((features * self.squeeze(pooled).sigmoid()).mean((2, 3)))
        return logits


@pytest.fixture(scope="module")
def gated() -> onnx.ModelProto:
    spec = DataSpec(classes=("dark", "bright", "other"), size=16, stored=20)
    torch.manual_seed(0)
    return to_onnx(Network(Gated(), spec).eval(), Classification(0.0, None).logits, spec, {"classes": "[]"})


@pytest.fixture(scope="module")
def ranges(gated: onnx.ModelProto) -> Ranged:
    return ranged(gated, [SQUARES], kinds=(*QUANTISED, *GATED))


def floats(model: onnx.ModelProto) -> list[str]:
    """Names of the weights of layers that are in float."""
    weights = {weight.name for weight in model.graph.initializer if weight.data_type == onnx.TensorProto.FLOAT}
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    return [node.input[1] for node in layers if node.input[1] in weights and node.name.startswith("model/")]


@dataclass
class Bench:
    """What the search asks about, with speeds and limits that a test chooses."""

    ranges: Ranged
    passes: Callable[[list[str]], bool | None] = lambda _: True
    """Of the weights that are in float; None: only if a drop is excused as chance."""
    speeds: dict[str, float] = field(default_factory=dict)
    tried: list[list[str]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def run(self, model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch, targets: str = "index") -> Chosen:
        asked: dict[int, onnx.ModelProto] = {}

        def opened(candidate: onnx.ModelProto, precision: str) -> Ask:
            def ask(pixels: np.ndarray) -> np.ndarray:
                return run_session(candidate, pixels)

            asked[id(ask)] = candidate
            return ask

        def held_on_squares(ask: Ask, *_: object) -> Held:
            self.tried.append(floats(asked[id(ask)])[1:])  # the first layer stays float in any case
            passes = self.passes(self.tried[-1])
            return Held(bool(passes), passes is not False)

        def measure(asks: dict[str, Ask], batch: np.ndarray) -> dict[str, float]:
            assert batch.shape == (16, 20, 20, 3)
            return {name: self.speeds.get(name, 2.0) for name in asks} | {"fp32": 1.0}

        monkeypatch.setattr(precision, "held_on_squares", held_on_squares)
        monkeypatch.setattr(precision, "ranged", lambda *_, **__: self.ranges)
        expected = SimpleNamespace(
            evaluation=SimpleNamespace(index=torch.arange(len(SQUARES))),
            squares=lambda items: SQUARES[list(items)],
            assembly=SimpleNamespace(
                recipe=SimpleNamespace(export=SimpleNamespace(int8=LIMITS["int8"])),
                spec=SimpleNamespace(frames=None, targets=targets),
            ),
        )
        expected.part = lambda most: expected
        given: Any = expected
        return search(model, [SQUARES], given, opened, report=self.said.append, measure=measure)


def test_all_is_in_integers_where_that_passes(
    gated: onnx.ModelProto, ranges: Ranged, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(ranges)
    found = bench.run(gated, monkeypatch)
    assert found.searched == Searched("int8", (), 3, 2.0, found.searched.seconds)
    assert str(found.searched).startswith("int8, all 3 layers in integers, 2 times the speed of fp32")
    assert bench.tried == [[]]
    assert len(floats(found.model)) == 1
    np.testing.assert_allclose(run_session(found.model, SQUARES), run_session(gated, SQUARES), atol=0.05)


def test_what_costs_accuracy_returns_to_float_the_worst_first(
    gated: onnx.ModelProto, ranges: Ranged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The widest weights of one layer ruin it in integers: it is the first to return, and enough."""
    spoiled = onnx.ModelProto()
    spoiled.CopyFrom(gated)
    bench = Bench(spoil(ranges, "head"), passes=lambda names: any("head" in name for name in names))
    found = bench.run(spoiled, monkeypatch)
    assert found.searched.float_layers == ("head",)
    assert str(found.searched).startswith("int8, 1 of 3 layers in float, 2 times")
    assert bench.tried == [[], ["network.model.head.weight"]]
    assert [text for text in bench.said if text.startswith("ranking layers")] == [
        f"ranking layers: part {part} of 3" for part in (1, 2, 3)
    ]


@pytest.mark.parametrize(("outright", "layers"), [(True, 2), (False, 0)])
def test_chance_is_an_excuse_only_where_nothing_else_is_faster(
    gated: onnx.ModelProto, ranges: Ranged, monkeypatch: pytest.MonkeyPatch, outright: bool, layers: int
) -> None:
    """All in integers is excused; with two layers in float no excuse is needed, if there is such a model."""
    bench = Bench(ranges, passes=lambda names: (outright and len(names) >= 2) or None)
    found = bench.run(gated, monkeypatch)
    assert len(found.searched.float_layers) == layers
    assert sorted({len(names) for names in bench.tried}) == [0, 1, 2]
    assert len(bench.tried) == 3  # what was tried is known


def spoil(ranges: Ranged, layer: str) -> Ranged:
    """Ranges so wide for the input of a layer that nothing of it is left in integers."""
    node = next(node for node in ranges.model.graph.node if any(layer in name for name in node.input))
    data = dict(ranges.ranges.data)
    wide = np.array(1e6, np.float32)
    kind = type(data[node.input[0]])
    data[node.input[0]] = kind(lowest=-wide, highest=wide)
    return Ranged(ranges.model, type(ranges.ranges)(ranges.ranges.calibration_method, data), ranges.kept)


def test_a_model_that_never_passes_stays_in_fp32(
    gated: onnx.ModelProto, ranges: Ranged, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Bench(ranges, passes=lambda _: False).run(gated, monkeypatch)
    assert found.model is gated
    assert found.searched.precision == "fp32"
    assert str(found.searched) == "fp32, because int8 does not pass the gate, whichever layers stay in float"


def test_integers_that_are_slower_are_not_tried(
    gated: onnx.ModelProto, ranges: Ranged, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(ranges, speeds={"int8 0": 0.8, "int8 1": 0.9})
    found = bench.run(gated, monkeypatch)
    assert str(found.searched) == "fp32, because int8 has 0.90 times the speed of fp32 on this machine"
    assert bench.tried == []


def test_what_passes_must_be_faster_too(
    gated: onnx.ModelProto, ranges: Ranged, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(ranges, speeds={"int8": 1.01})
    found = bench.run(gated, monkeypatch)
    expected = "fp32, because int8 that passes the gate has 1.01 times the speed of fp32 on this machine"
    assert str(found.searched) == expected


def test_activations_in_integers_are_tried_where_they_are_faster(
    gated: onnx.ModelProto, ranges: Ranged, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {}
    for speeds in ({"int8 0": 1.5, "int8 1": 1.2}, {"int8 0": 1.2, "int8 1": 1.5}):
        model = Bench(ranges, speeds=speeds).run(gated, monkeypatch).model
        made[max(speeds, key=lambda name: speeds[name])] = in_integers(model)
    assert "Sigmoid" not in made["int8 0"]
    assert made["int8 1"] >= {*GATED, "GlobalAveragePool"}


def in_integers(model: onnx.ModelProto) -> set[str]:
    """Operations whose results are quantised."""
    read = {name for node in model.graph.node if node.op_type == "QuantizeLinear" for name in node.input}
    return {node.op_type for node in model.graph.node if read & {*node.output}}


def test_a_network_without_layers_stays_in_fp32(
    gated: onnx.ModelProto, ranges: Ranged, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = frozenset(node.name for node in ranges.model.graph.node)
    found = Bench(Ranged(ranges.model, ranges.ranges, kept)).run(gated, monkeypatch)
    assert str(found.searched) == "fp32, because no layer can be in integers"


@pytest.mark.parametrize("most", [1, 2, 7, 24])
def test_the_fewest_are_found_with_few_tries(most: int) -> None:
    for wanted in range(1, most + 2):
        tried: list[int] = []

        def holds(count: int, wanted: int = wanted, tried: list[int] = tried) -> bool:
            tried.append(count)
            return count >= wanted

        assert fewest(holds, most) == (wanted if wanted <= most else None)
        assert len(tried) <= 2 * most.bit_length()
        assert len({*tried}) == len(tried)
    assert fewest(lambda _: True, 0) is None


def test_parts_hold_every_layer_once(ranges: Ranged) -> None:
    for most in (1, 2, 24):
        parts = ranges.parts(most)
        assert len(parts) == min(most, 3)
        assert [title for part in parts for title in part.layers] == ["wide", "squeeze", "head"]
    assert {name for part in ranges.parts(2) for name in part.nodes}.isdisjoint(ranges.kept)


def test_items_that_were_all_skipped_give_no_ranges(gated: onnx.ModelProto) -> None:
    with pytest.raises(DataError, match="int8 has no ranges of values"):
        ranged(gated, [SQUARES[:0]])


FASTER = {"fp32": 1.0, "int8 0": 2.0, "int8 1": 1.5, "int8": 2.0}


def chosen_speeds(asks: Sequence[str], _: object) -> dict[str, float]:
    return {name: FASTER[name] for name in asks}


@pytest.mark.slow
def test_an_export_shows_what_was_chosen(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(search, "__kwdefaults__", {"measure": chosen_speeds})
    words = ["export", str(run), "--exports", str(tmp_path), "--set", "export.precision=auto"]
    assert main([*words, "--set", "export.int8.max_drop=5"]) == EXIT_DONE
    manifest = read_manifest(tmp_path / "tiny")
    assert manifest.models == {"int8": "model.onnx"}
    assert manifest.searched is not None
    assert manifest.searched.precision == "int8"
    assert f"precision {manifest.searched} (searched in " in capsys.readouterr().out
    assert "The export searched the precision: int8" in (tmp_path / "tiny" / "README.md").read_text()
    assert manifest.gate["int8"]["items"] > 0


@pytest.mark.slow
def test_an_int8_model_that_the_gate_refuses_becomes_fp32(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def spoiled(model: onnx.ModelProto, *_: object, **__: object) -> Chosen:
        half = onnx.ModelProto()
        half.CopyFrom(model)
        for weight in half.graph.initializer:
            if weight.name.startswith("network.model") and weight.data_type == onnx.TensorProto.FLOAT:
                zeros = np.zeros([*weight.dims], np.float32)
                weight.CopyFrom(onnx.numpy_helper.from_array(zeros, weight.name))
        return Chosen(half, Searched("int8", ("head",), 3, 2.0, 1.0))

    monkeypatch.setattr(precision, "search", spoiled)
    words = ["export", str(run), "--exports", str(tmp_path), "--set", "export.precision=auto"]
    assert main(words) == EXIT_DONE
    manifest = read_manifest(tmp_path / "tiny")
    assert manifest.models == {"fp32": "model.onnx"}
    assert manifest.searched == Searched("fp32", (), 3, None, 1.0, "int8 fails the gate")
    assert "precision fp32, because int8 fails the gate" in capsys.readouterr().out


def test_a_search_needs_the_trained_model(graph: Any, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="held against the trained model"):
        write._write_searched(graph[2], None, tmp_path, None, None)  # type: ignore[arg-type]
