"""The graph: it answers frames of any size as the network answers what training stores of them."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from tests.export.models import noise, run_session
from tests.traced import content
from toolkit.api.contracts import DataSpec
from toolkit.data.store.resampling import centre_crop, to_square
from toolkit.export import write as export
from toolkit.training.network import Network

CLOSE = 1e-6
"""Of a probability: two libraries round the sums of a layer otherwise."""


def trained(network: Network, spec: DataSpec, frames: np.ndarray) -> np.ndarray:
    """What the network answers, `[N, C]`, to frames `[..., H, W, 3]` as training stores them."""
    pixels = torch.from_numpy(frames).movedim(-1, -3)
    seen = centre_crop(to_square(pixels, spec.stored_size, spec.fit), spec.size)
    with torch.no_grad():
        answers: np.ndarray = network(seen).softmax(1).numpy()
    return answers


@pytest.mark.parametrize("shape", [(1, 20, 20), (2, 53, 61), (5, 20, 31), (3, 200, 21), (1, 1, 1)])
def test_any_batch_height_and_width_is_answered_as_by_the_network(
    graph: tuple[Network, DataSpec, onnx.ModelProto], shape: tuple[int, int, int]
) -> None:
    network, spec, model = graph
    frames = noise(*shape, 3)
    np.testing.assert_allclose(run_session(model, frames), trained(network, spec, frames), atol=CLOSE)


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
    answered = run_session(model, frames)
    np.testing.assert_allclose(answered, trained(network, spec, frames), atol=CLOSE)
    assert np.ptp(answered, axis=1).min() > 1e-3


def test_only_equal_networks_share_a_trace(graph: tuple[Network, DataSpec, onnx.ModelProto]) -> None:
    """In tests alone: see tests/traced.py."""
    other = copy.deepcopy(graph[0])
    known = content(graph[0])
    assert content(other) == known
    with torch.no_grad():
        next(other.parameters()).view(-1)[0] += 1e-6
    assert content(other) != known
    assert content(copy.deepcopy(graph[0]).train()) != known
