"""One factory for each torchvision classifier in `names.BACKBONES`, made when it is asked for.

`toolkit_vision.backbones:resnet50` has the arguments of `_factory`'s inner function, without `drop_path`: that of
`convnext_tiny` has it, and no `shift`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from toolkit.api.contracts import DataSpec
from toolkit.api.variants import variant
from toolkit.transfer.framewise import Head, HeadLayers, HeadWidth, Layers, Temporal
from toolkit.transfer.licences import Licences
from toolkit.transfer.pretrained import Dropout, DropPath, Hidden, ThawEpoch, Transfer
from toolkit_vision.names import BACKBONES, DROPPING, RESNETS
from toolkit_vision.shift import Shift
from toolkit_vision.torchvision_models import classifier

_DOC = """torchvision's {name} with a new head; of clips it sees each frame on its own.

weights: none; imagenet (torchvision's own, downloaded once and cached); the path of a weights file with the names of
    torchvision, timm or Hugging Face, in which only the last fully connected layer may differ or be absent; or a run
    of this model (runs/RECIPE/TIME), whose head is taken too where the classes are the same; or hub:ORGANISATION/NAME
    of the Hugging Face Hub.
freeze: train the head alone; the backbone stays in eval mode and keeps its batch-norm statistics.
hidden: width of a hidden fully connected layer with batch norm and ReLU in the head; unset: batch norm, dropout and
    one fully connected layer on the features themselves.
"""


def _factory(name: str) -> Callable[..., nn.Module]:
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
        shift: Shift = False,
        licences: Licences | None = None,
    ) -> nn.Module:
        layers = Layers(dropout, hidden, Temporal(head, head_width, head_layers))
        transfer = Transfer(weights, freeze, thaw_epoch, licences)
        return classifier(name, spec, transfer, layers, drop_path=drop_path, shift=shift)

    has = {"drop_path": name.startswith(DROPPING), "shift": name in RESNETS}
    return variant(build, name, _DOC.format(name=name), without=[key for key, there in has.items() if not there])


def __getattr__(name: str) -> Callable[..., nn.Module]:
    if name not in BACKBONES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _factory(name)
