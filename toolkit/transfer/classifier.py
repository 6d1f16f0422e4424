"""A backbone and the head that replaces its last fully connected layer, trained together or the head alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


class Classifier(nn.Module):
    """`[B, 3, H, W]` or `[B, T, 3, H, W]` float -> logits `[B, C]`; the backbone may stay frozen, for good or until
    `thaw_epoch`.

    While frozen the backbone is in eval mode whatever mode the model is in, so its batch-norm statistics keep still,
    and runs without gradients. A backbone that is never to thaw also has `requires_grad` off, which spares the
    optimizer its state.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        *,
        freeze: bool = False,
        thaw_epoch: int | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.notes = tuple(notes)
        self._freeze = freeze
        self._thaw_epoch = thaw_epoch
        if freeze and thaw_epoch is None:
            backbone.requires_grad_(False)
        self.begin_epoch(0)

    def parts(self) -> Mapping[str, nn.Module]:
        return {"backbone": self.backbone, "head": self.head}

    def begin_epoch(self, epoch: int) -> None:
        """Freeze or thaw the backbone for the epoch, counted from 0."""
        self.frozen = self._freeze and (self._thaw_epoch is None or epoch < self._thaw_epoch)
        self.train(self.training)

    def train(self, mode: bool = True) -> Classifier:
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.head(self._features(pixels))
        return logits

    def _features(self, pixels: Tensor) -> Tensor:
        features: Tensor
        if self.frozen and torch.is_grad_enabled():
            with torch.no_grad():
                features = self.backbone(pixels)
        else:
            features = self.backbone(pixels)
        return features


def classification_head(features: int, classes: int, *, hidden: int | None, dropout: float) -> nn.Sequential:
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
