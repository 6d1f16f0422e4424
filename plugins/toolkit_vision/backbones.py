"""One factory for each torchvision classifier in `names.BACKBONES`, made when it is asked for.

`toolkit_vision.backbones:resnet50` is a function with the arguments of `_factory`'s inner function.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from toolkit.contracts import DataSpec
from toolkit_vision.names import BACKBONES
from toolkit_vision.transfer import Dropout, Hidden, ThawEpoch, Transfer, classifier

_DOC = """torchvision's {name} with a new head.

weights: none; imagenet (torchvision's own, downloaded once and cached); or the path of a .safetensors, .pt or .pth
    file with the names torchvision gives, in which only the last fully connected layer may differ or be absent.
freeze: train the head alone; the backbone stays in eval mode and keeps its batch-norm statistics.
thaw_epoch: the epoch, counted from 0, from which a frozen backbone is trained too; unset: never.
dropout: share of features zeroed before the last fully connected layer.
hidden: width of a hidden fully connected layer with batch norm and ReLU in the head; unset: batch norm, dropout and
    one fully connected layer on the features themselves.
"""


def _factory(name: str) -> Callable[..., nn.Module]:
    def build(
        spec: DataSpec,
        *,
        weights: str = "none",
        freeze: bool = False,
        thaw_epoch: ThawEpoch | None = None,
        dropout: Dropout = 0.2,
        hidden: Hidden | None = None,
    ) -> nn.Module:
        return classifier(name, spec, Transfer(weights, freeze, thaw_epoch, dropout, hidden))

    build.__name__ = build.__qualname__ = name
    build.__doc__ = _DOC.format(name=name)
    return build


def __getattr__(name: str) -> Callable[..., nn.Module]:
    if name not in BACKBONES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _factory(name)
