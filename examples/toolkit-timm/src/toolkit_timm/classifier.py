"""A backbone and a head, trained together or the head alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn


class Classifier(nn.Module):
    """float `[B, 3, H, W]` -> logits `[B, C]`."""

    def __init__(self, backbone: nn.Module, head: nn.Module, *, frozen: bool, notes: Sequence[str]) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.notes = tuple(notes)
        """What a user must know of this model."""
        self._frozen = frozen
        backbone.requires_grad_(not frozen)
        self.train()

    def parts(self) -> Mapping[str, nn.Module]:
        """What a recipe may give learning rates of its own."""
        return {"backbone": self.backbone, "head": self.head}

    def train(self, mode: bool = True) -> Classifier:
        """As of any module, but a frozen backbone stays in eval mode."""
        super().train(mode)
        if self._frozen:
            self.backbone.eval()
        return self

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits of normalised images."""
        logits: Tensor = self.head(self.backbone(pixels))
        return logits
