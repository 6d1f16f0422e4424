"""Half precision: the model's alone, without infinities."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from tests.export.models import noise, run_session
from toolkit.api.contracts import DataSpec
from toolkit.export.half import to_fp16
from toolkit.training.network import Network


def test_half_precision_is_the_models_alone(graph: tuple[Network, DataSpec, onnx.ModelProto]) -> None:
    model = graph[2]
    half = to_fp16(model)
    assert half.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert half.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    weights = {weight.name for weight in half.graph.initializer if weight.data_type == onnx.TensorProto.FLOAT16}
    assert len(weights) == 4
    frames = noise(3, 40, 30, 3)
    answers, exact = run_session(half, frames), run_session(model, frames)
    np.testing.assert_allclose(answers, exact, atol=5e-3)
    assert not np.array_equal(answers, exact)


def test_weights_beyond_half_precision_are_clamped(graph: tuple[Network, DataSpec, onnx.ModelProto]) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(graph[2])
    layer = next(node for node in model.graph.node if node.op_type == "Gemm")
    (wide,) = (weight for weight in model.graph.initializer if weight.name == layer.input[1])
    wide.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(wide) * np.float32(1e9), wide.name))
    halved = [weight for weight in to_fp16(model).graph.initializer if weight.name.startswith(wide.name)]
    assert np.isfinite(numpy_helper.to_array(halved[0])).all()
