"""From a torchvision classifier to a `Classifier`: take its weights, replace its last fully connected layer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias, cast

import torch
import torchvision
from pydantic import Field
from torch import Tensor, nn

from toolkit.api.contracts import DataSpec
from toolkit.api.errors import Problem, RecipeError, WeightsError, nearest
from toolkit.transfer.classifier import Classifier, classification_head
from toolkit.transfer.published import Published, UnreachableError, Weights, published_weights
from toolkit.transfer.weights import load_weights, read_weights
from toolkit_vision.framewise import Temporal, framewise
from toolkit_vision.imagenet import imagenet
from toolkit_vision.shift import shift_in_time

ThawEpoch: TypeAlias = Annotated[int, Field(ge=1)]
Dropout: TypeAlias = Annotated[float, Field(ge=0, lt=1)]
Hidden: TypeAlias = Annotated[int, Field(ge=1)]

TIMEOUT = 10.0
SAMPLE_TIMEOUT = 3.0
"""Seconds to wait for the server: a run on the sample goes on without the weights, so it does not wait for long."""


@dataclass(frozen=True)
class Transfer:
    """The arguments that say where a backbone's weights come from and whether they are trained."""

    weights: str
    freeze: bool
    thaw_epoch: int | None

    def __post_init__(self) -> None:
        if self.thaw_epoch is not None and not self.freeze:
            raise ValueError("thaw_epoch: needs freeze = true")

    def initial_weights(self, published: Published, spec: DataSpec) -> Weights | None:
        """The weights asked for: none, the published ones, or those of a file; None also where a run on the sample
        could not download them.

        Raises:
            WeightsError: they cannot be had or read.
        """
        if self.weights == "none":
            return None
        if self.weights != published.word:
            return self._from_file(published)
        try:
            return published_weights(published, timeout=SAMPLE_TIMEOUT if spec.sample else TIMEOUT)
        except UnreachableError:
            if not spec.sample:
                raise
            return None

    def source(self, published: Published, name: str) -> str:
        """Where the weights of the model `name` come from, for messages."""
        return f"{published.title} of {name}" if self.weights == published.word else f"{self.weights} for {name}"

    def classifier(
        self, backbone: nn.Module, head: nn.Module, published: Published, weights: Weights | None
    ) -> Classifier:
        """The two parts as one model, frozen as asked for unless the weights to freeze could not be downloaded."""
        unobtained = self.weights == published.word and weights is None
        freeze = self.freeze and not unobtained
        notes = self._notes(published, unobtained=unobtained)
        return Classifier(backbone, head, freeze=freeze, thaw_epoch=self.thaw_epoch, notes=notes)

    def _from_file(self, published: Published) -> Weights:
        path = Path(self.weights).expanduser()
        meant = nearest(self.weights, ("none", published.word))
        if meant and not path.exists():
            raise WeightsError(f"{self.weights}: no such weights file", next_step=f'did you mean weights = "{meant}"?')
        return read_weights(path)

    def _notes(self, published: Published, *, unobtained: bool) -> tuple[str, ...]:
        if unobtained:
            kept = "; the backbone is not frozen" if self.freeze else ""
            return (f"{published.title} could not be downloaded: starting from random weights (sample run){kept}",)
        if self.freeze and self.weights == "none":
            return (f'the backbone is frozen at random weights: set model.weights = "{published.word}" or a path',)
        return ()


@dataclass(frozen=True)
class Layers:
    """The arguments that say what stands in the place of a classifier's last layer."""

    dropout: float
    hidden: int | None
    temporal: Temporal

    def head(self, spec: DataSpec, features: int) -> nn.Module:
        """From a backbone's features of images or frames to logits `[B, C]`."""

        def classify(features: int) -> nn.Module:
            return classification_head(features, len(spec.classes), hidden=self.hidden, dropout=self.dropout)

        return self.temporal.over_frames(spec.frames, features, classify)


def classifier(
    name: str,
    spec: DataSpec,
    transfer: Transfer,
    layers: Layers,
    *,
    alter: Callable[[nn.Module], None] | None = None,
    shift: bool = False,
) -> Classifier:
    """Build torchvision's model `name`, load its weights and put a head in the place of its last layer.

    alter: changes the fresh model before weights are loaded (another stem, say).
    shift: let the branches of a ResNet see their neighbours in time.

    Raises:
        RecipeError: the model cannot take images of the size the recipe asks for.
        WeightsError: the weights cannot be had, read or fitted.
        ValueError: what is asked for needs clips, and these are images.
    """
    layers.temporal.check(spec.frames)
    if shift and spec.frames is None:
        raise ValueError("shift: needs clips, and these are images: add a [clip] table")
    published = imagenet(name)
    weights = transfer.initial_weights(published, spec)
    backbone: nn.Module = torchvision.models.get_model(name, weights=None)
    if alter:
        alter(backbone)
    layer = _last_linear(backbone)
    features = _detach(backbone, layer)
    _check_size(backbone, name, spec.size)
    if weights is None:
        start_as_identity(backbone)
    else:
        source = transfer.source(published, name)
        load_weights(backbone, _modern_names(weights), ignore=(f"{layer}.",), source=source)
    if shift and spec.frames:
        shift_in_time(backbone, spec.frames)
    head = layers.head(spec, features)
    return transfer.classifier(framewise(backbone, spec.frames), head, published, weights)


def start_as_identity(backbone: nn.Module) -> None:
    """Let every residual branch of a ResNet begin at zero, so that the untrained network is a shallow one, which
    learns from the first steps (arXiv 1706.02677, section 5.1)."""
    for module in backbone.modules():
        if isinstance(module, torchvision.models.resnet.Bottleneck):
            nn.init.zeros_(module.bn3.weight)
        elif isinstance(module, torchvision.models.resnet.BasicBlock):
            nn.init.zeros_(module.bn2.weight)


def _last_linear(backbone: nn.Module) -> str:
    linears: list[str] = [name for name, module in backbone.named_modules() if isinstance(module, nn.Linear)]
    return linears[-1]


def _detach(backbone: nn.Module, layer: str) -> int:
    """Replace the layer, and a dropout right before it, by nothing; the number of features that come out now."""
    last = cast("nn.Linear", backbone.get_submodule(layer))
    backbone.set_submodule(layer, nn.Identity())
    parent = backbone.get_submodule(layer.rpartition(".")[0])
    if isinstance(parent, nn.Sequential) and len(parent) > 1 and isinstance(parent[-2], nn.Dropout):
        parent[-2] = nn.Identity()
    return last.in_features


def _check_size(backbone: nn.Module, name: str, size: int) -> None:
    """Show the model one grey image: each architecture has limits of its own, and torchvision states few of them."""
    backbone.eval()
    try:
        with torch.no_grad():
            backbone(torch.zeros(1, 3, size, size))
    except (RuntimeError, AssertionError, ValueError) as error:
        problem = Problem("input.size", f"{name} cannot take images of {size} px ({_first_line(error)})")
        raise RecipeError(f"model {name}", [problem], next_step="--set input.size=224") from error
    backbone.train()


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _modern_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """DenseNet files of 2017, torchvision's own among them, write `norm.1` and `conv.2` for `norm1` and `conv2`."""
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d\.)", r"\1\2", name): value for name, value in weights.items()}
