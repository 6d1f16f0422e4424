"""Shapes that are foretold are those that ONNX infers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from toolkit.serving.bundle.shapes import Shape, count, shape_out, varies

CASES: list[tuple[str, list[tuple[int, ...]], list[list[int]], dict[str, Any]]] = [
    ("Add", [(3, 1, 5), (4, 1)], [], {}),
    ("Mul", [(7,), ()], [], {}),
    ("Where", [(2, 1), (3,), (1,)], [], {}),
    ("Relu", [(2, 3)], [], {}),
    ("MatMul", [(2, 1, 3, 4), (5, 4, 6)], [], {}),
    ("Transpose", [(2, 3, 4)], [], {}),
    ("Transpose", [(2, 3, 4)], [], {"perm": [1, 0, 2]}),
    ("Reshape", [(2, 3, 4)], [[0, -1]], {}),
    ("Reshape", [(2, 3, 4)], [[4, 6]], {}),
    ("Unsqueeze", [(2, 3)], [[0, -1]], {}),
    ("Squeeze", [(1, 2, 1)], [[-1]], {}),
    ("Squeeze", [(1, 2, 1)], [], {}),
    ("Gather", [(5, 6, 7), (2, 3)], [], {"axis": 1}),
    ("GatherND", [(5, 6, 7), (9, 2)], [], {}),
]


@pytest.mark.parametrize(("operator", "shapes", "lists", "attributes"), CASES)
def test_a_shape_is_what_onnx_infers(
    operator: str, shapes: list[tuple[int, ...]], lists: list[list[int]], attributes: dict[str, Any]
) -> None:
    indices = TensorProto.INT64 if operator in ("Gather", "GatherND") else TensorProto.FLOAT
    kinds = [TensorProto.FLOAT, indices, TensorProto.FLOAT]
    if operator == "Where":
        kinds[0] = TensorProto.BOOL
    names = [f"input{place}" for place in range(len(shapes) + len(lists))]
    inputs = [
        helper.make_tensor_value_info(name, kind, shape)
        for name, kind, shape in zip(names, kinds, shapes, strict=False)
    ]
    constants = [
        numpy_helper.from_array(np.array(each, np.int64), name)
        for name, each in zip(names[len(shapes) :], lists, strict=True)
    ]
    made = helper.make_node(operator, names, ["output"], **attributes)
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, None)
    model = helper.make_model(helper.make_graph([made], "graph", inputs, [output], constants))
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.output[0].type.tensor_type.shape
    known: list[Shape | None] = [*shapes, *((len(each),) for each in lists)]
    integers = {name: list(value) if isinstance(value, list) else [value] for name, value in attributes.items()}
    found = shape_out(operator, known, [*([None] * len(shapes)), *lists], integers)
    assert found == tuple(side.dim_value for side in inferred.dim)


@pytest.mark.parametrize(
    ("operator", "shapes", "values"),
    [
        ("Add", [(3,), None], [None, None]),
        ("Add", [(3,), (4,)], [None, None]),
        ("MatMul", [(3, 4), (4,)], [None, None]),
        ("Reshape", [(3, 4), (2,)], [None, None]),
        ("Reshape", [(3, 4), (2,)], [None, [0.0, 0.0, 0.0]]),
        ("Squeeze", [(1, None)], [None]),
        ("Gather", [(3, 4), None], [None, None]),
        ("GatherND", [(3, 4), ()], [None, None]),
        ("Unsqueeze", [(3,), (1,)], [None, None]),
        ("TopK", [(3,), (1,)], [None, None]),
        ("Relu", [], []),
    ],
)
def test_what_cannot_be_said_is_not(operator: str, shapes: list[Shape | None], values: list[Any]) -> None:
    assert shape_out(operator, shapes, values, {}) is None


def test_a_side_that_varies_stays_so_where_it_is_not_cut() -> None:
    shape: Shape = ("N", "H", "W", 3)
    cut = shape_out("Slice", [shape, (3,), (3,), (3,)], [None, [0, 0, 0], [1, 1, 1], [0, 2, 3]], {})
    assert cut == (None, "H", None, None)
    line = shape_out("Squeeze", [cut, (3,)], [None, [0, 2, 3]], {})
    assert line == ("H",)
    assert varies(line)
    assert not varies((None, 3))
    assert not varies(None)
    assert (count((2, 3)), count(line), count(None), count(())) == (6, None, None, 1)
