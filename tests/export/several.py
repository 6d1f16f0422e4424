"""A dataset of pictures that show sets of colours, its own plugin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.installed import install
from toolkit.api.contracts import Data, DataSpec, Targets
from toolkit.data.splits import classes_of

CLASSES = ("red", "green", "blue")
COUNTS = {"train": 160, "valid": 64, "test": 40}

RECIPE = """
[data]
name = "several"
[task]
name = "multi_label"
[model]
name = "cnn"
widths = [8, 8]
[train]
epochs = 12
batch = 16
device = "cpu"
precision = "fp32"
metric = "accuracy"
[train.optimizer]
name = "adam"
lr = 0.01
[[metrics]]
name = "accuracy"
[[metrics]]
name = "f1"
"""


@dataclass(frozen=True)
class Pictures:
    """Squares that need no resampling; a colour of the set is brighter than the others, though not always by much."""

    split: str
    single: bool = False

    def __len__(self) -> int:
        return COUNTS[self.split]

    @property
    def ids(self) -> list[str]:
        return [f"{self.split}/{number:03}.png" for number in range(len(self))]

    @property
    def keys(self) -> list[str]:
        return self.ids

    @property
    def targets(self) -> Targets:
        if self.single:
            return [number % 3 for number in range(len(self))]
        return [tuple(place for place in range(3) if number >> place & 1) for number in range(len(self))]

    def read(self, index: int) -> Tensor:
        rng = torch.Generator().manual_seed(1000 * len(self) + index)
        shown = torch.tensor([place in classes_of(self.targets[index]) for place in range(3)])
        level = 90 + 60 * shown + 25 * torch.randn(3, generator=rng)
        noise = 20 * torch.randn((3, 16, 16), generator=rng)
        return (level[:, None, None] + noise).clamp(0, 255).to(torch.uint8)


def several(root: Path | None, *, single: bool = False) -> Data:
    """single: each item has one class, whatever it shows."""
    spec = DataSpec(CLASSES, 16, targets="index" if single else "set")
    train, valid, test = (Pictures(split, single) for split in COUNTS)
    return Data(spec, train, valid, test)


def installed(site: Path, patch: pytest.MonkeyPatch) -> None:
    """Offer the dataset to everything that runs in this process."""
    hook = """
        from toolkit import hookimpl

        @hookimpl
        def toolkit_datasets():
            return {"several": "tests.export.several:several"}
        """
    install(site, "several-colours", {"several_colours": hook}, {"main": "several_colours"})
    patch.syspath_prepend(str(site))


def write_pictures(folder: Path, split: str) -> Sequence[Path]:
    """The pictures of a split as files, in its order."""
    folder.mkdir()
    pictures = Pictures(split)
    paths = [folder / Path(name).name for name in pictures.ids]
    for number, path in enumerate(paths):
        Image.fromarray(pictures.read(number).movedim(0, -1).numpy()).save(path)
    return paths
