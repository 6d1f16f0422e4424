"""Whether a recipe agrees with what it built: what no command shows by itself."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from tests import tiny
from toolkit.build.agreement import _undivided
from toolkit.recipe.read import parse
from toolkit.recipe.tables import Recipe
from toolkit_tasks.classification import Classification


def recipe(folder: Path, strategy: str) -> Recipe:
    found = parse(tiny.write_recipe(folder), [f"train.strategy={strategy}"]).recipe
    assert found
    return found


def test_a_task_that_trains_weights_is_not_divided(tmp_path: Path) -> None:
    objective = Classification(0.0, None)
    assert not list(_undivided(recipe(tmp_path, "fsdp"), objective))
    objective.projection = nn.Parameter(torch.ones(2))
    (problem,) = _undivided(recipe(tmp_path, "fsdp"), objective)
    assert str(problem) == 'train.strategy: "fsdp" does not divide the weights that task "classification" trains'
    assert not list(_undivided(recipe(tmp_path, "ddp"), objective))
