"""One factory for each model in `designs.DESIGNS`, made when it is asked for.

`toolkit_video.models:x3d_s` is a function with the arguments of `_factory`'s inner function, `swin3d_t` has those of
`_dropping`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from torch import nn

from toolkit.api.contracts import DataSpec
from toolkit.api.errors import Problem, RecipeError
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
thaw_epoch: the epoch, counted from 0, from which a frozen backbone is trained too; unset: never.
dropout: share of features zeroed before the last layer.
{drop_path}licences: the licences that published weights may have, as model hubs name them; unset: those that permit
    commercial use. Weights with another licence are refused before they are fetched.
"""


_DROP_PATH = """drop_path: greatest probability with which a residual branch is dropped (arXiv 1603.09382); unset: as
    published.
"""


def _factory(name: str) -> Callable[..., nn.Module]:
    def build(
        spec: DataSpec,
        *,
        weights: str = "none",
        freeze: bool = False,
        thaw_epoch: ThawEpoch | None = None,
        dropout: Dropout = 0.5,
        licences: Licences | None = None,
    ) -> nn.Module:
        return _model(name, spec, Transfer(weights, freeze, thaw_epoch, licences), dropout)

    return _named(build, name, "")


def _dropping(name: str) -> Callable[..., nn.Module]:
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

    return _named(build, name, _DROP_PATH)


def _named(build: Callable[..., nn.Module], name: str, drop_path: str) -> Callable[..., nn.Module]:
    design = DESIGNS[name]
    build.__name__ = build.__qualname__ = name
    texts = {"title": design.title, "library": design.library, "drop_path": drop_path}
    build.__doc__ = _DOC.format(**texts, **asdict(design.takes))
    return build


def _model(name: str, spec: DataSpec, transfer: Transfer, dropout: float, drop_path: float | None = None) -> Classifier:
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
    return _dropping(name) if name.startswith(DROPPING) else _factory(name)
