"""The graph that leaves: raw frames in, probabilities or numbers out, with everything between them inside."""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from toolkit.api.contracts import DataSpec, Foldable
from toolkit.export.preparing import OPSET, preparation
from toolkit.serving.bundle.manifest import MAPS, OUTPUTS
from toolkit.serving.bundle.trust import UNTOUCHED, Trust
from toolkit.training.answers import answers_of
from toolkit.training.explain import LinearMap
from toolkit.training.network import Network
from toolkit.transfer.vectors import vectors

if TYPE_CHECKING:
    import onnx

BATCH_TRACED = 2
"""Not 1, which would be taken for a constant: SlowFast would not export then, and MViT would refuse a batch of 3."""
SEEN = "seen"
"""Name of what the network is given: frames that are prepared."""
_SCOPES = "pkg.torch.onnx.name_scopes"


class Deployed(nn.Module):
    """uint8 frames as the model sees them, `[N, 3, size, size]` or clips `[N, T, 3, size, size]`, to float32 answers
    `[N, C]`, what says how far they go, and a heat map of each class, `[N, C, h, w]` or `[N, C, t, h, w]`."""

    def __init__(
        self,
        network: Network,
        logits: Callable[[Tensor], Tensor],
        spec: DataSpec,
        trust: Trust = UNTOUCHED,
        maps: LinearMap | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        # The objective's method alone: the graph has no other part of the objective.
        self.logits = logits
        self.form = spec.targets
        self.trust = trust
        self.maps = maps
        self.frames = spec.frames

    def forward(self, seen: Tensor) -> tuple[Tensor, ...]:
        """The answers, then what `Trust.outputs` names, then the maps."""
        trust = self.trust
        alike = trust.scored == "similarity"
        with _kept(self.network.model, self.maps) as maps:
            features = self.network(seen, features=True) if alike else seen
            logits = self.logits(self.network(features))
        answers = answers_of(logits if trust.temperature == 1 else logits / trust.temperature, self.form)
        found = [answers]
        if trust.reject is not None:
            score = self._similarity(features, seen.shape[0]) if alike else logits.logsumexp(-1)
            compared = trust.reject.compared(answers.amax(-1), score)
            found += [*([score] if trust.scored else ()), compared < trust.reject.threshold]
        if trust.conformal is not None:
            found.append(answers >= trust.conformal.threshold)
        if self.maps is not None:
            found.append(_summed(maps[0], self.maps.weights, self.frames))
        return tuple(found)

    def _similarity(self, features: Tensor, items: int) -> Tensor:
        if self.network.similarity is None:
            raise AssertionError("the network measures no similarity")
        similarity: Tensor = self.network.similarity(vectors(features, items))
        return similarity


@contextmanager
def _kept(model: nn.Module, maps: LinearMap | None) -> Iterator[list[Tensor]]:
    """The feature maps that the maps are made of, once the model has run."""
    features: list[Tensor] = []
    if maps is None:
        yield features
        return

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        outputs = [output] if isinstance(output, Tensor) else output
        features.extend(one for one in outputs if isinstance(one, Tensor) and one.ndim in (4, 5))

    handle = model.get_submodule(maps.layer).register_forward_hook(keep)
    try:
        yield features
    finally:
        handle.remove()


def _summed(features: Tensor, weights: Tensor, frames: int | None) -> Tensor:
    """The maps of all classes: what `explain` shows before it is resized, cut at zero and scaled. Features are
    `[N, K, h, w]`, `[N, K, t, h, w]`, or of the single `frames` of clips `[N * T, K, h, w]`."""
    ones = [1] * (features.ndim - 2)
    convolve = nn.functional.conv2d if features.ndim == 4 else nn.functional.conv3d
    summed: Tensor = convolve(features, weights.view(*weights.shape, *ones))
    if frames is not None and features.ndim == 4:
        summed = summed.unflatten(0, (-1, frames)).movedim(1, 2)
    return summed


def to_onnx(
    network: Network,
    logits: Callable[[Tensor], Tensor],
    spec: DataSpec,
    metadata: Mapping[str, str],
    trust: Trust = UNTOUCHED,
    maps: LinearMap | None = None,
) -> onnx.ModelProto:
    """The network with its preprocessing as a checked ONNX model, batch, height and width dynamic, the frames of a clip
    fixed, batch norm folded; with `maps` it gives these too.

    Nodes of the model proper have names that start with `MODEL`; the others prepare the input, turn what the network
    puts out into `logits`, and these into answers.
    """
    import onnx.compose

    answering = _answering(Deployed(folded(network), logits, spec, trust, maps), spec)
    _name_nodes(answering)
    _strip(answering)
    preparing = preparation(spec.stored_size, spec.size, spec.fit, spec.frames)
    (prepared,) = preparing.graph.output
    model: onnx.ModelProto = onnx.compose.merge_models(
        preparing, answering, io_map=[(prepared.name, SEEN)], name="model"
    )
    del model.opset_import[1:]  # the same of both
    onnx.helper.set_model_props(model, dict(metadata))
    model.producer_name = "vision-toolkit"
    onnx.checker.check_model(model, full_check=True)
    return model


def _answering(deployed: Deployed, spec: DataSpec) -> onnx.ModelProto:
    """What follows the preparation, the batch dynamic."""
    deployed = deployed.cpu().eval().to(memory_format=torch.contiguous_format)
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            deployed,
            (torch.zeros((BATCH_TRACED, *spec.item_shape), dtype=torch.uint8),),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("N", min=1, max=1 << 16)},),
            input_names=[SEEN],
            output_names=[OUTPUTS[spec.targets], *deployed.trust.outputs, *([MAPS] if deployed.maps else [])],
            opset_version=OPSET,
            verbose=False,
        )
    if program is None:
        raise AssertionError("torch.onnx.export gives a program where dynamo=True")
    model: onnx.ModelProto = program.model_proto
    return model


def folded(network: Network) -> Network:
    """The network itself, or a copy with every `Foldable` module folded."""
    if not any(isinstance(module, Foldable) for module in network.modules()):
        return network
    network = copy.deepcopy(network)
    for module in [*network.modules()]:
        if isinstance(module, Foldable):
            module.fold()
    return network


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
    spec: DataSpec,
    thresholds: Sequence[float] | None,
    protocol: Mapping[str, Any],
    digest: str,
    trust: Trust = UNTOUCHED,
) -> dict[str, str]:
    """What the model file says of itself, readable without the rest of the bundle. `thresholds`, one a class, are given
    where answers are sets of classes."""
    chosen = {"reject": trust.reject, "conformal": trust.conformal}
    return {
        "classes": json.dumps(list(spec.classes), ensure_ascii=False),
        **({} if thresholds is None else {"thresholds": json.dumps(list(thresholds))}),
        **({} if trust.temperature == 1 else {"temperature": json.dumps(trust.temperature)}),
        **{name: json.dumps(asdict(one)) for name, one in chosen.items() if one is not None},
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
