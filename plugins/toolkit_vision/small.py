"""Two torchvision classifiers that also have a form for small images."""

from __future__ import annotations

from typing import Literal, TypeAlias

from torch import nn

from toolkit.contracts import DataSpec
from toolkit_vision.classifier import Classifier
from toolkit_vision.transfer import Dropout, Hidden, ThawEpoch, Transfer, classifier

Form: TypeAlias = Literal["auto", "cifar", "imagenet"]

SMALL = 64
"""Largest image side, in pixels, for which `auto` means `cifar`."""


def resnet18(
    spec: DataSpec,
    *,
    stem: Form = "auto",
    weights: str = "none",
    freeze: bool = False,
    thaw_epoch: ThawEpoch | None = None,
    dropout: Dropout = 0.2,
    hidden: Hidden | None = None,
) -> Classifier:
    """torchvision's resnet18 with a new head and, for small images, the stem of He et al. (arXiv 1512.03385, 4.2).

    stem: cifar (3x3 convolution, stride 1, no max-pooling), imagenet (7x7, stride 2, max-pooling), or auto: cifar up
        to 64 px. The cifar stem keeps full resolution and so costs 16 times the multiply-adds.
    weights: none; imagenet (torchvision's own, downloaded once and cached); or the path of a .safetensors, .pt or
        .pth file with the names torchvision gives, in which only the last layer may differ or be absent.
    freeze: train the head alone; the backbone stays in eval mode and keeps its batch-norm statistics.
    thaw_epoch: the epoch, counted from 0, from which a frozen backbone is trained too; unset: never.
    dropout: share of features zeroed before the last fully connected layer.
    hidden: width of a hidden fully connected layer with batch norm and ReLU in the head; unset: none.
    """
    cifar = _is_cifar(stem, spec)
    if cifar and weights == "imagenet":
        raise ValueError('stem: must be "imagenet" with ImageNet weights, which were trained with that stem')
    transfer = Transfer(weights, freeze, thaw_epoch, dropout, hidden)
    return classifier("resnet18", spec, transfer, alter=_cifar_stem if cifar else None)


def vgg16_bn(
    spec: DataSpec,
    *,
    layers: Form = "auto",
    weights: str = "none",
    freeze: bool = False,
    thaw_epoch: ThawEpoch | None = None,
    dropout: Dropout = 0.2,
    hidden: Hidden | None = None,
) -> Classifier:
    """torchvision's vgg16_bn with a new head and, for small images, without its two layers of 4096 units.

    layers: the fully connected layers before the head: cifar (none: the head takes the 512 averaged features, 15 M
        parameters), imagenet (two of 4096 units, 134 M parameters), or auto: cifar up to 64 px.
    weights: none; imagenet (torchvision's own, downloaded once and cached); or the path of a .safetensors, .pt or
        .pth file with the names torchvision gives, in which only the replaced layers may differ or be absent.
    freeze: train the head alone; the backbone stays in eval mode and keeps its batch-norm statistics.
    thaw_epoch: the epoch, counted from 0, from which a frozen backbone is trained too; unset: never.
    dropout: share of features zeroed before the last fully connected layer.
    hidden: width of a hidden fully connected layer with batch norm and ReLU in the head; unset: none.
    """
    transfer = Transfer(weights, freeze, thaw_epoch, dropout, hidden)
    return classifier("vgg16_bn", spec, transfer, alter=_averaged_features if _is_cifar(layers, spec) else None)


def _is_cifar(form: Form, spec: DataSpec) -> bool:
    return form == "cifar" or (form == "auto" and spec.size <= SMALL)


def _cifar_stem(resnet: nn.Module) -> None:
    stem = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    resnet.set_submodule("conv1", stem)
    resnet.set_submodule("maxpool", nn.Identity())


def _averaged_features(vgg: nn.Module) -> None:
    vgg.set_submodule("avgpool", nn.AdaptiveAvgPool2d(1))
    vgg.set_submodule("classifier", nn.Linear(512, 1))  # stands where the head will
