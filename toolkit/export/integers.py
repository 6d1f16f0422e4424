"""A model's nodes in 8-bit integers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.export.graph import INPUT, MODEL, quiet

QUANTISED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "MaxPool", "AveragePool", "GlobalAveragePool")
"""Operations that compute in integers. A Concat would force one scale on inputs of unlike ranges and gain nothing."""

if TYPE_CHECKING:
    import numpy as np
    import onnx


def to_int8(model: onnx.ModelProto, calibration: Iterable[np.ndarray]) -> onnx.ModelProto:
    """Static quantisation between QuantizeLinear and DequantizeLinear nodes: uint8 activations, int8 weights with a
    scale for each channel. `calibration` gives batches of uint8 frames, training items as the graph sees them."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, quiet():
        plain, prepared, quantised = (Path(folder) / f"{name}.onnx" for name in ("plain", "prepared", "int8"))
        onnx.save(model, plain)
        quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
        nodes = onnx.load(prepared).graph.node
        # the first layer stays float: on real images its rounding alone cost DenseNet-121 three times the flips
        first = next(node.name for node in nodes if node.op_type in ("Conv", "Gemm", "MatMul"))
        kept = [first, *(node.name for node in nodes if not node.name.startswith(MODEL))]
        quantize_static(
            str(prepared),
            str(quantised),
            _Reader(calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            op_types_to_quantize=list(QUANTISED),
            nodes_to_exclude=kept,
            extra_options={"CalibMovingAverage": True},  # one extreme item must not stretch a range
        )
        return onnx.load(quantised)


class _Reader:
    """Hands batches to the quantiser, in the shape it asks for."""

    def __init__(self, batches: Iterable[np.ndarray]) -> None:
        self._batches: Iterator[np.ndarray] = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}
