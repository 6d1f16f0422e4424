from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from tests.tune.studies import begun, parts, planned, recipe
from toolkit.tune.grid import Grid
from toolkit.tune.outcome import UNCOUNTED
from toolkit.tune.queue import enqueue, enqueue_own


def test_a_grid_has_every_value_once(tmp_path: Path) -> None:
    space = "model.dropout = {low = 0.0, high = 0.2, step = 0.1}\ntrain.batch = {low = 8, high = 9}\n"
    study = begun(tmp_path, 'sampler = "grid"', space)
    _, _, checked = parts('sampler = "grid"', space)
    assert isinstance(study.sampler, Grid)
    while not study.sampler.is_exhausted(study):
        trial = study.ask()
        checked.suggest(trial)
        study.tell(trial, 1.0)
    tried = sorted((trial.params["model.dropout"], trial.params["train.batch"]) for trial in study.trials)
    assert tried == [(dropout, batch) for dropout in (0.0, 0.1, 0.2) for batch in (8, 9)]


@pytest.mark.parametrize("seed", range(4))
def test_a_grid_is_seen_whole_in_as_many_trials_as_it_has_points(tmp_path: Path, seed: int) -> None:
    """The recipe's own values and those that were queued are points like any other."""
    tune = f'sampler = {{name = "grid", seed = {seed}}}'
    space = "model.dropout = {low = 0.0, high = 0.3, step = 0.1}\ntrain.batch = {choices = [8, 16]}\n"
    study = begun(tmp_path, tune, space)
    _, _, checked = parts(tune, space)
    enqueue_own(study, planned(recipe(tune, space)).own)
    enqueue(study, checked, ["model.dropout=0.3,train.batch=16"], trials=8)
    for _ in range(8):
        trial = study.ask()
        checked.suggest(trial)
        study.tell(trial, 1.0)
    assert len({(round(trial.params["model.dropout"], 6), trial.params["train.batch"]) for trial in study.trials}) == 8
    assert isinstance(study.sampler, Grid)
    assert study.sampler.is_exhausted(study)


CONDITIONAL = """
train.optimizer.name = {choices = ["sgd", "adamw"]}
train.optimizer.momentum = {choices = [0.8, 0.9]}
train.batch = {choices = [8, 16]}
"""


def test_a_grid_tries_no_point_again_for_a_key_that_its_component_has_not(tmp_path: Path) -> None:
    study = begun(tmp_path, 'sampler = "grid"', CONDITIONAL)
    _, _, checked = parts('sampler = "grid"', CONDITIONAL)
    assert isinstance(study.sampler, Grid)
    own = planned(recipe('sampler = "grid"', CONDITIONAL)).own
    assert study.sampler.trials(own) == 6
    enqueue_own(study, own)
    while not study.sampler.is_exhausted(study):
        trial = study.ask()
        checked.suggest(trial)
        study.tell(trial, 1.0)
    tried = [tuple(sorted(trial.params.items())) for trial in study.trials]
    assert len(tried) == len({*tried}) == 6


def test_no_second_worker_gets_a_point_of_a_grid_that_is_under_way(tmp_path: Path) -> None:
    space = "train.batch = {choices = [8, 16]}\n"
    study = begun(tmp_path, 'sampler = "grid"', space)
    _, _, checked = parts('sampler = "grid"', space)
    assert isinstance(study.sampler, Grid)
    for _ in range(2):
        assert not study.sampler.is_exhausted(study)
        checked.suggest(study.ask())
    assert study.sampler.is_exhausted(study)
    assert len({trial.params["train.batch"] for trial in study.trials}) == 2


@pytest.mark.parametrize("queued", [{}, {"train.batch": 16}])
def test_what_a_queued_trial_leaves_open_a_grid_gives(tmp_path: Path, queued: dict[str, int]) -> None:
    space = "model.dropout = {low = 0.0, high = 0.2, step = 0.1}\ntrain.batch = {choices = [8, 16]}\n"
    study = begun(tmp_path, 'sampler = "grid"', space)
    _, _, checked = parts('sampler = "grid"', space)
    for _ in range(3):
        study.enqueue_trial(queued)
        trial = study.ask()
        checked.suggest(trial)
        study.tell(trial, 1.0)
    assert len({tuple(trial.params.items()) for trial in study.trials}) == 3
    assert all(trial.params.items() >= queued.items() for trial in study.trials)


TWO_KEYS = "model.dropout = {low = 0.0, high = 0.2, step = 0.1}\ntrain.batch = {choices = [8, 16]}\n"


def points(study: optuna.Study) -> list[tuple[float, int]]:
    drawn = [trial.params for trial in study.trials if len(trial.params) == 2]
    return [(round(params["model.dropout"], 6), params["train.batch"]) for params in drawn]


@pytest.mark.parametrize("pruner", ['"none"', '{name = "hyperband", reduction_factor = 2}'])
def test_workers_that_take_trials_at_once_get_points_of_their_own(tmp_path: Path, pruner: str) -> None:
    """Each has asked before any has drawn, and they draw in another order than they asked. Hyperband, after the
    first report, shows a sampler the trials of one bracket alone."""
    tune = f'sampler = "grid"\npruner = {pruner}'
    _, _, checked = parts(tune, TWO_KEYS)
    studies = [begun(tmp_path, tune, TWO_KEYS) for _ in range(3)]
    for _ in range(2):
        for trial in reversed([study.ask() for study in studies]):
            checked.suggest(trial)
            trial.report(0.5, 1)
            trial.should_prune()
    assert len({*points(studies[0])}) == 6
    assert isinstance(studies[0].sampler, Grid)
    assert studies[0].sampler.is_exhausted(studies[0])


def test_a_trial_that_has_drawn_a_part_of_its_point_is_resumed_with_the_rest(tmp_path: Path) -> None:
    _, _, checked = parts('sampler = "grid"', TWO_KEYS)
    one, other = (begun(tmp_path, 'sampler = "grid"', TWO_KEYS) for _ in range(2))
    first = one.ask()
    drawn = checked.dimensions[0].suggest(first)
    for _ in range(5):
        checked.suggest(other.ask())
    checked.suggest(first)
    assert first.params["model.dropout"] == drawn
    assert len({*points(one)}) == 6


def test_points_that_another_sampler_has_tried_are_not_tried_again(tmp_path: Path) -> None:
    study = begun(tmp_path, 'sampler = "random"', TWO_KEYS)
    _, _, checked = parts('sampler = "grid"', TWO_KEYS)
    for _ in range(3):
        checked.suggest(study.ask())
    seen = {*points(study)}
    study = begun(tmp_path, 'sampler = "grid"', TWO_KEYS)
    for _ in range(6 - len(seen)):
        checked.suggest(study.ask())
    assert len({*points(study)}) == 6


def test_a_point_whose_trial_was_given_up_is_free_again(tmp_path: Path) -> None:
    study = begun(tmp_path, 'sampler = "grid"', "train.batch = {choices = [8, 16]}\n")
    _, _, checked = parts('sampler = "grid"', "train.batch = {choices = [8, 16]}\n")
    given_up = study.ask()
    checked.suggest(given_up)
    given_up.set_user_attr(UNCOUNTED, True)
    study.tell(given_up, state=optuna.trial.TrialState.FAIL)
    checked.suggest(study.ask())
    assert isinstance(study.sampler, Grid)
    assert not study.sampler.is_exhausted(study)
    checked.suggest(study.ask())
    assert [trial.params["train.batch"] for trial in study.trials[1:]] in ([8, 16], [16, 8])
