"""The images as torchvision's tutorials load them, for toolkits that bring no loader of their own."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from bench.peers.setting import BATCH, MEAN, SCALE, SIDE, STD, WORKERS, Setting


def loaders(setting: Setting) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Batches to train on, and to validate on."""
    ending = (transforms.ToTensor(), transforms.Normalize(MEAN, STD))
    ways = {
        "train": (transforms.RandomResizedCrop(SIDE, scale=SCALE), transforms.RandomHorizontalFlip()),
        "valid": (transforms.Resize(SIDE), transforms.CenterCrop(SIDE)),
    }
    train, valid = (
        DataLoader(
            datasets.ImageFolder(str(setting.data / name), transforms.Compose([*way, *ending])),
            batch_size=BATCH,
            shuffle=name == "train",
            drop_last=name == "train",
            num_workers=WORKERS,
            persistent_workers=True,
        )
        for name, way in ways.items()
    )
    return train, valid
