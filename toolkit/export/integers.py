"""A model's nodes in 8-bit integers."""

from __future__ import annotations

import copy
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import chain, count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from toolkit.api.errors import DataError
from toolkit.api.files import naming
from toolkit.export.graph import MODEL, quiet
from toolkit.serving.bundle.manifest import INPUT

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
QUANTISED = (*LAYERS, "Add", "AveragePool", "Clip", "GlobalAveragePool", "MaxPool", "Relu")
"""Operations that compute in integers, or vanish into the range of what is before them. A Concat would force one scale
on inputs of unlike ranges and gain nothing."""
GATED = ("Mul", "Sigmoid")
"""What SiLU and squeeze-and-excitation are made of. In integers they are faster, and less exact."""

if TYPE_CHECKING:
    import numpy as np
    import onnx


def to_int8(model: onnx.ModelProto, calibration: Iterable[np.ndarray]) -> onnx.ModelProto:
    """Static quantisation between QuantizeLinear and DequantizeLinear nodes: uint8 activations, int8 weights with a
    scale for each channel.

    calibration: batches of training items as the graph sees them, uint8 `[B, S, S, 3]` or `[B, T, S, S, 3]`; one whose
        items were all skipped is ignored

    Raises DataError where every batch is.

    Convolutions over time gain as others do, grouped ones too: left in float, those of an X3D-S would cost almost all
    of what the others gain, since every second layer is one."""
    return ranged(model, calibration).quantised()


