"""The smallest real job: images in class folders, a recipe next to them, and the command line on top."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from toolkit.cli.main import main

CLASSES = ("blue", "green", "red")
PER_CLASS = {"train": 10, "test": 4}
SIDE = 32

# The loss falls, so that watching for a high one makes the first epoch the best: not the last.
RECIPE = """
[data]
name = "cifar10"
valid_share = 0.2

[model]
name = "cnn"
widths = [8, 8]
dropout = 0.1

[[augment]]
name = "random_crop"
padding = 2

[[augment]]
name = "horizontal_flip"

[train]
epochs = 2
batch = 8
device = "cpu"
precision = "fp32"
metric = "loss"
direction = "maximize"

[train.optimizer]
name = "sgd"
lr = 0.05
momentum = 0.9

[train.schedule]
name = "one_cycle"
"""


CNN = '"cnn"\nwidths = [8, 8]\ndropout = 0.1'
"""The model of `RECIPE`."""
WITHOUT_WEIGHTS = RECIPE.replace(CNN, '"wide_resnet"\ndepth = 10\nwidth = 1')
"""The same with a model that no weights can be given to."""


def write_images(root: Path, classes: Iterable[str] = CLASSES, *, seed: int = 0) -> Path:
    """`root/{train,test}/<class>/NN.png`: noise that leans towards one channel for each class."""
    draw = np.random.default_rng(seed)
    for split, count in PER_CLASS.items():
        for channel, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 200, (SIDE, SIDE, 3), dtype=np.uint8)
                pixels[..., channel % 3] += 55
                Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return root


def write_recipe(folder: Path, root: Path | None = None, *, text: str = RECIPE, name: str = "tiny") -> Path:
    """The recipe, with `data.root` where it is given."""
    path = folder / f"{name}.toml"
    rooted = text if root is None else text.replace("[data]", f'[data]\nroot = "{root}"')
    path.write_text(rooted, encoding="utf-8")
    return path


def overridden(overrides: Iterable[str]) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]


def run(recipe: Path, runs: Path, *overrides: str) -> int:
    """`python -m toolkit run`, in this process; its exit code."""
    return main(["run", str(recipe), "--runs", str(runs), *overridden(overrides)])


def only_run(runs: Path, name: str = "tiny") -> Path:
    """The one run directory of the recipe called `name`."""
    (found,) = (runs / name).iterdir()
    return found
