"""Studies of the tiny recipe."""

from __future__ import annotations

import tomllib
from pathlib import Path

import optuna

from tests.tiny import RECIPE
from toolkit.host.registry import discover
from toolkit.recipe.draft import Draft
from toolkit.recipe.tables import Recipe, TuneTable
from toolkit.tune.search import Search, search_of
from toolkit.tune.space import Space, check_space
from toolkit.tune.storage import open_storage
from toolkit.tune.study import StudyPlan, open_study, plan_study

REGISTRY = discover()


SPACE = "train.optimizer.lr = {low = 0.01, high = 0.1}\ntrain.batch = {choices = [8, 16]}\n"


def recipe(tune: str = "", space: str = SPACE) -> Recipe:
    text = f"{RECIPE}\n[tune]\ntrials = 3\n{tune}\n[tune.space]\n{space}"
    return Recipe.model_validate({**tomllib.loads(text), "name": "tiny"})


def parts(tune: str = "", space: str = SPACE) -> tuple[Recipe, TuneTable, Space]:
    made = recipe(tune, space)
    assert made.tune
    return made, made.tune, check_space(made, "tiny.toml", REGISTRY)


def planned(made: Recipe) -> StudyPlan:
    return plan_study(Draft.of(made), REGISTRY)


def begun(folder: Path, tune: str = "", space: str = SPACE, url: str | None = None) -> optuna.Study:
    return open_study(planned(recipe(tune, space)), open_storage(folder, url))


def found_by(tune: str, space: str = SPACE) -> tuple[Search | None, list[str]]:
    search, problems = search_of(*parts(tune, space))
    return search, [str(problem) for problem in problems]
