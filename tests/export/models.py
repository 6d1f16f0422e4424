"""Frames and videos, exported models that answer them, and models that were tampered with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper


def run_session(model: onnx.ModelProto | Path, frames: np.ndarray) -> np.ndarray:
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    answers: np.ndarray = session.run(["probabilities"], {"frames": frames})[0]
    return answers


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def tampered(model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> onnx.ModelProto:
    (weight,) = (weight for weight in model.graph.initializer if weight.name == name)
    weight.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(weight)).astype(np.float32), name))
    return model


def first_weight(model: onnx.ModelProto) -> str:
    convolution = next(node for node in model.graph.node if node.op_type == "Conv")
    return str(convolution.input[1])


def other_mean(model: onnx.ModelProto) -> onnx.ModelProto:
    shift = next(weight for weight in model.graph.initializer if weight.name.endswith("normalize.shift"))
    return tampered(model, shift.name, lambda values: values + 0.5)


WHOLE, SQUARES = ("1", "logits"), ("3", "probabilities")


class Videos:
    """A split of videos in memory: video n has `lengths[n]` frames of `sizes[n]`, frame f is all 10 n + f."""

    def __init__(self, lengths: Sequence[int], sizes: Sequence[tuple[int, int]]) -> None:
        self.lengths, self.sizes = lengths, sizes
        self.ids = self.keys = [str(number) for number in range(len(lengths))]
        self.targets = [0] * len(lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def times(self, index: int) -> list[float]:
        return [frame / 10 for frame in range(self.lengths[index])]

    def read(self, index: int, frames: Sequence[int]) -> Iterator[torch.Tensor]:
        for frame in frames:
            yield torch.full((3, *self.sizes[index]), 30 * index + 3 * frame, dtype=torch.uint8)
