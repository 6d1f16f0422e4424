"""One factory for each model in `designs.DESIGNS`, made when it is asked for.

`toolkit_video.models:swin3d_t` is a function with the arguments of `_factory`'s inner function; `x3d_s` has no
`drop_path`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from torch import nn

from toolkit.api.contracts import DataSpec
from toolkit.api.errors import Problem, RecipeError
from toolkit.api.variants import variant
from toolkit.transfer.classifier import Classifier, fitting
from toolkit.transfer.drop_path import set_drop_path
from toolkit.transfer.licences import Licences
from toolkit.transfer.pretrained import Dropout, DropPath, ThawEpoch, Transfer
from toolkit.transfer.weights import Known, Positions
from toolkit_video.designs import DESIGNS, TORCHVISION, Wanted
from toolkit_video.kinetics import kinetics400
from toolkit_video.parts import Network

DROPPING = ("mvit_v", "swin3d")
"""Beginnings of the names of models whose residual branches are dropped in training (stochastic depth)."""
OF_MVIT = Known(
    positions=(
        Positions(r"pos_encoding\.spatial_pos|pos_embed_spatial"),
        Positions(r"pos_encoding\.temporal_pos|pos_embed_temporal|rel_pos_[hwt]", "line"),
    )
)

_DOC = """{title}, of {library}; {frames} x {rate} frames of {size} px unless the recipe says otherwise.

weights: none; kinetics400 (those that {library} publishes, downloaded once and cached); the path of a
    weights file with the names {library} gives, in which only the last layer may differ; a run of this model
    (runs/RECIPE/TIME), whose last layer is taken too where the classes are the same; or hub:ORGANISATION/NAME of the
    Hugging Face Hub.
freeze: train the last layer alone; the backbone stays in eval mode and keeps its batch-norm statistics.
dropout: share of features zeroed before the last layer.
"""


def _factory(name: str) -> Callable[..., nn.Module]:
    def build(
        spec: DataSpec,
        *,
        weights: str = "none",
        freeze: bool = False,
        thaw_epoch: ThawEpoch | None = None,
        dropout: Dropout = 0.5,
        drop_path: DropPath | None = None,
        licences: Licences | None = None,
    ) -> nn.Module:
        return _model(name, spec, Transfer(weights, freeze, thaw_epoch, licences), dropout, drop_path)

    design = DESIGNS[name]
    doc = _DOC.format(title=design.title, library=design.library, **asdict(design.takes))
    return variant(build, name, doc, without=[] if name.startswith(DROPPING) else ["drop_path"])


def _model(name: str, spec: DataSpec, transfer: Transfer, dropout: float, drop_path: float | None) -> Classifier:
    """The named model with a new last layer; see the factories' own text for the arguments.

    Raises:
        RecipeError: the data are images, or the model cannot take clips of this length or size.
        WeightsError: the weights cannot be downloaded or read, or do not fit.
    """
    wanted = _checked(name, spec)
    start = transfer.start(kinetics400(DESIGNS[name]), spec, name, OF_MVIT)

    with fitting(spec, name):
        network = _builder(name)(wanted)
    if drop_path is not None:
        set_drop_path(network.whole, drop_path, name)
    start.load(network.whole, ignore=(f"{network.last_name}.",))
    return start.classifier(network.features, nn.Sequential(nn.Dropout(dropout), network.last))


def _builder(name: str) -> Callable[[Wanted], Network]:
    """Imports its library alone: PyTorchVideo takes seconds, and torchvision's models go on without it."""
    if name in TORCHVISION:
        from toolkit_video.torchvision_networks import BUILDERS
    else:
        from toolkit_video.networks import BUILDERS
    return BUILDERS[name]


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


def __getattr__(name: str) -> Callable[..., nn.Module]:
    if name not in DESIGNS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _factory(name)
