from __future__ import annotations

import pytest

from tests.tune.studies import parts
from toolkit.recipe.tables import Use
from toolkit.tune.aim import Aim, aim_of


def test_one_score_or_several() -> None:
    made, table, _ = parts('metrics = ["accuracy", "loss"]\ndirections = ["maximize", "minimize"]')
    assert aim_of(made, table)[0].directions == ("maximize", "minimize")
    made, table, _ = parts('metric = "f1"\nmetrics = ["accuracy", "loss"]\ndirections = ["maximize"]')
    assert [str(problem) for problem in aim_of(made, table)[1]] == [
        "tune.metric: not allowed with metrics and directions: give one score or several",
        "tune.directions: has 1 directions for 2 metrics",
    ]


@pytest.mark.parametrize("tune", ["", 'metric = "loss"'])
def test_the_recipes_own_score_keeps_its_direction(tune: str) -> None:
    made, table, _ = parts(tune)
    assert aim_of(made, table) == (Aim(("loss",), ("maximize",)), [])


def test_another_score_needs_a_direction_of_its_own() -> None:
    made, table, _ = parts('metric = "accuracy"')
    assert [str(problem) for problem in aim_of(made, table)[1]] == [
        'tune.direction: is required for "accuracy": train.direction says which way "loss" is better'
    ]
    made, table, _ = parts('metric = "accuracy"\ndirection = "minimize"')
    assert aim_of(made, table) == (Aim(("accuracy",), ("minimize",)), [])


def test_the_recipes_own_score_is_not_better_the_other_way_round() -> None:
    """Each run would keep its worst epoch."""
    made, table, _ = parts('direction = "minimize"')
    assert [str(problem) for problem in aim_of(made, table)[1]] == [
        'tune.direction: is "minimize", but train.direction keeps the epoch of each run with the highest "loss": '
        'set both to "minimize" or both to "maximize"'
    ]


WRONG_LATENCY = {
    'metric = "latency"': ['tune.metric: "latency" alone selects an untrained model: add a score, in tune.metrics'],
    'metrics = ["accuracy", "latency"]\ndirections = ["maximize", "maximize"]': [
        'tune.directions: "latency" is time: it can only be minimized'
    ],
    'metrics = ["latency", "latency", "f1"]\ndirections = ["minimize", "minimize", "maximize"]': [
        'tune.metrics: has "latency" twice'
    ],
}


@pytest.mark.parametrize("tune", WRONG_LATENCY)
def test_a_wrong_latency_is_reported(tune: str) -> None:
    made, table, _ = parts(tune)
    assert [str(problem) for problem in aim_of(made, table)[1]] == WRONG_LATENCY[tune]


def test_a_metric_of_the_recipe_may_be_called_latency_unless_the_study_asks_for_the_time() -> None:
    made, table, _ = parts('metrics = ["accuracy", "latency"]\ndirections = ["maximize", "minimize"]')
    clashing = made.model_copy(update={"metrics": (Use(name="mine:latency"),)})
    (problem,) = aim_of(clashing, table)[1]
    assert str(problem).startswith('tune.metrics: "latency" is the recipe\'s own metric and the time that')
    alone = clashing.model_copy(update={"train": clashing.train.model_copy(update={"metric": "latency"})})
    assert aim_of(alone, table.model_copy(update={"metrics": (), "directions": ()}))[1] != []
    assert aim_of(clashing, table.model_copy(update={"metrics": ("f1",), "directions": ("maximize",)}))[1] == []
