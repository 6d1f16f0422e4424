"""One factory for each model in `names.MODELS`, made when it is asked for.

`toolkit_video.models:x3d_s` is a function with the arguments of `_factory`'s inner function and, as its attribute
`takes`, what the model was designed for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from torch import nn

from toolkit.api.contracts import DataSpec, Takes
from toolkit.api.errors import Problem, RecipeError
from toolkit.transfer.classifier import Classifier
from toolkit.transfer.pretrained import Dropout, ThawEpoch, Transfer
from toolkit_video.kinetics import kinetics400
from toolkit_video.wanted import Wanted

if TYPE_CHECKING:
    from toolkit_video.networks import Network

_DOC = """{title}, of PyTorchVideo; {frames} x {rate} frames of {size} px unless the recipe says otherwise.

weights: none; kinetics400 (those of PyTorchVideo's model zoo, downloaded once and cached); or the path of a
    .pyth, .safetensors, .pt or .pth file with the names PyTorchVideo gives, in which only the last layer may differ.
freeze: train the last layer alone; the backbone stays in eval mode and keeps its batch-norm statistics.
thaw_epoch: the epoch, counted from 0, from which a frozen backbone is trained too; unset: never.
dropout: share of features zeroed before the last layer.
"""


@dataclass(frozen=True)
class Design:
    """A model as it was published."""

    title: str
    takes: Takes
    file_name: str
    """Of its weights in PyTorchVideo's model zoo."""
    frames_in: int = 1
    """The number of frames must be a multiple of this."""
    size_in: int = 1
    """The side in pixels must be a multiple of this."""


def _takes(frames: int, rate: int, size: int, stored: int) -> Takes:
    return Takes(frames, rate, size, stored, mean=(0.45, 0.45, 0.45), std=(0.225, 0.225, 0.225))


DESIGNS = {
    "csn_r101": Design("CSN R101 (arXiv 1904.02811)", _takes(32, 2, 224, 256), "CSN_32x2_R101.pyth"),
    "mvit_b": Design(
        "MViT-B 16x4 (arXiv 2104.11227)", _takes(16, 4, 224, 256), "MVIT_B_16x4.pyth", frames_in=2, size_in=4
    ),
    "r2plus1d_r50": Design("R(2+1)D R50 (arXiv 1711.11248)", _takes(16, 4, 224, 256), "R2PLUS1D_16x4_R50.pyth"),
    "slow_r50": Design("Slow R50 (arXiv 1812.03982)", _takes(8, 8, 224, 256), "SLOW_8x8_R50.pyth"),
    "slowfast_r50": Design(
        "SlowFast R50 (arXiv 1812.03982)", _takes(32, 2, 224, 256), "SLOWFAST_8x8_R50.pyth", frames_in=4
    ),
    "x3d_l": Design("X3D-L (arXiv 2004.04730)", _takes(16, 5, 312, 356), "X3D_L.pyth"),
    "x3d_m": Design("X3D-M (arXiv 2004.04730)", _takes(16, 5, 224, 256), "X3D_M.pyth"),
    "x3d_s": Design("X3D-S (arXiv 2004.04730)", _takes(13, 6, 160, 182), "X3D_S.pyth"),
    "x3d_xs": Design("X3D-XS (arXiv 2004.04730)", _takes(4, 12, 160, 182), "X3D_XS.pyth"),
}


def _factory(name: str) -> Callable[..., nn.Module]:
    design = DESIGNS[name]

    def build(
        spec: DataSpec,
        *,
        weights: str = "none",
        freeze: bool = False,
        thaw_epoch: ThawEpoch | None = None,
        dropout: Dropout = 0.5,
    ) -> nn.Module:
        return _model(name, spec, Transfer(weights, freeze, thaw_epoch), dropout)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = _DOC.format(title=design.title, **asdict(design.takes))
    build.takes = design.takes  # type: ignore[attr-defined]
    return build


def _model(name: str, spec: DataSpec, transfer: Transfer, dropout: float) -> Classifier:
    """The named model with a new last layer; see the factories' own text for the arguments.

    Raises:
        RecipeError: the data are images, or the model cannot take clips of this length or size.
        WeightsError: the weights cannot be downloaded or read, or do not fit.
    """
    wanted = _checked(name, spec)
    start = transfer.start(kinetics400(DESIGNS[name].file_name), spec, name)
    network = _network(name, wanted)
    start.load(network.whole, ignore=(f"{network.last_name}.",))
    return start.classifier(network.features, nn.Sequential(nn.Dropout(dropout), network.last))


def _checked(name: str, spec: DataSpec) -> Wanted:
    """What the network is to be built for, if there is such a network."""
    design, takes, source = DESIGNS[name], DESIGNS[name].takes, f"model {name}"
    if spec.frames is None:
        message = (
            f"{name} takes clips: add a [clip] table (published with frames = {takes.frames}, rate = {takes.rate})"
        )
        next_step = f"--set clip.frames={takes.frames} --set clip.rate={takes.rate}"
        raise RecipeError(source, [Problem("clip", message)], next_step=next_step)
    limits = (
        ("clip.frames", "frames", spec.frames, design.frames_in, takes.frames),
        ("input.size", "px", spec.size, design.size_in, takes.size),
    )
    for key, unit, given, multiple, usual in limits:
        if given % multiple:
            message = f"{name} takes a multiple of {multiple} {unit}, got {given}"
            raise RecipeError(source, [Problem(key, message)], next_step=f"--set {key}={usual}")
    return Wanted(len(spec.classes), spec.frames, spec.size)


def _network(name: str, wanted: Wanted) -> Network:
    """Build it; PyTorchVideo takes seconds to import, so that happens here."""
    from toolkit_video.networks import BUILDERS

    return BUILDERS[name](wanted)


def __getattr__(name: str) -> Callable[..., nn.Module]:
    if name not in DESIGNS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _factory(name)
