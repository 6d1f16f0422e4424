"""A backbone and the head that replaces its last fully connected layer, trained together or the head alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from toolkit.api.contracts import DataSpec, Provenance
from toolkit.api.errors import Problem, RecipeError
from toolkit.api.memory import lacks_memory
from toolkit.transfer.layers import layers_of, own_undecayed


class Classifier(nn.Module):
    """`[B, 3, H, W]` or `[B, T, 3, H, W]` float -> logits `[B, C]`; the backbone may be frozen, always or until
    `thaw_epoch`.

    A frozen backbone is in eval mode whatever mode the model is in, so its batch-norm statistics do not change, and it
    runs without gradients. A backbone that is always frozen also has `requires_grad` off, so the optimizer keeps no
    state for it.

    backbone: items -> features
    head: features -> logits `[B, C]`
    notes: what a user must know about this model
    provenance: of the published weights that the backbone started from; None without any
    layers: prefixes of the names of the backbone's parameters, layer by layer from the input on; what no prefix names
        is part of the head. Unset: those that `layers_of` finds.
    undecayed: names of the backbone's parameters that should not decay, besides norms and biases
    """

    provenance: Provenance | None = None
    zero_shot: bool = False
    """Whether the head knows classes by their names before any training."""

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        *,
        freeze: bool = False,
        thaw_epoch: int | None = None,
        notes: Sequence[str] = (),
        layers: Sequence[Sequence[str]] | None = None,
        undecayed: Iterable[str] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.notes = tuple(notes)
        self._layers = layers_of(backbone) if layers is None else layers
        self._undecayed = own_undecayed(backbone) if undecayed is None else frozenset(undecayed)
        self._freeze = freeze
        self._thaw_epoch = thaw_epoch
        if freeze and thaw_epoch is None:
            backbone.requires_grad_(False)
        self.begin_epoch(0)

    def parts(self) -> Mapping[str, nn.Module]:
        """`backbone` and `head`, whose learning rates a recipe may scale separately."""
        return {"backbone": self.backbone, "head": self.head}

    def layers(self) -> Sequence[Sequence[str]]:
        """The backbone's layers, from the input on."""
        return [[f"backbone.{prefix}" for prefix in layer] for layer in self._layers]

    def no_weight_decay(self) -> Collection[str]:
        """The backbone's parameters that should not decay, besides norms and biases."""
        return {f"backbone.{name}" for name in self._undecayed}

    def begin_epoch(self, epoch: int) -> None:
        """Freeze or thaw the backbone for the epoch, counted from 0."""
        self.frozen = self._freeze and (self._thaw_epoch is None or epoch < self._thaw_epoch)
        self.train(self.training)

    def train(self, mode: bool = True) -> Classifier:
        """Set the mode, as for any module, but a frozen backbone stays in eval mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def features(self, pixels: Tensor) -> Tensor:
        """What the backbone gives for normalised images or clips; without gradients where it is frozen."""
        features: Tensor
        if self.frozen and torch.is_grad_enabled():
            with torch.no_grad():
                features = self.backbone(pixels)
        else:
            features = self.backbone(pixels)
        return features

    def answer(self, features: Tensor) -> Tensor:
        """Logits `[B, C]` of the backbone's features."""
        logits: Tensor = self.head(features)
        return logits

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits `[B, C]` of normalised images or clips."""
        return self.answer(self.features(pixels))


def classification_head(
    features: int, classes: int, *, hidden: int | None = None, dropout: float = 0.0
) -> nn.Sequential:
    """Fully connected + batch norm + dropout: `[B, features]` -> logits `[B, classes]`.

    With `hidden`: fully connected, batch norm, ReLU, dropout, fully connected. Without: batch norm, dropout, fully
    connected; standardised features make this a well-conditioned linear probe of a frozen backbone.
    """
    if hidden is None:
        return nn.Sequential(nn.BatchNorm1d(features), nn.Dropout(dropout), nn.Linear(features, classes))
    return nn.Sequential(
        nn.Linear(features, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, classes),
    )


@contextmanager
def fitting(spec: DataSpec, name: str) -> Iterator[None]:
    """Report an exception in the block as a fault of the recipe: the model `name` cannot take items of this size.

    Each architecture has its own limits, and libraries document few of them. The block builds a model for the spec, or
    passes it an item. AssertionError, RuntimeError and ValueError become RecipeError.
    """
    try:
        yield
    except (AssertionError, RuntimeError, ValueError) as error:
        if lacks_memory(error):
            raise
        items = f"clips of {spec.frames} frames of" if spec.frames else "images of"
        reason = (str(error) or type(error).__name__).splitlines()[0]
        problem = Problem("input.size", f"{name} cannot take {items} {spec.size} px ({reason})")
        raise RecipeError(f"model {name}", [problem], next_step="--set input.size=224") from error


def count_features(backbone: nn.Module, spec: DataSpec, name: str, *, tokens: bool = False) -> int:
    """The number of features F that `backbone` gives for an item, `[1, 3, H, W]` or `[1, T, 3, H, W]` -> `[1, F]`, or
    with `tokens` -> `[1, N, F]`.

    Passes it one grey item in eval mode, and leaves it in training mode.

    Raises:
        RecipeError: the model `name` cannot take items of this size, or its backbone does not give a vector.
    """
    clip = () if spec.frames is None else (spec.frames,)
    backbone.eval()
    with fitting(spec, name), torch.no_grad():
        features = backbone(torch.zeros(1, *clip, 3, spec.size, spec.size))
    backbone.train()
    if not isinstance(features, Tensor) or features.ndim != (3 if tokens else 2):
        raise RecipeError(f"model {name}", [Problem("model", f"{name} gives no vector of features for an item")])
    return features.shape[-1]
