"""The graph: it prepares and answers frames as training and the network do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from tests.export.models import noise, run_session
from toolkit.api.contracts import DataSpec
from toolkit.data.store.resampling import centre_crop, to_square
from toolkit.export import write as export
from toolkit.export.graph import Prepare
from toolkit.training.network import Network


@pytest.mark.parametrize("fit", ["crop", "stretch"])
@pytest.mark.parametrize(("height", "width"), [(183, 275), (40, 31), (24, 24), (7, 90), (333, 24)])
def test_the_graph_resamples_as_training_does(fit: Any, height: int, width: int) -> None:
    frames = torch.from_numpy(noise(3, height, width, 3))
    trained = centre_crop(to_square(frames.movedim(-1, -3), 24, fit), 20).float()
    difference = (Prepare(24, 20, fit)(frames) - trained).abs()
    assert difference.max() <= 1  # training's uint8 kernel computes in fixed point
    assert difference.mean() < 0.3


@pytest.mark.parametrize("shape", [(1, 20, 20), (2, 53, 61), (5, 20, 31), (3, 200, 21)])
def test_any_batch_height_and_width_is_answered_as_by_the_network(
    graph: tuple[Network, DataSpec, onnx.ModelProto], shape: tuple[int, int, int]
) -> None:
    network, spec, model = graph
    frames = noise(*shape, 3)
    with torch.no_grad():
        seen = Prepare(spec.stored_size, spec.size, spec.fit)(torch.from_numpy(frames))
        trained = network(seen).softmax(1).numpy()
    np.testing.assert_allclose(run_session(model, frames), trained, atol=1e-4)  # a pixel may round the other way


def test_batch_norm_is_folded_and_the_machine_is_not_recorded(graph: tuple[Network, DataSpec, onnx.ModelProto]) -> None:
    model = graph[2]
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert str(Path(export.__file__).parents[2]).encode() not in model.SerializeToString()
    assert {prop.key: prop.value for prop in model.metadata_props} == {"classes": "[]"}


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize(("height", "width"), [(20, 20), (53, 61), (20, 47), (200, 21)])
def test_clips_of_any_batch_height_and_width_are_answered_as_by_the_network(
    clip_graph: tuple[Network, DataSpec, onnx.ModelProto], batch: int, height: int, width: int
) -> None:
    network, spec, model = clip_graph
    frames = noise(batch, 4, height, width, 3)
    with torch.no_grad():
        seen = Prepare(spec.stored_size, spec.size, spec.fit)(torch.from_numpy(frames))
        trained = network(seen).softmax(1).numpy()
    assert seen.shape == (batch, 4, 3, 16, 16)
    answered = run_session(model, frames)
    np.testing.assert_allclose(answered, trained, atol=1e-4)
    assert np.ptp(answered, axis=1).min() > 1e-3


def test_a_clip_is_prepared_as_its_frames_are() -> None:
    frames = torch.from_numpy(noise(2, 3, 41, 30, 3))
    prepare = Prepare(24, 20, "crop")
    assert torch.equal(prepare(frames), torch.stack([prepare(clip) for clip in frames]))
