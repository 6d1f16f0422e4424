"""Recipes as text, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.api.errors import EXIT_USAGE, RecipeError
from toolkit.recipe.read import load

SMALLEST = """
[data]
name = "shapes"

[model]
name = "cnn"

[train]
epochs = 2
batch = 8

[train.optimizer]
name = "sgd"
lr = 0.1
"""


def problems(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load(path, overrides)
    assert caught.value.exit_code == EXIT_USAGE
    assert caught.value.next_step
    assert all(line.startswith((f"{path}: ", "--set ")) for line in caught.value.lines())
    return [str(problem) for problem in caught.value.problems]


LISTS = 'augment = ["flip", {name = "crop", padding = 2}, "noise", "noise"]\n' + SMALLEST
