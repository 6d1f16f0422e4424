"""A small convolutional network for small images: convolution, max-pooling, fully connected."""

from __future__ import annotations

from functools import partial
from typing import Annotated, TypeAlias

from pydantic import Field
from torch import Tensor, nn

from toolkit.api.contracts import DataSpec
from toolkit.transfer.classifier import Classifier
from toolkit.transfer.framewise import Head, HeadLayers, HeadWidth, Temporal, framewise
from toolkit.transfer.pretrained import ThawEpoch, Transfer

Widths: TypeAlias = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]


def cnn(  # noqa: PLR0913 - the keys of a recipe
    spec: DataSpec,
    *,
    widths: Widths = (32, 96, 256),
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    logit_scale: Annotated[float, Field(gt=0)] = 0.125,
    weights: str = "none",
    freeze: bool = False,
    thaw_epoch: ThawEpoch | None = None,
    head: Head = "average",
    head_width: HeadWidth | None = None,
    head_layers: HeadLayers | None = None,
) -> Classifier:
    """A CNN in the manner of the CIFAR-10 speed records (K. Jordan, arXiv 2404.00498): 0.9 M parameters by
    default, 39 M multiply-adds at 32 px.

    Each group is convolution, max-pooling, batch norm, GELU, convolution, batch norm, GELU, and halves the side. The
    largest value of each channel then goes to one fully connected layer. Of clips it sees each frame on its own.

    widths: channels of each group; there may be as many groups as the image can be halved.
    dropout: share of features zeroed before the fully connected layer.
    logit_scale: factor on the logits; a small one keeps the first steps of a fast schedule calm.
    weights: none; or a run of this model (runs/RECIPE/TIME), whose head is taken too where the classes are the same; or
        the path of a weights file with the names of its groups.
    freeze: train the head alone; the groups stay in eval mode and keep their batch-norm statistics.
    thaw_epoch: the epoch, counted from 0, from which frozen groups are trained too; unset: never.
    """
    if spec.size >> len(widths) == 0:
        raise ValueError(f"widths: at most {spec.size.bit_length() - 1} groups for {spec.size} px, got {len(widths)}")
    start = Transfer(weights, freeze, thaw_epoch).start(None, spec, "cnn")
    channels = [3, *widths]
    groups = nn.Sequential(*map(_group, channels, widths), Largest())
    start.load(groups, ignore=("head.",))
    classify = partial(_fully_connected, classes=len(spec.classes), dropout=dropout)
    answers = Temporal(head, head_width, head_layers).over_frames(spec.frames, widths[-1], classify)
    return start.classifier(framewise(groups, spec.frames), Scaled(answers, logit_scale))


class Largest(nn.Module):
    """The largest value of each channel: `[B, C, H, W]` -> `[B, C]`."""

    def forward(self, features: Tensor) -> Tensor:
        # Not amax: its gradient looks for values that equal the largest, and a compiled step in bf16 finds none. Not
        # adaptive_max_pool2d: its gradient has no deterministic form on a GPU.
        return features.flatten(2).max(dim=2).values


class Scaled(nn.Module):
    """What `head` answers, times `scale`."""

    def __init__(self, head: nn.Module, scale: float) -> None:
        super().__init__()
        self.head, self.scale = head, scale

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(features) * self.scale
        return logits


def _fully_connected(features: int, *, classes: int, dropout: float) -> nn.Module:
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(features, classes, bias=False))


def _group(inputs: int, outputs: int) -> nn.Sequential:
    """Pooling before the first norm and activation: both then see a quarter of the values."""
    return nn.Sequential(
        _convolution(inputs, outputs),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(outputs),
        nn.GELU(),
        _convolution(outputs, outputs),
        nn.BatchNorm2d(outputs),
        nn.GELU(),
    )


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """3x3; the first filters start as the identity, so that the input reaches every group from the first step."""
    layer = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)
    nn.init.dirac_(layer.weight.data[: min(inputs, outputs)])
    return layer
