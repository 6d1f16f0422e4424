"""What a model file may not do: reach beyond its bundle, take memory out of proportion, or not end."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto, helper, numpy_helper

from tests import toy_bundle
from toolkit.api.errors import EXIT_DATA, BundleError
from toolkit.serving.bundle import inspection
from toolkit.serving.bundle.inspection import inspect_model
from toolkit.serving.bundle.wire import Reader

node = helper.make_node


def constant(name: str, value: Any, dtype: type = np.int64) -> TensorProto:
    return numpy_helper.from_array(np.array(value, dtype), name)


def model(nodes: Sequence[NodeProto] = (), initializers: Sequence[TensorProto] = ()) -> onnx.ModelProto:
    """The toy with more in front of it."""
    built = toy_bundle.model(2)
    kept = list(built.graph.node)
    del built.graph.node[:]
    built.graph.node.extend([*nodes, *kept])
    built.graph.initializer.extend(initializers)
    return built


def saved(folder: Path, built: onnx.ModelProto | bytes) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(built if isinstance(built, bytes) else built.SerializeToString())
    return path


def refusal(path: Path, allowed: Sequence[str] = ()) -> str:
    with pytest.raises(BundleError) as caught:
        inspect_model(path, allowed=allowed)
    assert caught.value.message.startswith(f"{path}: ")
    assert caught.value.exit_code == EXIT_DATA
    assert caught.value.next_step
    return caught.value.message


def test_a_plain_model_is_described(tmp_path: Path) -> None:
    findings = inspect_model(saved(tmp_path, model()))
    assert [str(port) for port in findings.inputs] == ['"frames" uint8 [N, H, W, 3]']
    assert [str(port) for port in findings.outputs] == ['"probabilities" float32 [N, 2]']
    assert findings.folded == inspection.LEAST_FOLDED


def test_branches_are_looked_into(tmp_path: Path) -> None:
    def branch(name: str, inner: NodeProto) -> onnx.GraphProto:
        return helper.make_graph([inner], name, [], [helper.make_tensor_value_info(inner.output[0], 1, None)])

    def chosen(inner: NodeProto) -> onnx.ModelProto:
        other = branch("else", node("Identity", ["weight"], ["other"]))
        choice = node("If", ["yes"], ["chosen"], "choice", then_branch=branch("then", inner), else_branch=other)
        return model([choice], [constant("yes", True, bool)])

    assert inspect_model(saved(tmp_path, chosen(node("Identity", ["weight"], ["same"]))))
    said = refusal(saved(tmp_path, chosen(node("RandomNormal", [], ["noise"], "dice", shape=[1]))))
    assert 'node "dice" (RandomNormal) is not among the operators' in said


def test_graphs_within_graphs_end_somewhere(tmp_path: Path) -> None:
    same = helper.make_tensor_value_info("same", 1, None)
    inner = node("Identity", ["weight"], ["same"])
    for _ in range(9):
        deeper = helper.make_graph([inner], "then", [], [same])
        plain = helper.make_graph([node("Identity", ["weight"], ["same"])], "else", [], [same])
        inner = node("If", ["yes"], ["same"], then_branch=deeper, else_branch=plain)
    path = saved(tmp_path, model([inner], [constant("yes", True, bool)]))
    assert "graphs within graphs, more than 8 deep" in refusal(path)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (node("Loop", ["", ""], ["x"], "l"), 'node "l" (Loop) is not among the operators that a bundle may use'),
        (node("Scan", ["weight"], ["x"]), 'node "x" (Scan) is not among the operators that a bundle may use'),
        (
            node("ImageDecoder", ["weight"], ["x"], "d"),
            'node "d" (ImageDecoder) is not among the operators that a bundle may use',
        ),
        (node("STFT", ["weight"], ["x"], "s"), 'node "s" (STFT) is not among the operators that a bundle may use'),
        (
            node("EPContext", [], ["x"], "c", domain="com.microsoft"),
            'node "c" (EPContext) belongs to the domain "com.microsoft"',
        ),
        (node("Run", ["weight"], ["x"], "r", domain="evil"), 'node "r" (Run) belongs to the domain "evil"'),
        (node("Identity", ["later"], ["x"], "i"), 'node "i" (Identity) uses "later" before it is made'),
    ],
)
def test_operators_that_are_not_plain_arithmetic_are_refused(tmp_path: Path, made: NodeProto, said: str) -> None:
    assert said in refusal(saved(tmp_path, model([made])))


INT64_MIN = -(2**63)


def divided(operator: str, divisor: Sequence[NodeProto] = (), *constants: TensorProto) -> onnx.ModelProto:
    """The toy that also divides the smallest integer by "by"."""
    named = [constant("least", [INT64_MIN]), *constants]
    return model([*divisor, node(operator, ["least", "by"], ["x"], "d")], named)


@pytest.mark.parametrize("operator", ["Div", "Mod"])
@pytest.mark.parametrize(
    ("divisor", "constants"),
    [
        ([], [constant("by", [-1])]),
        ([], [constant("by", [2, -1, 3])]),
        ([], [constant("by", [1] * 64 + [-1])]),  # of many the values are not read
        ([node("Neg", ["one"], ["by"])], [constant("one", [1])]),
        ([node("Sub", ["one", "two"], ["by"])], [constant("one", [1]), constant("two", [2])]),
        ([node("Mul", ["a", "b"], ["by"])], [constant("a", [3]), constant("b", [6148914691236517205])]),  # overflows
        ([node("Cast", ["frames"], ["by"], to=TensorProto.INT64)], []),
        ([node("Cast", ["weight"], ["by"], to=TensorProto.INT64)], []),
        ([node("Constant", [], ["by"], value_ints=[-1])], []),
        ([node("ArgMax", ["frames"], ["n"]), node("Sub", ["n", "one"], ["by"])], [constant("one", [1])]),
    ],
)
def test_integers_are_not_divided_by_minus_one(
    tmp_path: Path, operator: str, divisor: list[NodeProto], constants: list[TensorProto]
) -> None:
    said = refusal(saved(tmp_path, divided(operator, divisor, *constants)))
    assert f'node "d" ({operator}) may divide an integer by -1, which can end the process' in said


@pytest.mark.parametrize(
    ("divisor", "constants"),
    [
        ([], [constant("by", [2, -3])]),
        ([node("Constant", [], ["by"], value_ints=[4])], []),
        ([node("Shape", ["frames"], ["by"])], []),
        (
            [
                node("Shape", ["frames"], ["sides"]),
                node("Slice", ["sides", "one", "two"], ["height"]),
                node("Min", ["height", "two"], ["short"]),
                node("Mul", ["short", "two"], ["by"]),
            ],
            [constant("one", [1]), constant("two", [2])],
        ),
    ],
)
def test_integers_are_divided_by_what_cannot_be_minus_one(
    tmp_path: Path, divisor: list[NodeProto], constants: list[TensorProto]
) -> None:
    assert inspect_model(saved(tmp_path, divided("Div", divisor, *constants))).outputs


def test_floats_are_divided_by_anything(tmp_path: Path) -> None:
    halved = node("Div", ["weight", "minus"], ["x"])
    computed = [node("Neg", ["weight"], ["less"]), node("Div", ["weight", "less"], ["y"])]
    assert inspect_model(saved(tmp_path, model([halved, *computed], [constant("minus", [-1], np.float32)]))).outputs


def test_an_attribute_stands_there_once(tmp_path: Path) -> None:
    made = node("Cast", ["weight"], ["x"], "c", to=TensorProto.FLOAT)
    made.attribute.append(helper.make_attribute("to", TensorProto.INT64))
    assert 'node "c" (Cast) has two attributes of one name' in refusal(saved(tmp_path, model([made])))


HUGE = 10**10


@pytest.mark.parametrize(
    ("made", "initializers"),
    [
        (node("ConstantOfShape", ["n"], ["x"], "bomb"), [constant("n", [HUGE])]),
        (node("Expand", ["weight", "n"], ["x"], "bomb"), [constant("n", [1, 10**5, 10**5])]),
        (node("Tile", ["real_", "n"], ["x"], "bomb"), [constant("n", [1, HUGE]), constant("real_", [[1.0]], float)]),
        (node("Range", ["a", "b", "c"], ["x"], "bomb"), [constant("a", 0), constant("b", HUGE), constant("c", 1)]),
        (node("Resize", ["weight", "", "", "n"], ["x"], "bomb"), [constant("n", [1, HUGE])]),
        (node("Resize", ["weight", "", "n"], ["x"], "bomb"), [constant("n", [1, HUGE], np.float32)]),
        (node("Pad", ["weight", "n"], ["x"], "bomb"), [constant("n", [0, HUGE, 0, 0])]),
        (node("OneHot", ["n", "n", "weight"], ["x"], "bomb"), [constant("n", [HUGE])]),
        (node("ConvTranspose", ["weight", "weight"], ["x"], "bomb", strides=[10**5, 10**5]), []),
        (node("MaxPool", ["weight"], ["x"], "bomb", kernel_shape=[1], pads=[0, HUGE]), []),
        (node("Col2Im", ["weight", "n", "n"], ["x"], "bomb"), [constant("n", [HUGE])]),
    ],
)
def test_memory_bombs_are_refused_before_they_are_loaded(
    tmp_path: Path, made: NodeProto, initializers: list[TensorProto]
) -> None:
    said = refusal(saved(tmp_path, model([made], initializers)))
    assert f'node "bomb" ({made.op_type}) makes ' in said
    assert "elements of one, more than fit into 4 GiB" in said


def test_a_bomb_whose_size_is_a_node_is_refused(tmp_path: Path) -> None:
    size = node("Constant", [], ["n"], value_ints=[HUGE])
    assert 'node "bomb"' in refusal(saved(tmp_path, model([size, node("ConstantOfShape", ["n"], ["x"], "bomb")])))


def test_many_constants_that_loading_would_compute_are_refused(tmp_path: Path) -> None:
    column, row = constant("column", np.ones((2000, 1)), np.float32), constant("row", np.ones((1, 2000)), np.float32)
    products = [node("MatMul", ["column", "row"], [f"product{index}"]) for index in range(300)]
    assert "loading may compute 5 GiB of constants, more than 4 GiB" in refusal(
        saved(tmp_path, model(products, [column, row]))
    )
    inspect_model(saved(tmp_path, model(products[:200], [column, row])))


def test_doubling_is_counted(tmp_path: Path) -> None:
    doubled = [node("Concat", [f"d{i}", f"d{i}"], [f"d{i + 1}"], axis=0) for i in range(300)]
    said = refusal(saved(tmp_path, model(doubled, [constant("d0", [1.0], np.float32)])))
    assert "loading may compute" in said


def test_an_initializer_must_hold_what_its_shape_claims(tmp_path: Path) -> None:
    hollow = TensorProto(name="hollow", data_type=1, dims=[1000, 1000], raw_data=b"\0" * 8)
    said = refusal(saved(tmp_path, model([], [hollow])))
    assert 'initializer "hollow" claims 4000000 bytes by its shape [1000, 1000], and holds 8' in said
    written = node("Constant", [], ["x"], "written", value=hollow)
    assert 'node "written" (Constant) "hollow" claims' in refusal(saved(tmp_path, model([written])))
    listed = TensorProto(name="listed", data_type=7, dims=[1000], int64_data=[1, 2, 3])
    assert 'initializer "listed" claims 8000 bytes' in refusal(saved(tmp_path, model([], [listed])))


def test_tensors_may_list_their_elements(tmp_path: Path) -> None:
    kinds = [(1, "float_data", [1.5]), (7, "int64_data", [3]), (6, "int32_data", [3]), (10, "int32_data", [3])]
    tensors = [
        TensorProto(name=f"t{kind}", data_type=kind, dims=[1], **{field: values})  # type: ignore[arg-type]
        for kind, field, values in kinds
    ]
    inspect_model(saved(tmp_path, model([], tensors)))


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (TensorProto(name="t", data_type=8, dims=[1], string_data=[b"x"]), "element type 8"),
        (TensorProto(name="t", data_type=99, dims=[1]), "element type 99"),
        (TensorProto(name="t", data_type=1, dims=[-1]), "impossible shape [-1]"),
        (TensorProto(name="t", data_type=1, dims=[1] * 40), "impossible shape"),
    ],
)
def test_tensors_that_no_model_needs_are_refused(tmp_path: Path, tensor: TensorProto, said: str) -> None:
    assert said in refusal(saved(tmp_path, model([], [tensor])))


def test_sparse_tensors_functions_and_training_are_refused(tmp_path: Path) -> None:
    sparse = helper.make_sparse_tensor(constant("v", [1.0], np.float32), constant("i", [3]), [HUGE])
    built = model()
    built.graph.sparse_initializer.append(sparse)
    assert "a sparse initializer" in refusal(saved(tmp_path, built))
    held = node("Constant", [], ["x"], "held", sparse_value=sparse)
    assert 'node "held" (Constant) holds a sparse tensor' in refusal(saved(tmp_path, model([held])))
    built = model()
    built.functions.append(helper.make_function("evil", "F", ["a"], ["a"], [], []))
    assert "functions of its own" in refusal(saved(tmp_path, built))
    built = model()
    built.training_info.add()
    assert "a training graph" in refusal(saved(tmp_path, built))


def external(location: str, **said: str) -> onnx.ModelProto:
    tensor = TensorProto(name="w", data_type=1, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **said}.items():
        tensor.external_data.add(key=key, value=value)
    return model([], [tensor])


def test_weights_may_lie_in_a_file_of_the_bundle(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"\0" * 12)
    inspect_model(saved(tmp_path, external("w.bin", offset="4", length="8")), allowed=["w.bin"])
    assert 'initializer "w" claims 8 bytes by its shape [2], and holds 4' in refusal(
        saved(tmp_path, external("w.bin", offset="8")), ["w.bin"]
    )
    assert 'lies at offset "-1"' in refusal(saved(tmp_path, external("w.bin", offset="-1")), ["w.bin"])
    assert 'lies in "w.bin", which is not among the files' in refusal(saved(tmp_path, external("w.bin")))


@pytest.mark.parametrize("location", ["/etc/passwd", "../w.bin", "a/w.bin", "*/_ORT_MEM_ADDR_/*", "", ".", ".."])
def test_weights_may_not_lie_elsewhere(tmp_path: Path, location: str) -> None:
    said = refusal(saved(tmp_path, external(location)), [location])
    assert 'initializer "w" lies in ' in said


def test_weights_may_not_lie_behind_a_link_or_nowhere(tmp_path: Path) -> None:
    (tmp_path / "w.bin").symlink_to("/etc/passwd")
    path = saved(tmp_path, external("w.bin"))
    assert 'lies in "w.bin": expected a file, got a link' in refusal(path, ["w.bin"])
    (tmp_path / "w.bin").unlink()
    assert "No such file" in refusal(path, ["w.bin"])


def test_weights_lie_where_one_of_the_known_keys_says(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"\0" * 12)
    built = external("w.bin")
    built.graph.initializer[-1].external_data.add(key="location", value="other")
    assert "with two values for one key" in refusal(saved(tmp_path, built), ["w.bin"])
    built.graph.initializer[-1].external_data[-1].key = "basepath"
    assert 'with the unknown key "basepath"' in refusal(saved(tmp_path, built), ["w.bin"])


def test_weights_may_not_lie_in_a_file_of_two_names(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\0" * 12)
    (tmp_path / "w.bin").hardlink_to(tmp_path / "secret")
    said = refusal(saved(tmp_path, external("w.bin")), ["w.bin"])
    assert 'lies in "w.bin": expected a file of one name, got one with 2 (hard links)' in said


def test_many_fields_and_much_besides_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = model().SerializeToString()
    with pytest.raises(BundleError, match="more than 20 fields"):
        inspection._Inspection(Path("m"), Reader(memoryview(data), "m", limit=20), frozenset()).findings()
    monkeypatch.setattr(inspection, "STRUCTURE", -1)
    assert "MiB besides weights" in refusal(saved(tmp_path, data))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it is empty"),
        (b"ORTM\0\0\0\0", "not an ONNX model"),
        (b"\x08\x0a", "it has no graph"),
        (b"\x3a\x05\x0a", "cut short"),
        (b"\x08" + b"\xff" * 11, "an endless integer"),
        (b"\x0b", "wire type 3"),
        (b"\x02\x00", "field 0 at byte 0"),
        (b"\xba\x80\x80\x80\x10\x00", "field 536870919 at byte 0"),  # other readers take it for field 7
        (b"\x3a\x02\x0a\x00" * 2, "field 7 stands there twice"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, data: bytes, said: str) -> None:
    message = refusal(saved(tmp_path, data))
    assert "not an ONNX model" in message
    assert said in message


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    assert "expected a regular file, got a folder" in refusal(tmp_path)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_is_accepted_or_refused_and_never_a_crash(tmp_path: Path, data: st.DataObject) -> None:
    whole = bytearray(model([node("Tile", ["weight", "n"], ["x"])], [constant("n", [1, 2])]).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = saved(tmp_path, bytes(whole[: data.draw(st.integers(1, len(whole)))]))
    with suppress(BundleError):
        inspect_model(path)


@pytest.mark.parametrize(
    ("shape", "element", "name"),
    [
        ([None, None, None, 4], TensorProto.UINT8, "frames"),
        ([None, 8, None, 3], TensorProto.UINT8, "frames"),
        ([None, None, 3], TensorProto.UINT8, "frames"),
        ([None, None, None, 3], TensorProto.FLOAT, "frames"),
        ([None, None, None, 3], TensorProto.UINT8, "pixels"),
    ],
)
def test_a_graph_that_takes_something_else_is_refused(
    tmp_path: Path, shape: list[int | None], element: int, name: str
) -> None:
    from toolkit.serving.bundle import read_manifest

    bundle = toy_bundle.write(tmp_path / "toy")
    built = toy_bundle.model(2)
    del built.graph.input[:]
    built.graph.input.append(helper.make_tensor_value_info(name, element, shape))
    built.graph.node[0].input[0] = name
    path = saved(tmp_path, built)
    with pytest.raises(BundleError) as caught:
        inspection.check_interface(inspect_model(path), read_manifest(bundle), path)
    assert f'{path}: takes "{name}"' in caught.value.message
    assert 'by bundle.json it takes "frames" uint8 [N, H, W, 3]' in caught.value.message


def test_looking_opens_no_other_file(tmp_path: Path) -> None:
    """onnxruntime is not asked: what is refused costs no more than the file's own bytes."""
    pipe = tmp_path / "w.bin"
    os.mkfifo(pipe)
    assert 'lies in "w.bin": expected a regular file, got a FIFO' in refusal(
        saved(tmp_path, external("w.bin")), ["w.bin"]
    )


