"""A model's nodes in half precision.

onnxruntime's own converter does not replace this: where some nodes stay in float32, it puts casts behind the nodes that
read them, which ONNX's checker refuses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from toolkit.export.graph import MODEL

if TYPE_CHECKING:
    import onnx

LARGEST = 65504.0
"""Of float16; weights beyond it are clamped."""


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model's own nodes and weights in float16, with casts where values enter and leave them."""
    import onnx

    half = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    floats = set(_float_values(half.graph))
    inside = [node for node in half.graph.node if node.name.startswith(MODEL)]
    made = {name for node in inside for name in node.output}
    del half.graph.value_info[:]
    _halve_weights(half.graph, inside)
    for node in inside:
        _halve_attributes(node)
    taken = {name for node in inside for name in node.input}
    entering = sorted(name for name in taken & floats if name not in made)
    outside = [node for node in half.graph.node if not node.name.startswith(MODEL)]
    leaving = sorted({name for node in outside for name in node.input} & made & floats)
    _redirect(half.graph, inside, entering, onnx.TensorProto.FLOAT16)
    _redirect(half.graph, outside, leaving, onnx.TensorProto.FLOAT)
    _sort(half.graph)
    onnx.checker.check_model(half, full_check=True)
    return half


def _float_values(graph: onnx.GraphProto) -> Iterator[str]:
    """Names of float32 values that nodes or the caller make."""
    for value in (*graph.value_info, *graph.input, *graph.output):
        if value.type.tensor_type.elem_type == 1:
            yield value.name


def _halve_weights(graph: onnx.GraphProto, inside: Iterable[onnx.NodeProto]) -> None:
    """Add a float16 twin of each float32 weight that `inside` reads, and drop those that nobody reads any more."""
    import onnx
    from onnx import numpy_helper

    weights = {weight.name: weight for weight in graph.initializer if weight.data_type == onnx.TensorProto.FLOAT}
    twins: dict[str, onnx.TensorProto] = {}
    for node in inside:
        for place, name in enumerate(node.input):
            if name in weights:
                values = numpy_helper.to_array(weights[name]).clip(-LARGEST, LARGEST).astype("float16")
                twins.setdefault(name, numpy_helper.from_array(values, f"{name}.fp16"))
                node.input[place] = twins[name].name
    read = set(_read(graph))
    kept = [weight for weight in graph.initializer if weight.name in read]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *twins.values()])


def _read(graph: onnx.GraphProto) -> Iterator[str]:
    """Names of the values that nodes read, those of branches too."""
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            yield from _read(attribute.g)


def _halve_attributes(node: onnx.NodeProto) -> None:
    """Constants that are attributes, and casts to float32, which inside the model mean its own precision."""
    import onnx
    from onnx import numpy_helper

    for attribute in node.attribute:
        if attribute.name == "to" and attribute.i == onnx.TensorProto.FLOAT:
            attribute.i = onnx.TensorProto.FLOAT16
        elif attribute.HasField("t") and attribute.t.data_type == onnx.TensorProto.FLOAT:
            values = numpy_helper.to_array(attribute.t).clip(-LARGEST, LARGEST).astype("float16")
            attribute.t.CopyFrom(numpy_helper.from_array(values, attribute.t.name))


def _redirect(graph: onnx.GraphProto, readers: Iterable[onnx.NodeProto], names: Iterable[str], kind: int) -> None:
    """Let `readers` read each of `names` through a cast to `kind`."""
    import onnx

    cast = {name: f"{name}.{onnx.TensorProto.DataType.Name(kind).lower()}" for name in names}
    for node in readers:
        for place, name in enumerate(node.input):
            node.input[place] = cast.get(name, name)
    for name, other in cast.items():
        graph.node.append(onnx.helper.make_node("Cast", [name], [other], name=f"{MODEL}cast/{other}", to=kind))


def _sort(graph: onnx.GraphProto) -> None:
    """Each node after those whose values it reads, otherwise in the order they had."""
    made_by = {name: node.name for node in graph.node for name in node.output}
    waiting = {node.name: node for node in graph.node}
    done: list[onnx.NodeProto] = []

    def place(name: str) -> None:
        stack = [name]
        while stack:
            node = waiting.get(stack[-1])
            if node is None:
                stack.pop()
                continue
            ahead = [made_by[value] for value in node.input if value in made_by and made_by[value] in waiting]
            if ahead:
                stack.extend(ahead)
            else:
                done.append(waiting.pop(stack.pop()))

    for name in list(waiting):
        place(name)
    del graph.node[:]
    graph.node.extend(done)
