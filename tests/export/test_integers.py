"""Integers: where their ranges come from, which layers have them, and how near they answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.export.models import noise, run_session
from toolkit.api.contracts import DataSpec
from toolkit.api.errors import DataError
from toolkit.export.half import to_fp16
from toolkit.export.integers import to_int8
from toolkit.training.network import Network


def test_batches_whose_items_were_all_skipped_do_not_change_the_ranges(
    graph: tuple[Network, DataSpec, onnx.ModelProto],
) -> None:
    model, frames = graph[2], noise(4, 20, 20, 3)
    nothing = frames[:0]
    wanted = to_int8(model, [frames[:2], frames[2:]])
    found = to_int8(model, iter([nothing, frames[:2], nothing, frames[2:], nothing]))
    assert found.SerializeToString() == wanted.SerializeToString()


def test_onnxruntime_pools_the_first_layer_in_float(
    graph: tuple[Network, DataSpec, onnx.ModelProto], tmp_path: Path
) -> None:
    model, frames = graph[2], noise(4, 20, 20, 3)
    integers = to_int8(model, iter([frames]))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "run.onnx")
    onnxruntime.InferenceSession(integers.SerializeToString(), options, providers=["CPUExecutionProvider"])
    run = [node.op_type for node in onnx.load(tmp_path / "run.onnx").graph.node]
    assert run.index("MaxPool") < run.index("QuantizeLinear")
    onnx.checker.check_model(integers, full_check=True)
    np.testing.assert_allclose(run_session(integers, frames), run_session(model, frames), atol=0.05)


def test_integers_need_an_item_to_take_ranges_from(graph: tuple[Network, DataSpec, onnx.ModelProto]) -> None:
    with pytest.raises(DataError, match="int8 has no ranges of values: every training item") as caught:
        to_int8(graph[2], iter([noise(0, 20, 20, 3)] * 2))
    assert "--set export.calibration=NUMBER" in (caught.value.next_step or "")


@pytest.mark.slow
def test_integers_are_uint8_activations_and_int8_weights_a_channel(bundle: Path) -> None:
    model = onnx.load(bundle / "model.int8.onnx")
    kinds = {weight.name: weight.data_type for weight in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    made_by = {name: node for node in model.graph.node for name in node.output}
    assert convolutions[0].input[1] in kinds  # the first layer stays float
    for node in convolutions[1:]:
        activation, weight = (made_by[name] for name in node.input[:2])
        assert activation.op_type == weight.op_type == "DequantizeLinear"
        assert kinds[activation.input[2]] == onnx.TensorProto.UINT8
        assert kinds[weight.input[0]] == onnx.TensorProto.INT8
    assert len(convolutions) > 3


def test_a_model_of_clips_in_half_precision_and_in_integers(
    clip_graph: tuple[Network, DataSpec, onnx.ModelProto],
) -> None:
    model, frames = clip_graph[2], noise(3, 4, 20, 20, 3)
    exact = run_session(model, frames)
    np.testing.assert_allclose(run_session(to_fp16(model), frames), exact, atol=5e-3)
    integers = to_int8(model, iter([frames]))
    made_by = {name: node for node in integers.graph.node for name in node.output}
    convolutions = [node for node in integers.graph.node if node.op_type == "Conv"]
    assert [made_by[node.input[0]].op_type == "DequantizeLinear" for node in convolutions] == [False, True, True]
    np.testing.assert_allclose(run_session(integers, frames), exact, atol=0.05)