def test_what_a_branch_makes_of_the_input_is_not_computed_while_loading(tmp_path: Path) -> None:
    """Else all that follows would count as a constant of any size."""

    def branch(name: str, output: str) -> onnx.GraphProto:
        made = node("Identity", ["frames"], [output])
        return helper.make_graph([made], name, [], [helper.make_tensor_value_info(output, TensorProto.UINT8, None)])

    choice = node("If", ["yes"], ["chosen"], then_branch=branch("then", "first"), else_branch=branch("else", "other"))
    after = [
        node("MatMul", ["chosen" if place == 0 else f"x{place}", "weight"], [f"x{place + 1}"]) for place in range(600)
    ]
    assert inspect_model(saved(tmp_path, model([choice, *after], [constant("yes", True, bool)])))


def test_constants_of_known_shapes_count_with_their_size(tmp_path: Path) -> None:
    """A table of positions, as transformers with windows compute it: products of numbers of elements say terabytes."""
    made: list[NodeProto] = []
    for place in range(300):
        made.append(node("MatMul", ["wide", "tall"], [f"product{place}"]))
        made.append(node("Add", [f"product{place}", "row"], [f"sum{place}"]))
    constants = [
        constant("wide", np.ones((200, 50))),
        constant("tall", np.ones((50, 30))),
        constant("row", np.ones(30)),
    ]
    assert inspect_model(saved(tmp_path, model(made, constants)))
