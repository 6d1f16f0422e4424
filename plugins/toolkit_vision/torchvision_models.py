"""From a torchvision classifier to a `Classifier`: take its weights, replace its last fully connected layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torchvision
from torch import nn

from toolkit.api.contracts import DataSpec
from toolkit.transfer.classifier import Classifier, count_features, fitting
from toolkit.transfer.drop_path import set_drop_path
from toolkit.transfer.framewise import Layers, framewise
from toolkit.transfer.pretrained import Transfer
from toolkit_vision.imagenet import imagenet
from toolkit_vision.shift import shift_in_time
from toolkit_vision.spellings import known_for


def classifier(
    name: str,
    spec: DataSpec,
    transfer: Transfer,
    layers: Layers,
    *,
    alter: Callable[[nn.Module], None] | None = None,
    drop_path: float | None = None,
    shift: bool = False,
    notes: Sequence[str] = (),
) -> Classifier:
    """Build torchvision's model `name`, load its weights and replace its last layer by a head.

    alter: changes the fresh model before weights are loaded (another stem, say).
    drop_path: greatest probability with which a residual branch is dropped; None: as published.
    shift: let the branches of a ResNet see their neighbours in time.
    notes: what a user must know of the model.

    Raises:
        RecipeError: the model cannot take images of the size the recipe asks for.
        WeightsError: the weights cannot be downloaded or read, or do not fit.
        ValueError: what is asked for needs clips, and these are images.
    """
    layers.temporal.check(spec.frames)
    if shift and spec.frames is None:
        raise ValueError("shift: needs clips, and these are images: add a [clip] table")
    start = transfer.start(imagenet(name), spec, name, known_for(name, remove_last_linear))
    with fitting(spec, name):
        backbone: nn.Module = torchvision.models.get_model(name, weights=None, **_sized(name, spec.size))
    if alter:
        alter(backbone)
    if drop_path is not None:
        set_drop_path(backbone, drop_path, name)
    layer = remove_last_linear(backbone)
    features = count_features(backbone, replace(spec, clip=None), name)
    if start.weights is None:
        start_as_identity(backbone)
    start.load(backbone, ignore=(f"{layer}.",))
    if shift and spec.frames:
        shift_in_time(backbone, spec.frames)
    return start.classifier(framewise(backbone, spec.frames), layers.head(spec, features), notes=notes)


def _sized(name: str, size: int) -> dict[str, Any]:
    """What torchvision needs to build a model for images of this size."""
    if name.startswith("vit_"):
        return {"image_size": size}
    return {"input_size": (size, size)} if name.startswith("maxvit") else {}


def start_as_identity(backbone: nn.Module) -> None:
    """Let every residual branch of a ResNet begin at zero, so that the untrained network is a shallow one, which
    learns from the first steps (arXiv 1706.02677, section 5.1)."""
    for module in backbone.modules():
        if isinstance(module, torchvision.models.resnet.Bottleneck):
            nn.init.zeros_(module.bn3.weight)
        elif isinstance(module, torchvision.models.resnet.BasicBlock):
            nn.init.zeros_(module.bn2.weight)


def remove_last_linear(backbone: nn.Module) -> str:
    """Replace the last fully connected layer, and a dropout right before it, by nothing; its name."""
    layer: str = [name for name, module in backbone.named_modules() if isinstance(module, nn.Linear)][-1]
    backbone.set_submodule(layer, nn.Identity())
    parent = backbone.get_submodule(layer.rpartition(".")[0])
    if isinstance(parent, nn.Sequential) and len(parent) > 1 and isinstance(parent[-2], nn.Dropout):
        parent[-2] = nn.Identity()
    return layer
