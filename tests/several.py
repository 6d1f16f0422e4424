"""A dataset whose targets are sets of classes: images with up to three coloured shapes, drawn by code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tests import tiny
from tests.installed import install
from toolkit.api.contracts import Data, DataSpec

CLASSES = ("blue", "green", "red")
CHANNELS = (2, 1, 0)
SIDE = 16

PLUGIN = """
from toolkit import hookimpl

@hookimpl
def toolkit_datasets():
    return {"several": "tests.several:several"}
"""
RECIPE = """
metrics = ["accuracy", "precision", "recall", "f1", "average_precision"]

[data]
name = "several"

[model]
name = "cnn"
widths = [8, 16]

[task]
name = "multi_label"

[train]
epochs = 4
batch = 16
device = "cpu"
precision = "fp32"
metric = "mean_average_precision"
direction = "maximize"

[train.optimizer]
name = "adamw"
lr = 0.02
"""


@dataclass(frozen=True)
class Shapes:
    """`count` images; the bits of an item's number say which shapes it shows. `misread` of them are labelled as if the
    blue one were missing."""

    split: str
    count: int
    misread: int = 0

    def __len__(self) -> int:
        return self.count

    @property
    def ids(self) -> list[str]:
        return [f"{self.split}/{index:03}.png" for index in range(self.count)]

    @property
    def keys(self) -> list[str]:
        return [f"{name} of {self.count}" for name in self.ids]

    @property
    def targets(self) -> list[tuple[int, ...]]:
        return [
            tuple(number for number in shown(index) if number or index >= self.misread) for index in range(self.count)
        ]

    def read(self, index: int) -> Tensor:
        rng = torch.Generator().manual_seed(hash_of(self.ids[index]))
        pixels = torch.randint(0, 90, (3, SIDE, SIDE), generator=rng, dtype=torch.uint8)
        for number in shown(index):
            top, left = torch.randint(0, SIDE - 8, (2,), generator=rng).tolist()
            pixels[CHANNELS[number], top : top + 8, left : left + 8] += 150
        return pixels


def shown(index: int) -> tuple[int, ...]:
    return tuple(number for number in range(len(CLASSES)) if index >> number & 1)


def hash_of(text: str) -> int:
    return sum(ord(letter) << place % 24 for place, letter in enumerate(text))


def several(root: Path | None, *, test: int = 24, misread: int = 0) -> Data:
    """Coloured shapes.

    test: items of the test split
    misread: items of the test split with a wrong label
    """
    return Data(
        DataSpec(CLASSES, SIDE, targets="set", sample=True),
        Shapes("train", 96),
        Shapes("valid", 32),
        Shapes("test", test, misread),
    )


def install_several(site: Path) -> None:
    """Put the plugin that offers this dataset into `site`, a folder on `sys.path`."""
    install(site, "several", {"several_plugin": PLUGIN}, {"several": "several_plugin"})


def write_recipe(folder: Path, *, text: str = RECIPE) -> Path:
    return tiny.write_recipe(folder, text=text, name="several")


def run(recipe: Path, runs: Path, *overrides: str) -> Path:
    """The directory of a finished run of the recipe."""
    assert tiny.run(recipe, runs, *overrides) == 0
    return tiny.only_run(runs, "several")
