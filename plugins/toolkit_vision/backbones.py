"""One factory for each torchvision classifier in `names.BACKBONES`, made when it is asked for.

`toolkit_vision.backbones:resnet50` is a function with the arguments of `_resnet`'s inner function, `convnext_tiny` has
those of `_dropping`'s, others have those of `_factory`'s.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from toolkit.api.contracts import DataSpec
from toolkit.transfer.framewise import Head, HeadLayers, HeadWidth, Layers, Temporal
from toolkit.transfer.licences import Licences
from toolkit.transfer.pretrained import Dropout, DropPath, Hidden, ThawEpoch, Transfer
from toolkit_vision.names import BACKBONES, DROPPING, RESNETS
from toolkit_vision.torchvision_models import classifier

_DOC = """torchvision's {name} with a new head; of clips it sees each frame on its own.

weights: none; imagenet (torchvision's own, downloaded once and cached); the path of a weights file with the names of
    torchvision, timm or Hugging Face, in which only the last fully connected layer may differ or be absent; or a run
    of this model (runs/RECIPE/TIME), whose head is taken too where the classes are the same; or hub:ORGANISATION/NAME
    of the Hugging Face Hub.
freeze: train the head alone; the backbone stays in eval mode and keeps its batch-norm statistics.
thaw_epoch: the epoch, counted from 0, from which a frozen backbone is trained too; unset: never.
dropout: share of features zeroed before the last fully connected layer.
hidden: width of a hidden fully connected layer with batch norm and ReLU in the head; unset: batch norm, dropout and
    one fully connected layer on the features themselves.
head: how the frames of a clip become one answer: average (of their logits, TSN, arXiv 1608.00859), lstm or gru (mean
    of its outputs), or attention (transformer encoder with learned positions).
head_width: channels of lstm, gru or attention (there a multiple of 64); unset: 256.
head_layers: layers of lstm, gru or attention; unset: 1 of lstm and gru, 2 of attention.
licences: the licences that published weights may have, as model hubs name them; unset: those that permit commercial
    use. Weights with another licence are refused before they are fetched.
"""

_DROP_PATH = """drop_path: greatest probability with which a residual branch is dropped (arXiv 1603.09382); unset: as
    published.
"""

_SHIFT = """shift: move an eighth of the channels a frame forward and an eighth a frame back before the first
    convolution of each residual branch (TSM, arXiv 1811.08383).
"""


def _factory(name: str) -> Callable[..., nn.Module]:
    def build(  # noqa: PLR0913 - the keys of a recipe
        spec: DataSpec,
        *,
        weights: str = "none",
        freeze: bool = False,
        thaw_epoch: ThawEpoch | None = None,
        dropout: Dropout = 0.2,
        hidden: Hidden | None = None,
        head: Head = "average",
        head_width: HeadWidth | None = None,
        head_layers: HeadLayers | None = None,
        licences: Licences | None = None,
    ) -> nn.Module:
        layers = Layers(dropout, hidden, Temporal(head, head_width, head_layers))
        return classifier(name, spec, Transfer(weights, freeze, thaw_epoch, licences), layers)

    return _named(build, name, _DOC)


def _dropping(name: str) -> Callable[..., nn.Module]:
    def build(  # noqa: PLR0913 - the keys of a recipe
        spec: DataSpec,
        *,
        weights: str = "none",
        freeze: bool = False,
        thaw_epoch: ThawEpoch | None = None,
        dropout: Dropout = 0.2,
        drop_path: DropPath | None = None,
        hidden: Hidden | None = None,
        head: Head = "average",
        head_width: HeadWidth | None = None,
        head_layers: HeadLayers | None = None,
        licences: Licences | None = None,
    ) -> nn.Module:
        layers = Layers(dropout, hidden, Temporal(head, head_width, head_layers))
        transfer = Transfer(weights, freeze, thaw_epoch, licences)
        return classifier(name, spec, transfer, layers, drop_path=drop_path)

    return _named(build, name, _DOC + _DROP_PATH)


def _resnet(name: str) -> Callable[..., nn.Module]:
    def build(  # noqa: PLR0913 - the keys of a recipe
        spec: DataSpec,
        *,
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
    ) -> nn.Module:
        layers = Layers(dropout, hidden, Temporal(head, head_width, head_layers))
        return classifier(name, spec, Transfer(weights, freeze, thaw_epoch, licences), layers, shift=shift)

    return _named(build, name, _DOC + _SHIFT)


def _named(build: Callable[..., nn.Module], name: str, doc: str) -> Callable[..., nn.Module]:
    build.__name__ = build.__qualname__ = name
    build.__doc__ = doc.format(name=name)
    return build


def __getattr__(name: str) -> Callable[..., nn.Module]:
    if name not in BACKBONES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in RESNETS:
        return _resnet(name)
    return _dropping(name) if name.startswith(DROPPING) else _factory(name)
