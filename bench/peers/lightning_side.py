"""By the Trainer of Lightning."""

from __future__ import annotations

import lightning
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models import resnet18

from bench.peers.folders import loaders
from bench.peers.setting import DECAY, MOMENTUM, RATE, Setting


class Classifier(lightning.LightningModule):  # type: ignore[misc, unused-ignore]
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.network = resnet18(num_classes=classes)

    def training_step(self, batch: tuple[Tensor, Tensor], number: int) -> Tensor:  # noqa: ARG002 - Lightning's signature
        pixels, targets = batch
        loss = functional.cross_entropy(self.network(pixels), targets)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], number: int) -> None:  # noqa: ARG002 - as above
        pixels, targets = batch
        self.log("accuracy", (self.network(pixels).argmax(1) == targets).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), RATE, MOMENTUM, weight_decay=DECAY)


def main(setting: Setting) -> None:
    train, valid = loaders(setting)
    trainer = lightning.Trainer(max_epochs=setting.epochs, accelerator="cpu", default_root_dir=setting.output)
    trainer.fit(Classifier(len(train.dataset.classes)), train, valid)  # type: ignore[attr-defined]


if __name__ == "__main__":
    main(Setting.given())
