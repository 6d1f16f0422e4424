"""What stands in front of the network in a graph: the squares of training, to the bit, whatever the size."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto

from toolkit.api.contracts import Fit
from toolkit.data.store.resampling import centre_crop, to_square
from toolkit.export.preparing import preparation
from toolkit.serving.bundle.inspection import inspect_model
from toolkit.serving.bundle.session import session_options

GRAPHS = int(os.environ.get("TOOLKIT_GRAPHS", "8"))
"""Graphs to try, each with several images. The variable sets a larger number, 400 for example."""
FITS = get_args(Fit)


def session(model: onnx.ModelProto, fixed: int | None = None) -> onnxruntime.InferenceSession:
    options = session_options("cpu", 1 << 24, fixed)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def prepared(model: onnx.ModelProto, frames: np.ndarray) -> np.ndarray:
    found: np.ndarray = session(model).run(None, {"frames": frames})[0]
    return found


def stored(frames: np.ndarray, square: int, size: int, fit: Fit) -> np.ndarray:
    pixels = torch.from_numpy(frames).movedim(-1, -3)
    seen: np.ndarray = centre_crop(to_square(pixels, square, fit), size).numpy()
    return seen


def images(rng: np.random.Generator, square: int) -> Iterator[np.ndarray]:
    """Of noise, and of black and white, where sums are largest: of random sizes, and with sides that stay."""
    for number in range(5):
        height, width = (int(side) for side in np.exp(rng.uniform(0, np.log(1000), 2)))
        sides = [(height, width), (height, width), (square, width), (height, square), (square, square)][number]
        frames = rng.integers(0, 256, (1 + number % 2, *sides, 3), dtype=np.uint8)
        yield (frames // 128) * 255 if number % 2 else frames


@pytest.mark.parametrize("number", range(GRAPHS))
def test_any_size_becomes_what_training_stores(number: int) -> None:
    rng = np.random.default_rng(number)
    square = int(rng.integers(1, 300))
    size, fit = int(rng.integers(1, square + 1)), FITS[number % 2]
    opened = session(preparation(square, size, fit, None))
    for frames in images(rng, square):
        (found,) = opened.run(None, {"frames": frames})
        np.testing.assert_array_equal(found, stored(frames, square, size, fit), f"{frames.shape} to {square}, {size}")


@pytest.mark.parametrize("fit", FITS)
def test_a_clip_is_prepared_as_its_frames_are(fit: Fit) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 41, 30, 3), dtype=np.uint8)
    found = prepared(preparation(24, 20, fit, 3), frames)
    np.testing.assert_array_equal(found, stored(frames, 24, 20, fit))


@pytest.mark.parametrize("clip", [None, 2])
def test_a_session_of_squares_resamples_nothing(clip: int | None, tmp_path: Path) -> None:
    """So that all of a model can be in a CUDA graph."""
    model = preparation(24, 20, "crop", clip)
    options = session_options("cpu", 1 << 24, 24)
    options.optimized_model_filepath = str(tmp_path / "folded.onnx")
    opened = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    folded = onnx.load(tmp_path / "folded.onnx")
    assert {node.op_type for node in folded.graph.node} <= {"Reshape", "Slice", "Transpose"}
    frames = np.random.default_rng(0).integers(0, 256, (3, *([clip] if clip else []), 24, 24, 3), dtype=np.uint8)
    np.testing.assert_array_equal(opened.run(None, {"frames": frames})[0], stored(frames, 24, 20, "crop"))


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("clip", [None, 2])
def test_a_bundle_may_hold_it(fit: Fit, clip: int | None, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(preparation(256, 224, fit, clip), path)
    (port,) = inspect_model(path).inputs
    frames = ("N", *([clip] if clip else []), "H", "W", 3)
    assert port == ("frames", TensorProto.UINT8, frames)
