"""Drafts: what was read, right or wrong, and the components that it asks for."""

from __future__ import annotations

from tests.recipe.texts import LISTS, SMALLEST
from toolkit.recipe.draft import Draft, used
from toolkit.recipe.kinds import KINDS
from toolkit.recipe.read import load, parse


def test_a_draft_keeps_what_was_read_next_to_what_is_wrong(write):
    draft = parse(write(SMALLEST.replace("epochs = 2", "epochs = 0")))
    assert draft.recipe is None
    assert [problem.key for problem in draft.problems] == ["train.epochs"]
    assert [use.key for use in used(draft)] == [
        "data",
        "model",
        "task",
        "train.optimizer",
        "train.schedule",
        *(f"metrics.{name}" for name in KINDS["metric"].usual),
    ]


def test_components_whose_name_is_wrong_are_not_looked_for(write):
    draft = parse(
        write('data = 3\nmodel = {name = 3}\naugment = "x"\nmetrics = [1, "accuracy"]\n[train]\noptimizer = "sgd"')
    )
    assert [(use.key, use.name) for use in used(draft)] == [
        ("task", "classification"),
        ("train.optimizer", "sgd"),
        ("train.schedule", "constant"),
        ("metrics.accuracy", "accuracy"),
    ]


def test_a_valid_recipe_and_its_draft_ask_for_the_same(write):
    path = write(LISTS)
    assert list(used(Draft.of(load(path)))) == list(used(parse(path)))
