from __future__ import annotations

import tomllib
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FixedTrial

from tests.tiny import RECIPE
from toolkit.api.errors import EXIT_USAGE, RecipeError
from toolkit.build.plan import plan
from toolkit.host.offers import Offer, Plugin
from toolkit.host.registry import Registry, discover
from toolkit.recipe.read import overridden
from toolkit.recipe.tables import Recipe, TaskTable
from toolkit.recipe.write import digest, to_toml
from toolkit.tune.space import Dimension, Space, Values, check_space, flattened

REGISTRY = discover()
TUNE = "\n[tune]\ntrials = 3\n[tune.space]\n"


def recipe(space: str, text: str = RECIPE) -> Recipe:
    return Recipe.model_validate({**tomllib.loads(text + TUNE + space), "name": "tiny"})


def space(text: str) -> Space:
    return check_space(recipe(text), "tiny.toml", REGISTRY)


def refused(text: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        space(text)
    assert caught.value.exit_code == EXIT_USAGE
    assert caught.value.next_step == "correct [tune.space] in tiny.toml, then run the same command again"
    return [str(problem) for problem in caught.value.problems]


WRONG = {
    "train.epoks = {low = 1, high = 2}": 'tune.space.train.epoks: unknown key; did you mean "epochs"?',
    "train.epochs.number = {low = 1, high = 2}": (
        'tune.space.train.epochs.number: cannot be set: the parent of "number" is a value, not a table'
    ),
    "train.optimizer.momentun = {low = 0.1, high = 0.9}": (
        'tune.space.train.optimizer.momentun: unknown key; did you mean "momentum"?'
    ),
    "model.widht = {choices = [1, 2]}": 'tune.space.model.widht: unknown key; did you mean "widths"?',
    "augment.random_crap.padding = {low = 0, high = 4}": "random_crap",
    "train.optimizer.lr = {low = 0.5, high = 0.1}": (
        "tune.space.train.optimizer.lr: is an empty range: low 0.5 is not below high 0.1"
    ),
    "train.epochs = {low = 2, high = 2}": "tune.space.train.epochs: is an empty range: low 2 is not below high 2",
    "train.optimizer.lr = {low = 0.0, high = 1.0, log = true}": (
        "tune.space.train.optimizer.lr: cannot be logarithmic: low 0 is not above 0"
    ),
    "train.optimizer.lr = {low = 0.1, high = 1.0, log = true, step = 0.1}": (
        "tune.space.train.optimizer.lr: cannot have both log and step"
    ),
    "model.dropout = {low = 0.1, high = 0.5, step = 0.9}": (
        "tune.space.model.dropout: has a step of 0.9, wider than the range"
    ),
    "model.dropout = {low = 0.1, high = 0.5, step = 0}": (
        "tune.space.model.dropout.step: must be greater than 0, got 0"
    ),
    "model.dropout = {low = 0.1}": "tune.space.model.dropout: needs both low and high, or choices",
    "model.dropout = {low = 0.1, hihg = 0.5}": ('tune.space.model.dropout.hihg: unknown key; did you mean "high"?'),
    'model.dropout = {low = "0.1", high = 0.5}': (
        'tune.space.model.dropout.low: must be an integer or a number, got "0.1"'
    ),
    "model.dropout = 0.5": "tune.space.model.dropout: must be a table with low and high, or with choices",
    "model.dropout = {choices = []}": "tune.space.model.dropout: has no choices",
    "model.dropout = {choices = [0.1, 0.1]}": "tune.space.model.dropout: has the choice 0.1 twice",
    "model.dropout = {choices = [0.1], low = 0}": (
        "tune.space.model.dropout: has choices, so it takes no low, high, log or step"
    ),
    "train.batch = {low = 0.5, high = 8}": 'tune.space.train.batch.low: must be an integer or "auto", got 0.5',
    "train.batch = {low = 0, high = 8}": "tune.space.train.batch.low: must be at least 1, got 0",
    "model.dropout = {low = 0.5, high = 2.5}": "tune.space.model.dropout.high: must be",
    'train.batch = {choices = [8, "many"]}': 'batch.choices.1: must be an integer or "auto", got "many"',
    'model.name = {choices = ["cnn", "resnet55"]}': (
        'tune.space.model.name.choices.1: unknown model "resnet55"; did you mean "resnet50"?'
    ),
    'train.optimizer.name = {choices = ["sgd", "adamm"]}': (
        'tune.space.train.optimizer.name.choices.1: unknown optimizer "adamm"; did you mean "adam"?'
    ),
    "": "tune.space: has no keys to tune",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_with_a_space_is_reported_at_its_key(text: str) -> None:
    assert WRONG[text] in "\n".join(refused(text))


def test_all_that_is_wrong_is_reported_at_once() -> None:
    keys = {text.partition(" =")[0]: text for text in WRONG if text and not text.startswith("train.epochs.number")}
    problems = refused("\n".join(keys.values()))
    assert len(problems) >= len(keys)
    assert [key for key in keys if not any(f"tune.space.{key}" in problem for problem in problems)] == []


def test_what_a_trial_tries_becomes_overrides_that_make_its_recipe() -> None:
    found = space(
        "train.optimizer.lr = {low = 0.01, high = 1, log = true}\ntrain.batch = {low = 4, high = 8}\n"
        "model.widths = {choices = [[4], [8, 8]]}\naugment.random_crop.padding = {choices = [1, 2]}\n"
    )
    chosen = {"train.optimizer.lr": 0.25, "train.batch": 6, "model.widths": "[4]", "augment.random_crop.padding": 1}
    overrides = found.suggest(FixedTrial(chosen))
    made = plan(overridden(found.recipe, "trial", overrides), REGISTRY).resolved
    assert (made.train.optimizer.lr, made.train.batch) == (0.25, 6)
    assert made.model.args["widths"] == [4]
    assert made.augment[0].args["padding"] == 1
    assert made.tune is None


def test_only_what_takes_no_half_is_tried_as_an_integer() -> None:
    found = space("train.epochs = {low = 1, high = 4}\ntrain.optimizer.momentum = {low = 0, high = 1}")
    assert {one.key: one.integer for one in found.dimensions} == {
        "train.epochs": True,
        "train.optimizer.momentum": False,
    }


COMPONENTS = """
model.name = {choices = ["cnn", "resnet18"]}
model.widths = {choices = [[4], [8, 8]]}
model.freeze_epochs = {low = 0, high = 1}
train.optimizer.name = {choices = ["sgd", "adamw"]}
train.optimizer.lr = {low = 0.01, high = 0.1}
train.optimizer.momentum = {low = 0.1, high = 0.9}
"""


def test_keys_of_a_component_are_asked_only_where_it_has_them() -> None:
    found = space(COMPONENTS.replace("model.freeze_epochs = {low = 0, high = 1}\n", ""))
    below = {one.key: one.components for one in found.dimensions}
    assert below["model.widths"] == {"cnn"}
    assert below["train.optimizer.momentum"] == {"sgd"}
    assert below["train.optimizer.lr"] is None
    chosen: dict[str, Any] = {"model.name": "resnet18", "train.optimizer.name": "adamw", "train.optimizer.lr": 0.05}
    trial = FixedTrial(chosen)
    made = overridden(found.recipe, "trial", found.suggest(trial)).recipe
    assert trial.params == chosen
    assert made is not None
    assert (made.model.name, made.model.args) == ("resnet18", {})
    assert (made.train.optimizer.name, made.train.optimizer.lr, made.train.optimizer.args) == ("adamw", 0.05, {})


def test_a_task_takes_only_arguments_of_its_own() -> None:
    task = 'task.name = {choices = ["classification", "multi_label"]}\n'
    found = space(f"{task}task.label_smoothing = {{low = 0.0, high = 0.2}}\n")
    assert [one.components for one in found.dimensions] == [None, {"classification"}]
    smoothed = found.recipe.model_copy(update={"task": TaskTable(name="classification", label_smoothing=0.1)})
    other = Space(smoothed, found.dimensions).suggest(FixedTrial({"task.name": "multi_label"}))
    made = overridden(smoothed, "trial", other).recipe
    assert made is not None
    assert (made.task.name, made.task.args) == ("multi_label", {})


def test_the_recipes_own_component_keeps_its_arguments() -> None:
    found = space('model.name = {choices = ["cnn", "resnet18"]}')
    made = overridden(found.recipe, "trial", found.suggest(FixedTrial({"model.name": "cnn"}))).recipe
    assert made is not None
    assert made.model == found.recipe.model


def test_a_whole_table_may_be_a_choice() -> None:
    found = space('model = {choices = ["resnet18", {name = "cnn", widths = [4], dropout = 0.2}]}')
    text = found.dimensions[0].choices[1]
    made = overridden(found.recipe, "trial", found.suggest(FixedTrial({"model": text}))).recipe
    assert made is not None
    assert made.model.args == {"widths": [4], "dropout": 0.2}


def test_the_recipes_own_values_are_known_where_the_space_holds_them() -> None:
    found = space(
        "train.optimizer.lr = {low = 0.01, high = 0.1}\ntrain.batch = {choices = [16, 32]}\n"
        "model.widths = {choices = [[4], [8, 8]]}\ntrain.ema = {low = 0.5, high = 0.9}\n"
    )
    own = found.own(plan(found.recipe, REGISTRY).resolved)
    assert own == {"train.optimizer.lr": 0.05, "model.widths": "[8, 8]"}


def test_a_space_is_not_part_of_what_a_run_computes() -> None:
    with_space = recipe("train.epochs = {low = 1, high = 2}")
    without = with_space.model_copy(update={"tune": None})
    assert digest(with_space) == digest(without)
    text = to_toml(with_space)
    again = Recipe.model_validate({**tomllib.loads(text), "name": "tiny"})
    assert again == with_space


def test_quoted_and_bare_keys_are_one() -> None:
    bare, quoted = ("train.epochs = {low = 1, high = 2}", '"train.epochs" = {low = 1, high = 2}')
    assert flattened(tomllib.loads(bare)) == flattened(tomllib.loads(quoted)) == {"train.epochs": {"low": 1, "high": 2}}


@given(st.floats(-10, 10), st.floats(0.01, 10), st.floats(0, 1))
def test_a_range_holds_what_it_suggests(low: float, width: float, share: float) -> None:
    one = Dimension("a", Values(low=low, high=low + width))
    inside = min(low + share * width, low + width)
    assert one.holds(inside)
    assert one.suggest(FixedTrial({"a": inside})) == inside
    assert not one.holds(low + 2 * width)
    assert not one.holds(True)


def test_a_recipe_without_plugins_is_not_the_spaces_fault() -> None:
    with pytest.raises(RecipeError, match="problem"):
        check_space(recipe("model.name = {choices = ['cnn']}"), "tiny.toml", Registry())


class Pool(StrEnum):
    MAX = "max"
    AVG = "avg"


@dataclass(frozen=True)
class Stem:
    width: int = 8


def pooled(spec: Any, *, pool: Pool = Pool.MAX, stem: Stem = Stem(), since: date | None = None) -> None: ...


def test_members_of_enumerations_tables_and_dates_are_choices() -> None:
    text = RECIPE.replace('name = "cnn"', 'name = "pooled"').replace("widths = [8, 8]\ndropout = 0.1\n", "")
    offer = Offer("model", "pooled", Plugin("acme", "1", "main", "acme"), pooled)
    at = Registry(REGISTRY.plugins, (*REGISTRY.offered, offer))
    asked = (
        'model.pool.choices = ["max", "avg"]\nmodel.stem.choices = [{width = 4}, {width = 8}]\n'
        "model.since.choices = [2026-01-31, 2026-02-01]\nmodel.stem.width = {low = 1, high = 4}"
    )
    with pytest.raises(RecipeError) as caught:
        check_space(recipe('model.pool.choices = ["max", "mean"]', text), "tiny.toml", at)
    assert str(caught.value.problems[0]).startswith('tune.space.model.pool.choices.1: must be one of "max", "avg"')
    found = check_space(recipe(asked.rpartition("\n")[0], text), "tiny.toml", at)
    values = {"model.pool": "avg", "model.stem": "{width = 4}", "model.since": "2026-02-01"}
    trial = overridden(found.recipe, "tiny.toml", found.suggest(FixedTrial(values)))
    args = plan(trial, at).resolved.model.args
    assert args == {"pool": "avg", "stem": {"width": 4}, "since": date(2026, 2, 1)}
    ranged = check_space(recipe(asked.rpartition("\n")[2], text), "tiny.toml", at)
    assert ranged.dimensions[0].integer
