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

from toolkit.contracts import DataSpec
from toolkit.errors import Problem, RecipeError, WeightsError, nearest
from toolkit.weights import load_weights, read_weights
from toolkit_vision.classifier import Classifier, classification_head
from toolkit_vision.imagenet import UnreachableError, imagenet_weights

ThawEpoch: TypeAlias = Annotated[int, Field(ge=1)]
Dropout: TypeAlias = Annotated[float, Field(ge=0, lt=1)]
Hidden: TypeAlias = Annotated[int, Field(ge=1)]

TIMEOUT = 10.0
SAMPLE_TIMEOUT = 3.0
"""Seconds to wait for the server: a run on the sample goes on without the weights, so it does not wait for long."""


@dataclass(frozen=True)
class Transfer:
    """The arguments all torchvision classifiers share."""

    weights: str
    freeze: bool
    thaw_epoch: int | None
    dropout: float
    hidden: int | None

    def __post_init__(self) -> None:
        if self.thaw_epoch is not None and not self.freeze:
            raise ValueError("thaw_epoch: needs freeze = true")


def classifier(
    name: str, spec: DataSpec, transfer: Transfer, *, alter: Callable[[nn.Module], None] | None = None
) -> Classifier:
    """Build torchvision's model `name`, load its weights and put a head in the place of its last layer.

    alter: changes the fresh model before weights are loaded (another stem, say).

    Raises:
        RecipeError: the model cannot take images of the size the recipe asks for.
        WeightsError: the weights cannot be had, read or fitted.
    """
    weights = _asked_for(name, spec, transfer.weights)
    backbone: nn.Module = torchvision.models.get_model(name, weights=None)
    if alter:
        alter(backbone)
    layer = _last_linear(backbone)
    features = _detach(backbone, layer)
    _check_size(backbone, name, spec.size)
    if weights is None:
        start_as_identity(backbone)
    else:
        load_weights(backbone, _modern_names(weights), ignore=(f"{layer}.",), source=_source(name, transfer.weights))
    head = classification_head(features, len(spec.classes), hidden=transfer.hidden, dropout=transfer.dropout)
    unobtained = transfer.weights == "imagenet" and weights is None
    return Classifier(
        backbone,
        head,
        freeze=transfer.freeze and not unobtained,
        thaw_epoch=transfer.thaw_epoch,
        notes=_notes(transfer, unobtained=unobtained),
    )


def start_as_identity(backbone: nn.Module) -> None:
    """Let every residual branch of a ResNet begin at zero, so that the untrained network is a shallow one, which
    learns from the first steps (arXiv 1706.02677, section 5.1)."""
    for module in backbone.modules():
        if isinstance(module, torchvision.models.resnet.Bottleneck):
            nn.init.zeros_(module.bn3.weight)
        elif isinstance(module, torchvision.models.resnet.BasicBlock):
            nn.init.zeros_(module.bn2.weight)


def _asked_for(name: str, spec: DataSpec, weights: str) -> dict[str, Tensor] | None:
    if weights == "none":
        return None
    if weights != "imagenet":
        return _read(weights)
    try:
        return imagenet_weights(name, timeout=SAMPLE_TIMEOUT if spec.sample else TIMEOUT)
    except UnreachableError:
        if not spec.sample:
            raise
        return None


def _read(weights: str) -> dict[str, Tensor]:
    path = Path(weights).expanduser()
    meant = nearest(weights, ("none", "imagenet"))
    if meant and not path.exists():
        raise WeightsError(f"{weights}: no such weights file", next_step=f'did you mean weights = "{meant}"?')
    return read_weights(path)


def _source(name: str, weights: str) -> str:
    return f"ImageNet weights of {name}" if weights == "imagenet" else f"{weights} for {name}"


def _notes(transfer: Transfer, *, unobtained: bool) -> tuple[str, ...]:
    if unobtained:
        kept = "; the backbone is not frozen" if transfer.freeze else ""
        return (f"ImageNet weights could not be downloaded: starting from random weights (sample run){kept}",)
    if transfer.freeze and transfer.weights == "none":
        return ('the backbone is frozen at random weights: set model.weights = "imagenet" or a path',)
    return ()


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
