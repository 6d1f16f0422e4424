"""Whether a recipe agrees with what it built: what no command shows by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests import tiny
from toolkit.api.contracts import DataSpec
from toolkit.build.agreement import _undivided, stages_in_words
from toolkit.recipe.read import parse
from toolkit.recipe.tables import Recipe
from toolkit_tasks.classification import Classification


def recipe(folder: Path, strategy: str) -> Recipe:
    found = parse(tiny.write_recipe(folder), [f"train.strategy={strategy}"]).recipe
    assert found
    return found


@pytest.mark.parametrize(
    ("asked", "notes"),
    [
        ([], []),
        (
            ["train.trained_layers=0", "train.thaw_every=1"],
            ["only the head trained at first, one more layer every epoch (train.thaw_every)"],
        ),
        (
            ["train.trained_layers=2", "train.thaw_every=3", "train.fixres={size=16, epochs=2, layers=0}"],
            [
                "only the head and 2 layers trained at first, one more layer every 3 epochs (train.thaw_every)",
                "training at 16 px; in the last 2 epochs at 32 px, only the head trained (train.fixres)",
            ],
        ),
    ],
)
def test_how_epochs_differ_in_words(tmp_path: Path, asked: list[str], notes: list[str]) -> None:
    found = parse(tiny.write_recipe(tmp_path), asked).recipe
    assert found
    assert stages_in_words(found, DataSpec(tiny.CLASSES, size=32)) == notes


def test_a_task_that_trains_weights_is_not_divided(tmp_path: Path) -> None:
    objective = Classification(0.0, None)
    assert not list(_undivided(recipe(tmp_path, "fsdp"), objective))
    objective.projection = nn.Parameter(torch.ones(2))
    (problem,) = _undivided(recipe(tmp_path, "fsdp"), objective)
    assert str(problem) == 'train.strategy: "fsdp" does not divide the weights that task "classification" trains'
    assert not list(_undivided(recipe(tmp_path, "ddp"), objective))