@dataclass(frozen=True)
class Ranged:
    """A model of which the ranges of all values are known: calibrated once, and quantised as often as asked."""

    model: onnx.ModelProto
    ranges: Any
    kept: frozenset[str]
    """Names of the nodes that stay float in any case."""

    @property
    def layers(self) -> list[str]:
        """Names of the nodes with weights that can be in integers, in the order of the graph."""
        return [node.name for node in self.model.graph.node if node.op_type in LAYERS and node.name not in self.kept]

    def parts(self, most: int) -> list[Part]:
        """The nodes that can be in integers, cut before layers into at most so many parts of about as many layers."""
        layers = self.layers
        count = min(most, len(layers))
        cuts = {layers[part * len(layers) // count] for part in range(count)} if count else set()
        parts: list[Part] = []
        for node in self.model.graph.node:
            if node.name in cuts:
                parts.append(Part([], []))
            if parts and node.name not in self.kept:
                parts[-1].nodes.append(node.name)
                if node.op_type in LAYERS:
                    parts[-1].layers.append(layer_title(node))
        return parts

    def quantised(self, floats: Collection[str] = (), *, kinds: Sequence[str] = QUANTISED) -> onnx.ModelProto:
        """The model in integers, but for the nodes named by `floats` and operations of other `kinds`."""
        from onnxruntime.quantization import QDQQuantizer, QuantType

        model = copy.deepcopy(self.model)
        with quiet():
            quantiser = QDQQuantizer(
                model,
                per_channel=True,
                reduce_range=False,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QUInt8,
                tensors_range=self.ranges,
                nodes_to_quantize=[],
                nodes_to_exclude=sorted({*self.kept, *floats}),
                op_types_to_quantize=list(kinds),
                extra_options={},
            )
            quantiser.quantize_model()
        made: onnx.ModelProto = quantiser.model.model
        _sort(made.graph)
        return made


class Part(NamedTuple):
    """Nodes that follow one another."""

    nodes: list[str]
    layers: list[str]
    """Titles of those with weights."""


def layer_title(node: onnx.NodeProto) -> str:
    """The name of a layer as the network has it, or of its node where its weight has none."""
    weight = node.input[1] if len(node.input) > 1 else ""
    inside, _, _ = weight.removeprefix(f"{_NETWORK}.").rpartition(".")
    return inside if weight.startswith(f"{_NETWORK}.") and inside else node.name.removeprefix(MODEL)


_NETWORK = "network.model"
"""Where the exporter's names of weights begin."""


def ranged(model: onnx.ModelProto, calibration: Iterable[np.ndarray], *, kinds: Sequence[str] = QUANTISED) -> Ranged:
    """Ask a model about the batches of `calibration`, as `to_int8` does, for the ranges that operations of `kinds` have
    there."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, create_calibrator
    from onnxruntime.quantization.shape_inference import quant_pre_process

    batches = _with_items(calibration)
    with tempfile.TemporaryDirectory() as folder, naming(Path(tempfile.gettempdir())), quiet():
        plain, prepared, augmented = (Path(folder) / f"{name}.onnx" for name in ("plain", "prepared", "augmented"))
        onnx.save(model, plain)
        quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
        loaded = onnx.load(prepared)
        nodes = loaded.graph.node
        first = _until_second_layer(nodes)
        early = {node.name for node in first if node.op_type not in GATED}
        kept = early | {node.name for node in nodes if not node.name.startswith(MODEL)}
        _pool_before_relu(loaded.graph, first)
        _pool_globally(loaded.graph)
        onnx.save(loaded, prepared)
        calibrator = create_calibrator(
            prepared,
            list(kinds),
            augmented_model_path=str(augmented),
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"moving_average": True},  # one extreme item must not stretch a range
        )
        calibrator.collect_data(_Batches(batches))
        return Ranged(loaded, calibrator.compute_data(), frozenset(kept))


def _sort(graph: onnx.GraphProto) -> None:
    """Put each node behind those that make what it reads. The quantiser sorts nodes too, but does not look into the
    branches of an If."""
    nodes = list(graph.node)
    maker = {name: place for place, node in enumerate(nodes) for name in node.output}
    needed = {place: {maker[name] for name in _reads(node) if name in maker} for place, node in enumerate(nodes)}
    ordered = [nodes[place] for place in TopologicalSorter(needed).static_order()]
    del graph.node[:]
    graph.node.extend(ordered)


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """The names that a node reads, those in its branches too."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _reads(inner)
        yield from (output.name for output in attribute.g.output)


def _until_second_layer(nodes: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes before the second layer, which stay float: on real images the first layer's rounding alone cost
    DenseNet-121 most of its flips, and what pools its output is faster in float than in integers."""
    layers = count()
    return list(takewhile(lambda node: node.op_type not in LAYERS or next(layers) < 1, nodes))


def _pool_before_relu(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Exchanges a Relu of `nodes` with the MaxPool that alone reads it, which changes no answer.

    onnxruntime moves a QuantizeLinear before a MaxPool but not before a Relu. Pooling the first layer's output as
    uint8 on a CPU takes over ten times as long as in float, a sixth of all the time of a ResNet-50."""
    read = Counter(
        chain((name for node in graph.node for name in node.input), (output.name for output in graph.output))
    )
    relus = {node.output[0]: node for node in nodes if node.op_type == "Relu"}
    for pool in nodes:
        relu = relus.get(pool.input[0]) if pool.op_type == "MaxPool" else None
        if relu is not None and read[pool.input[0]] == 1 and len(pool.output) == 1:
            _exchange(graph, relu, pool)


def _pool_globally(graph: onnx.GraphProto) -> None:
    """Turn each ReduceMean over all places of feature maps, as the exporter writes a pooling to one place, into what
    it is, since a GlobalAveragePool computes in integers and a ReduceMean would need all its input in float."""
    from onnx import numpy_helper

    constants = {weight.name: weight for weight in graph.initializer}
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in graph.value_info}
    for node in graph.node:
        rank = ranks.get(node.input[0], 0) if node.op_type == "ReduceMean" and len(node.input) > 1 else 0
        if rank < 3 or node.input[1] not in constants or not node.name.startswith(MODEL):
            continue
        axes = {int(axis) % rank for axis in numpy_helper.to_array(constants[node.input[1]]).flatten()}
        keeps = next((one.i for one in node.attribute if one.name == "keepdims"), 1)
        if axes == {*range(2, rank)} and keeps:
            del node.input[1]
            del node.attribute[:]
            node.op_type = "GlobalAveragePool"
    read = {name for node in graph.node for name in _reads(node)}
    for weight in [weight for weight in graph.initializer if weight.name not in read]:
        graph.initializer.remove(weight)


def _exchange(graph: onnx.GraphProto, earlier: onnx.NodeProto, later: onnx.NodeProto) -> None:
    """Each of two nodes, of which the second alone reads the first, takes the other's place in the graph."""
    source, between, target = earlier.input[0], earlier.output[0], later.output[0]
    held = type(earlier)()
    held.CopyFrom(earlier)
    earlier.CopyFrom(later)
    later.CopyFrom(held)
    earlier.input[0], earlier.output[0] = source, between
    later.input[0], later.output[0] = between, target
    outdated = [info for info in graph.value_info if info.name == between]  # the shape of what is between them
    for info in outdated:
        graph.value_info.remove(info)


def _with_items(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The batches that are not empty: one that is has ranges too, which would be averaged with those of the others."""
    found = (batch for batch in batches if len(batch))
    first = next(found, None)
    if first is None:
        raise DataError(
            "int8 has no ranges of values: every training item for calibration was skipped",
            next_step="repair the data, or take more items with: --set export.calibration=NUMBER",
        )
    return chain([first], found)


class _Batches:
    """Hands batches to the quantiser, in the shape it asks for."""

    def __init__(self, batches: Iterator[np.ndarray]) -> None:
        self._batches = batches

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}
