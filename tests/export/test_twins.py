"""Wrong twins: graphs that are nearly what was trained. Thirty items are enough to refuse each of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.export.models import tampered
from toolkit.api.errors import EXIT_DONE, EXIT_PARITY
from toolkit.cli.main import main
from toolkit.export import write as export
from toolkit.serving.bundle import read_manifest

ITEMS = 30
EXACT = 1e-5

RECIPE = """
[data]
name = "cifar10"
sample_images = 30
[input]
size = 20
stored = 24
fit = "{fit}"
[model]
name = "cnn"
widths = [8, 16, 16]
[train]
epochs = 2
batch = 50
device = "cpu"
precision = "fp32"
[train.optimizer]
name = "adam"
lr = 0.01
"""

Wrong: TypeAlias = Callable[[onnx.ModelProto], onnx.ModelProto]


@pytest.fixture(scope="module", params=["crop"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run whose files are resized and cropped, and its bundle."""
    folder = tmp_path_factory.mktemp("twins")
    (folder / "twin.toml").write_text(RECIPE.format(fit=request.param))
    assert main(["run", str(folder / "twin.toml"), "--runs", str(folder)]) == EXIT_DONE
    (run,) = (folder / "twin").iterdir()
    assert main(["export", str(run), "--exports", str(folder / "exports")]) == EXIT_DONE
    return run, folder / "exports" / "twin"


def constant(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Wrong:
    """With another value of the constant whose name ends so."""

    def wrong(model: onnx.ModelProto) -> onnx.ModelProto:
        (found,) = (weight.name for weight in model.graph.initializer if weight.name.endswith(name))
        return tampered(model, found, change)

    return wrong


def weight(layer: int, change: Callable[[np.ndarray], np.ndarray]) -> Wrong:
    """With other weights of a layer, by its number."""

    def wrong(model: onnx.ModelProto) -> onnx.ModelProto:
        layers = [node.input[1] for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
        return tampered(model, layers[layer], change)

    return wrong


def operator(kind: str, other: str) -> Wrong:
    """With another operator in place of the first of one kind."""

    def wrong(model: onnx.ModelProto) -> onnx.ModelProto:
        node = next(node for node in model.graph.node if node.op_type == kind and node.name.startswith("model/"))
        node.op_type = other
        del node.attribute[:]
        return model

    return wrong


def last(kind: str, constant: np.ndarray, **attributes: int) -> Wrong:
    """With one more node behind the answers."""

    def wrong(model: onnx.ModelProto) -> onnx.ModelProto:
        (output,) = model.graph.output
        node = next(node for node in model.graph.node if output.name in node.output)
        node.output[0] = "before"
        model.graph.initializer.append(numpy_helper.from_array(constant, "wrong"))
        model.graph.node.append(
            helper.make_node(kind, ["before", "wrong"], [output.name], "around/wrong", **attributes)
        )
        return model

    return wrong


def one(values: np.ndarray) -> np.ndarray:
    changed = values.copy()
    changed.flat[0] += 0.2 * values.std()
    return changed


def branch(position: int, kind: str, last: int, change: Callable[[onnx.NodeProto], None]) -> Wrong:
    """With another node among those that prepare frames: of squares (0), or of all others (1)."""

    def wrong(model: onnx.ModelProto) -> onnx.ModelProto:
        (decision,) = (node for node in model.graph.node if node.op_type == "If")
        graph = sorted((attribute.g for attribute in decision.attribute), key=lambda each: len(each.node))[position]
        change([node for node in graph.node if node.op_type == kind][-last])
        return model

    return wrong


def mirrored(node: onnx.NodeProto) -> None:
    del node.attribute[:]
    node.attribute.append(helper.make_attribute("perm", [0, 3, 2, 1]))


def unrounded(node: onnx.NodeProto) -> None:
    """Pixels are cut off, not rounded to what is nearest: nothing is added before."""
    node.op_type = "Max"


TWINS: dict[str, Wrong] = {
    "mean": constant("normalize.shift", lambda values: values + 0.01),
    "deviation": constant("normalize.scale", lambda values: values * 1.01),
    "channels": weight(0, lambda values: values[:, ::-1].copy()),
    "first weight": weight(0, one),
    "last weight": weight(-1, one),
    "weights in bfloat16": weight(1, lambda values: (values.view(np.uint32) & 0xFFFF0000).view(np.float32)),
    "activation": operator("Gelu", "Relu"),
    "classes": last("Gather", np.arange(10)[::-1].copy(), axis=1),
    "temperature": last("Pow", np.float32(1.01)),
    "squares mirrored": branch(0, "Transpose", 1, mirrored),
    "rounding": branch(1, "Add", 2, unrounded),
}


@pytest.mark.parametrize("twin", TWINS)
def test_a_twin_that_is_wrong_does_not_leave(
    twin: str,
    trained: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, bundle = trained
    monkeypatch.setattr(export, "to_onnx", lambda *_: TWINS[twin](onnx.load(bundle / "model.onnx")))
    assert main(["export", str(run), "--exports", str(tmp_path)]) == EXIT_PARITY
    printed = capsys.readouterr()
    assert f"gate fp32: FAILED, {ITEMS} valid items" in printed.out
    assert "max_difference is 0.0001" in printed.err
    assert list(tmp_path.iterdir()) == []


def test_the_right_one_answers_files_as_the_network_does(trained: tuple[Path, Path]) -> None:
    found = read_manifest(trained[1]).gate["fp32"]
    assert found["items"] == ITEMS
    assert max(found[side]["largest_difference"] for side in ("squares", "raw_files")) < EXACT
