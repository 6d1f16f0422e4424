"""By a loop of one's own, with Accelerate."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch.nn import functional
from torchvision.models import resnet18

from bench.peers.folders import loaders
from bench.peers.setting import DECAY, MOMENTUM, RATE, Setting


def main(setting: Setting) -> None:
    accelerator = Accelerator(cpu=True)
    train, valid = loaders(setting)
    network = resnet18(num_classes=len(train.dataset.classes))  # type: ignore[attr-defined]
    optimizer = torch.optim.SGD(network.parameters(), RATE, MOMENTUM, weight_decay=DECAY)
    network, optimizer, train, valid = accelerator.prepare(network, optimizer, train, valid)
    for epoch in range(setting.epochs):
        network.train()
        for pixels, targets in train:
            optimizer.zero_grad()
            accelerator.backward(functional.cross_entropy(network(pixels), targets))
            optimizer.step()
        network.eval()
        right = count = 0
        with torch.inference_mode():
            for pixels, targets in valid:
                answers, true = accelerator.gather_for_metrics((network(pixels).argmax(1), targets))
                right, count = right + int((answers == true).sum()), count + len(true)
        accelerator.print(f"epoch {epoch + 1}: accuracy {right / count:.3f}")
        accelerator.save_state(str(setting.output / "last"))


if __name__ == "__main__":
    main(Setting.given())
