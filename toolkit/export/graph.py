"""The graph that leaves: raw frames in, probabilities out, with everything between them inside."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from toolkit.api.contracts import DataSpec, Fit
from toolkit.data.geometry import covering
from toolkit.serving.bundle.manifest import INPUT, OUTPUT
from toolkit.training.answers import answers_of
from toolkit.training.network import Network

if TYPE_CHECKING:
    import onnx

BATCH_TRACED = 2
"""Not 1, which would be taken for a constant: SlowFast would not export then, and MViT would refuse a batch of 3."""
SIDES_TRACED = (53, 61)
"""Height and width of the traced input, unlike what the gate tries."""
LARGEST_SIDE = 1 << 15
_SCOPES = "pkg.torch.onnx.name_scopes"


class Prepare(nn.Module):
    """uint8 `[N, H, W, 3]` or `[N, T, H, W, 3]` of any size to what the model sees, float32 `[N, 3, size, size]` or
    `[N, T, 3, size, size]` of whole numbers 0..255: the resampling of `toolkit.data.store.to_square`, frame by frame,
    then the centre crop of evaluation."""

    def __init__(self, square: int, size: int, fit: Fit) -> None:
        super().__init__()
        self.square, self.size, self.fit = square, size, fit

    def forward(self, frames: Tensor) -> Tensor:
        if frames.ndim == 4:
            return self.prepared(frames)
        prepared: Tensor = self.prepared(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        return prepared

    def prepared(self, frames: Tensor) -> Tensor:
        pixels = frames.movedim(-1, -3).float()
        height, width = pixels.shape[-2:]
        stretched = self.square, self.square
        covered = covering(height, width, self.square, smaller=torch.sym_min)
        sides = covered if self.fit == "crop" else stretched
        resized = functional.interpolate(pixels, size=sides, mode="bilinear", antialias=True).round().clamp(0, 255)
        top, left = ((side - self.square) // 2 + (self.square - self.size) // 2 for side in sides)
        seen = resized[..., top : top + self.size, left : left + self.size]
        for side in seen.shape[-2:]:  # which the exporter cannot know of a slice
            torch._check(side == self.size)
        return seen


class Deployed(nn.Module):
    """uint8 frames `[N, H, W, 3]`, or clips `[N, T, H, W, 3]`, to float32 class probabilities `[N, C]`."""

    def __init__(self, network: Network, logits: Callable[[Tensor], Tensor], spec: DataSpec) -> None:
        super().__init__()
        self.prepare = Prepare(spec.stored_size, spec.size, spec.fit)
        self.network = network
        # The objective's method alone: the graph has no other part of the objective.
        self.logits = logits
        self.form = spec.targets

    def forward(self, frames: Tensor) -> Tensor:
        return answers_of(self.logits(self.network(self.prepare(frames))), self.form)


def to_onnx(
    network: Network, logits: Callable[[Tensor], Tensor], spec: DataSpec, metadata: Mapping[str, str]
) -> onnx.ModelProto:
    """The network with its preprocessing as a checked ONNX model, batch, height and width dynamic, the frames of a clip
    fixed, batch norm folded.

    Nodes of the model proper have names that start with `MODEL`; the others prepare the input, turn what the network
    puts out into `logits`, and these into answers.
    """
    import onnx

    deployed = Deployed(network, logits, spec).cpu().eval().to(memory_format=torch.contiguous_format)
    clip = () if spec.frames is None else (spec.frames,)
    side = torch.export.Dim
    dynamic = {
        0: side("N", min=1, max=1 << 16),
        len(clip) + 1: side("H", min=2, max=LARGEST_SIDE),
        len(clip) + 2: side("W", min=2, max=LARGEST_SIDE),
    }
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            deployed,
            (torch.zeros((BATCH_TRACED, *clip, *SIDES_TRACED, 3), dtype=torch.uint8),),
            dynamo=True,
            dynamic_shapes=(dynamic,),
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
    if program is None:
        raise AssertionError("torch.onnx.export gives a program where dynamo=True")
    model: onnx.ModelProto = program.model_proto
    _name_nodes(model)
    _strip(model)
    onnx.helper.set_model_props(model, dict(metadata))
    model.producer_name = "vision-toolkit"
    onnx.checker.check_model(model, full_check=True)
    return model


MODEL = "model/"


def _name_nodes(model: onnx.ModelProto) -> None:
    """Separate the model's own nodes from those around it by the modules they were traced in."""
    for node in model.graph.node:
        scopes = next((prop.value for prop in node.metadata_props if prop.key == _SCOPES), "")
        inside = "'network.model" in scopes
        node.name = f"{MODEL if inside else 'around/'}{node.name}"


def _strip(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes for itself: paths of this machine are among it."""
    graph: Any = model.graph
    for item in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""


def metadata(
    spec: DataSpec, thresholds: Sequence[float] | None, protocol: Mapping[str, Any], digest: str
) -> dict[str, str]:
    """What the model file says of itself, readable without the rest of the bundle. `thresholds`, one a class, are given
    where answers are sets of classes."""
    return {
        "classes": json.dumps(list(spec.classes), ensure_ascii=False),
        **({} if thresholds is None else {"thresholds": json.dumps(list(thresholds))}),
        "protocol": json.dumps(protocol, ensure_ascii=False),
        "recipe_digest": digest,
        "sample": "true" if spec.sample else "false",
    }


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's and the quantiser's warnings, which are about their own insides."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
