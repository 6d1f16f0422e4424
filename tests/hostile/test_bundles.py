"""Damaged and hostile bundles: each is refused by name, or answers as before.

`TOOLKIT_MUTATIONS=300` tries so many of each family.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from PIL import Image

from tests import toy_bundle
from tests.hostile.damage import distort, replace_file, scramble
from tests.hostile.trials import MUTATIONS, Trial
from toolkit.api.errors import EXIT_DATA, EXIT_DONE
from toolkit.serving.bundle import MANIFEST

EXTREME = (0, 1, -1, 7, 999, 2**20, 2**40, 2**62, -(2**63))
OPERATORS = (
    *("Div", "Mod", "Tile", "Expand", "Loop", "Scan", "If", "ConstantOfShape", "Resize", "Pad", "Range", "TopK"),
    *("NonZero", "Einsum", "RandomNormal", "StringNormalizer", "Conv", "GRU", "Col2Im", "Shape", "SequenceAt"),
    *("Where", "Gather", "Attention", "OneHot", "GridSample", "Trilu", "Compress", "Cast", "Split", "MatMul"),
)
PLACES = ("/etc/passwd", "model.onnx", "./model.onnx", "model.onnx/", "../x", MANIFEST, "/dev/zero", "README.md", "")


def damage_a_file(bundle: Path, draw: Random) -> None:
    path = draw.choice(sorted(bundle.iterdir()))
    data = path.read_bytes()
    while (damaged := scramble(data, draw)) == data:
        pass
    path.write_bytes(damaged)


def damage_the_manifest(bundle: Path, draw: Random) -> None:
    path = bundle / MANIFEST
    claimed = json.loads(path.read_bytes())
    before = json.dumps(claimed)
    while json.dumps(claimed) == before:
        distort(claimed, draw, without={"thresholds"})
    path.write_text(json.dumps(claimed), encoding="utf-8")


def forge_the_manifest(bundle: Path, draw: Random) -> None:
    toy_bundle.edit(bundle, lambda claimed: distort(claimed, draw))


def damage_the_model(bundle: Path, draw: Random) -> None:
    path = bundle / "model.onnx"
    path.write_bytes(scramble(path.read_bytes(), draw))
    _renew_digests(bundle)


def forge_the_graph(bundle: Path, draw: Random) -> None:
    path = bundle / "model.onnx"
    model = onnx.load(path)
    for _ in range(draw.choice([1, 1, 2, 3])):
        draw.choice(CHANGES)(model.graph, draw)
    path.write_bytes(model.SerializeToString())
    _renew_digests(bundle)


def replace_a_file(bundle: Path, draw: Random) -> None:
    replace_file(draw.choice(sorted(bundle.iterdir())), draw)


def _renew_digests(bundle: Path) -> None:
    toy_bundle.edit(bundle, lambda claimed: claimed.update(files=toy_bundle.digests(bundle)))


def _change_an_operator(graph: Any, draw: Random) -> None:
    draw.choice(graph.node).op_type = draw.choice(OPERATORS)


def _change_an_attribute(graph: Any, draw: Random) -> None:
    attributes = [attribute for node in graph.node for attribute in node.attribute]
    if not attributes:
        return
    attribute = draw.choice(attributes)
    if attribute.type == attribute.INT:
        attribute.i = draw.choice(EXTREME)
    elif attribute.type == attribute.INTS:
        attribute.ints[:] = [draw.choice(EXTREME) for _ in range(draw.randrange(6))]
    elif attribute.type == attribute.FLOAT:
        attribute.f = draw.choice([float("nan"), float("inf"), -1.0, 0.0])
    else:
        attribute.type = draw.choice([attribute.INT, attribute.GRAPH, attribute.STRING])


def _change_an_input(graph: Any, draw: Random) -> None:
    node = draw.choice(graph.node)
    if node.input:
        name = draw.choice(graph.initializer).name if graph.initializer else "nowhere"
        node.input[draw.randrange(len(node.input))] = draw.choice([name, "frames", "", "nowhere", *node.output])


def _remove_or_repeat_a_node(graph: Any, draw: Random) -> None:
    node = draw.choice(graph.node)
    if draw.random() < 0.5 and len(graph.node) > 1:
        graph.node.remove(node)
    else:
        graph.node.add().CopyFrom(node)


def _change_a_shape(graph: Any, draw: Random) -> None:
    draw.choice(graph.initializer).dims[:] = [abs(draw.choice(EXTREME[:-1])) for _ in range(draw.randrange(4))]


def _change_a_type(graph: Any, draw: Random) -> None:
    draw.choice(graph.initializer).data_type = draw.randrange(27)


def _change_a_value(graph: Any, draw: Random) -> None:
    tensor = draw.choice(graph.initializer)
    try:
        values = numpy_helper.to_array(tensor).copy()
    except (TypeError, ValueError, KeyError, onnx.checker.ValidationError):  # of a type or shape that was changed
        return
    if values.size and values.dtype.kind in "if":
        odd = [0, -1, 2**40, -(2**62)] if values.dtype == np.int64 else [0, -1, 100]
        values.flat[draw.randrange(values.size)] = draw.choice(odd)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _move_weights(graph: Any, draw: Random) -> None:
    tensor = draw.choice(graph.initializer)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=draw.choice(PLACES))


def _change_a_port(graph: Any, draw: Random) -> None:
    port = draw.choice([*graph.input, *graph.output]).type.tensor_type
    if draw.random() < 0.3:
        port.elem_type = draw.randrange(27)
    else:
        draw.choice(port.shape.dim).dim_value = abs(draw.choice(EXTREME[:-1]))


CHANGES: tuple[Callable[[Any, Random], None], ...] = (
    _change_an_operator,
    _change_an_attribute,
    _change_an_input,
    _remove_or_repeat_a_node,
    _change_a_shape,
    _change_a_type,
    _change_a_value,
    _move_weights,
    _change_a_port,
)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "grey.png"
    Image.new("RGB", (24, 20), (90, 60, 120)).save(path)
    return path


@pytest.mark.parametrize(
    ("damage", "may_answer", "count"),
    [
        (damage_a_file, False, 6),
        (damage_the_manifest, False, 6),
        (forge_the_manifest, True, 8),
        (damage_the_model, True, 8),
        (forge_the_graph, True, 12),
        (replace_a_file, False, 8),
    ],
)
def test_a_damaged_bundle_is_refused_by_name_or_harmless(
    damage: Callable[[Path, Random], None],
    may_answer: bool,
    count: int,
    trial: Trial,
    picture: Path,
    tmp_path: Path,
) -> None:
    """What its own checksums can see is never answered."""
    outcomes, wrong = Counter[int](), []
    for number in range(MUTATIONS or count):
        bundle = toy_bundle.write(tmp_path / f"toy{number}")
        damage(bundle, Random(number))
        outcome = trial("predict", bundle, picture, "--device", "cpu")
        faults = list(outcome.faults())
        if outcome.code not in ((EXIT_DONE, EXIT_DATA) if may_answer else (EXIT_DATA,)):
            faults.append(f"ended with {outcome.code}")
        if outcome.code and str(bundle) not in outcome.error:
            faults.append("did not name the bundle")
        wrong += [f"mutation {number}: {faults}\n{outcome}"] * bool(faults)
        outcomes[outcome.code] += 1
        shutil.rmtree(bundle)
    print(f"{damage.__name__}: {dict(outcomes)}")
    assert not wrong, "\n".join(wrong)
