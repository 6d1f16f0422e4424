"""Two torchvision classifiers that also have a form for small images."""

from __future__ import annotations

from typing import Literal, TypeAlias

from torch import nn

from toolkit.api.contracts import DataSpec
from toolkit.transfer.classifier import Classifier
from toolkit.transfer.framewise import Head, HeadLayers, HeadWidth, Layers, Temporal
from toolkit.transfer.licences import Licences
from toolkit.transfer.pretrained import Dropout, Hidden, ThawEpoch, Transfer
from toolkit_vision.torchvision_models import classifier

Form: TypeAlias = Literal["auto", "cifar", "imagenet"]

SMALL = 64
"""Largest image side, in pixels, for which `auto` means `cifar`."""
UNREMARKABLE = 48
"""Largest image side, in pixels, for which nobody wonders at the cost of resnet18's `cifar` stem."""
_COSTLY = (
    "resnet18 keeps the full resolution of {size} px (the small-image stem), which costs 16 times the multiply-adds "
    'of the usual stem; set model.stem = "imagenet" for the usual one, or "cifar" to keep this one without a note'
)


def resnet18(  # noqa: PLR0913 - the keys of a recipe
    spec: DataSpec,
    *,
    stem: Form = "auto",
    weights: str = "none",
    freeze: bool = False,
    thaw_epoch: ThawEpoch | None = None,
    dropout: Dropout = 0.2,
    hidden: Hidden | None = None,
    head: Head = "average",
    head_width: HeadWidth | None = None,
    head_layers: HeadLayers | None = None,
    shift: bool = False,
    licences: Licences | None = None,
) -> Classifier:
    """torchvision's resnet18 with a new head and, for small images, the stem of He et al. (arXiv 1512.03385, 4.2).
    Of clips it sees each frame on its own.

    stem: cifar (3x3 convolution, stride 1, no max-pooling), imagenet (7x7, stride 2, max-pooling), or auto: cifar up
        to 64 px, but imagenet with ImageNet weights. The cifar stem keeps full resolution and so costs 16 times the
        multiply-adds.
    weights: none; imagenet (torchvision's own, downloaded once and cached); the path of a weights file with the names
        of torchvision or Hugging Face, in which only the last layer may differ or be absent; or a run of this model
        (runs/RECIPE/TIME), whose head is taken too where the classes are the same; or hub:ORGANISATION/NAME of the
        Hugging Face Hub.
    freeze: train the head alone; the backbone stays in eval mode and keeps its batch-norm statistics.
    thaw_epoch: the epoch, counted from 0, from which a frozen backbone is trained too; unset: never.
    dropout: share of features zeroed before the last fully connected layer.
    hidden: width of a hidden fully connected layer with batch norm and ReLU in the head; unset: none.
    head: how the frames of a clip become one answer: average (of their logits, TSN, arXiv 1608.00859), lstm or gru
        (mean of its outputs), or attention (transformer encoder with learned positions).
    head_width: channels of lstm, gru or attention (there a multiple of 64); unset: 256.
    head_layers: layers of lstm, gru or attention; unset: 1 of lstm and gru, 2 of attention.
    shift: move an eighth of the channels a frame forward and an eighth a frame back before the first convolution of
        each residual branch (TSM, arXiv 1811.08383).
    licences: the licences that published weights may have, as model hubs name them; unset: those that permit commercial
        use. Weights with another licence are refused before they are fetched.
    """
    if stem == "cifar" and weights == "imagenet":
        raise ValueError('stem: must be "imagenet" with ImageNet weights, which were trained with that stem')
    cifar = weights != "imagenet" and _is_cifar(stem, spec)
    transfer = Transfer(weights, freeze, thaw_epoch, licences)
    layers = Layers(dropout, hidden, Temporal(head, head_width, head_layers))
    alter = _cifar_stem if cifar else None
    notes = (_COSTLY.format(size=spec.size),) if stem == "auto" and cifar and spec.size > UNREMARKABLE else ()
    return classifier("resnet18", spec, transfer, layers, alter=alter, shift=shift, notes=notes)


def vgg16_bn(  # noqa: PLR0913 - the keys of a recipe
    spec: DataSpec,
    *,
    layers: Form = "auto",
    weights: str = "none",
    freeze: bool = False,
    thaw_epoch: ThawEpoch | None = None,
    dropout: Dropout = 0.2,
    hidden: Hidden | None = None,
    head: Head = "average",
    head_width: HeadWidth | None = None,
    head_layers: HeadLayers | None = None,
    licences: Licences | None = None,
) -> Classifier:
    """torchvision's vgg16_bn with a new head and, for small images, without its two layers of 4096 units. Of clips it
    sees each frame on its own.

    layers: the fully connected layers before the head: cifar (none: the head takes the 512 averaged features, 15 M
        parameters), imagenet (two of 4096 units, 134 M parameters), or auto: cifar up to 64 px.
    weights: none; imagenet (torchvision's own, downloaded once and cached); the path of a weights file with the names
        of torchvision or timm, in which only the replaced layers may differ or be absent; or a run of this model
        (runs/RECIPE/TIME), whose head is taken too where the classes are the same; or hub:ORGANISATION/NAME of the
        Hugging Face Hub.
    freeze: train the head alone; the backbone stays in eval mode and keeps its batch-norm statistics.
    thaw_epoch: the epoch, counted from 0, from which a frozen backbone is trained too; unset: never.
    dropout: share of features zeroed before the last fully connected layer.
    hidden: width of a hidden fully connected layer with batch norm and ReLU in the head; unset: none.
    head: how the frames of a clip become one answer: average (of their logits, TSN, arXiv 1608.00859), lstm or gru
        (mean of its outputs), or attention (transformer encoder with learned positions).
    head_width: channels of lstm, gru or attention (there a multiple of 64); unset: 256.
    head_layers: layers of lstm, gru or attention; unset: 1 of lstm and gru, 2 of attention.
    licences: the licences that published weights may have, as model hubs name them; unset: those that permit commercial
        use. Weights with another licence are refused before they are fetched.
    """
    transfer = Transfer(weights, freeze, thaw_epoch, licences)
    ours = Layers(dropout, hidden, Temporal(head, head_width, head_layers))
    alter = _averaged_features if _is_cifar(layers, spec) else None
    return classifier("vgg16_bn", spec, transfer, ours, alter=alter)


def _is_cifar(form: Form, spec: DataSpec) -> bool:
    return form == "cifar" or (form == "auto" and spec.size <= SMALL)


def _cifar_stem(resnet: nn.Module) -> None:
    stem = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    resnet.set_submodule("conv1", stem)
    resnet.set_submodule("maxpool", nn.Identity())


def _averaged_features(vgg: nn.Module) -> None:
    vgg.set_submodule("avgpool", nn.AdaptiveAvgPool2d(1))
    vgg.set_submodule("classifier", nn.Linear(512, 1))  # placeholder for the head
