from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import optuna
import pytest

from tests.tiny import RECIPE
from toolkit.components import plan
from toolkit.errors import EXIT_USAGE, ToolkitError, UsageError
from toolkit.recipe import Recipe, TuneTable
from toolkit.registry import discover
from toolkit.tune.space import Space, check_space
from toolkit.tune.study import (
    PRUNERS,
    SAMPLERS,
    Search,
    aim_of,
    enqueue,
    enqueue_own,
    open_storage,
    open_study,
    search_of,
    too_many_failures,
)

REGISTRY = discover()
SPACE = "train.optimizer.lr = {low = 0.01, high = 0.1}\ntrain.batch = {choices = [8, 16]}\n"


def recipe(tune: str = "", space: str = SPACE) -> Recipe:
    text = f"{RECIPE}\n[tune]\ntrials = 3\n{tune}\n[tune.space]\n{space}"
    return Recipe.model_validate({**tomllib.loads(text), "name": "tiny"})


def parts(tune: str = "", space: str = SPACE) -> tuple[Recipe, TuneTable, Space]:
    made = recipe(tune, space)
    assert made.tune
    return made, made.tune, check_space(made, "tiny.toml", REGISTRY)


def begun(folder: Path, tune: str = "", space: str = SPACE, url: str | None = None) -> optuna.Study:
    made, table, checked = parts(tune, space)
    aim, problems = aim_of(made, table)
    search, more = search_of(made, table, checked)
    assert search
    assert [*problems, *more] == []
    return open_study(made, checked, aim, search, open_storage(folder, url))


def found_by(tune: str, space: str = SPACE) -> tuple[Search | None, list[str]]:
    search, problems = search_of(*parts(tune, space))
    return search, [str(problem) for problem in problems]


def test_a_study_lives_in_a_journal_file(tmp_path: Path) -> None:
    study = begun(tmp_path / "tiny")
    study.tell(study.ask(), 0.5)
    assert (tmp_path / "tiny" / "journal.log").is_file()
    again = begun(tmp_path / "tiny")
    assert [trial.value for trial in again.trials] == [0.5]


def test_a_study_may_live_in_a_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    begun(tmp_path, url=url).add_trial(optuna.trial.create_trial(value=0.25))
    assert [trial.value for trial in begun(tmp_path, url=url).trials] == [0.25]


def test_a_database_that_is_not_there_is_told(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/no/such/study.db"
    with pytest.raises(UsageError, match=r"--storage sqlite.*cannot be used") as caught:
        open_storage(tmp_path, url)
    assert caught.value.next_step


@pytest.mark.parametrize("name", sorted({*SAMPLERS} - {"cmaes", "grid"}))
def test_every_sampler_is_found_by_its_short_name(name: str) -> None:
    search, problems = found_by(f'sampler = "{name}"')
    assert problems == []
    assert search
    assert type(search.sampler).__name__ == SAMPLERS[name]


@pytest.mark.parametrize("name", PRUNERS)
def test_every_pruner_is_found_by_its_short_name(name: str) -> None:
    search, problems = found_by(f'pruner = "{name}"')
    assert problems == []
    assert search
    assert type(search.pruner).__name__ == PRUNERS[name]


def test_any_other_of_optunas_is_found_by_its_own() -> None:
    search, problems = found_by(
        'sampler = {name = "QMCSampler", qmc_type = "halton", seed = 3}\n'
        'pruner = {name = "PercentilePruner", percentile = 25.0}\n'
    )
    assert problems == []
    assert search
    assert isinstance(search.sampler, optuna.samplers.QMCSampler)
    assert isinstance(search.pruner, optuna.pruners.PercentilePruner)


WRONG = {
    'sampler = "tpee"': 'tune.sampler.name: unknown sampler "tpee"; there are tpe, gp, cmaes, random, grid, nsga2; '
    'did you mean "tpe"?',
    'pruner = "hyperbend"': 'did you mean "hyperband"?',
    'sampler = "BruteForceSampler"': 'unknown sampler "BruteForceSampler"',
    'sampler = {name = "tpe", n_startup = 5}': 'tune.sampler.n_startup: unknown key; did you mean "n_startup_trials"?',
    'sampler = {name = "random", seed = "zero"}': 'tune.sampler.seed: must be an integer, got "zero"',
    'pruner = {name = "median", n_warmup_steps = 0.5}': "tune.pruner.n_warmup_steps: must be an integer, got 0.5",
    'pruner = {name = "hyperband", max_resource = 9}': "tune.pruner.max_resource: unknown key",
    'pruner = {name = "PercentilePruner", percentile = 150.0}': "tune.pruner: ",
    'pruner = "PatientPruner"': 'tune.pruner.name: "PatientPruner" cannot be given in a recipe',
    'pruner = "PercentilePruner"': "tune.pruner.percentile: is required",
    'sampler = "grid"': "tune.space.train.optimizer.lr: needs a step, or choices, for a grid",
}


@pytest.mark.parametrize("tune", WRONG)
def test_a_wrong_sampler_or_pruner_is_told(tune: str) -> None:
    search, problems = found_by(tune)
    assert search is None
    assert WRONG[tune] in "\n".join(problems)


def test_a_sampler_whose_package_is_missing_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert found_by('sampler = "cmaes"')[1] == ['tune.sampler.name: "cmaes" needs the package cmaes: pip install cmaes']


def test_a_grid_has_every_value_once(tmp_path: Path) -> None:
    space = "model.dropout = {low = 0.0, high = 0.2, step = 0.1}\ntrain.batch = {low = 8, high = 9}\n"
    study = begun(tmp_path, 'sampler = "grid"', space)
    _, _, checked = parts('sampler = "grid"', space)
    assert isinstance(study.sampler, optuna.samplers.GridSampler)
    while not study.sampler.is_exhausted(study):
        trial = study.ask()
        checked.suggest(trial)
        study.tell(trial, 1.0)
    tried = sorted((trial.params["model.dropout"], trial.params["train.batch"]) for trial in study.trials)
    assert tried == [(dropout, batch) for dropout in (0.0, 0.1, 0.2) for batch in (8, 9)]


CHANGED = {
    "metric": ('metric = "accuracy"', SPACE, "metrics loss, now accuracy"),
    "direction": ('direction = "minimize"', SPACE, "directions maximize, now minimize"),
    "range": (
        "",
        SPACE.replace("0.1", "0.2"),
        'tune.space.train.optimizer.lr {"low": 0.01, "high": 0.1, ',
    ),
    "key": ("", SPACE + "train.epochs = {low = 1, high = 2}", "tune.space.train.epochs absent, now"),
}


@pytest.mark.parametrize("what", CHANGED)
def test_a_changed_study_is_refused_with_what_changed(tmp_path: Path, what: str) -> None:
    begun(tmp_path)
    tune, space, told = CHANGED[what]
    with pytest.raises(UsageError, match="study tiny was begun otherwise") as caught:
        begun(tmp_path, tune, space)
    assert told in caught.value.message
    assert caught.value.exit_code == EXIT_USAGE
    assert caught.value.next_step


def test_sampler_pruner_and_trials_may_change(tmp_path: Path) -> None:
    begun(tmp_path)
    assert begun(tmp_path, 'sampler = "random"\npruner = "none"\nmax_failures = 2').study_name == "tiny"


def test_a_study_of_another_recipe_is_refused(tmp_path: Path) -> None:
    begun(tmp_path)
    made, table, checked = parts()
    other = made.model_copy(update={"seed": 5})
    search, _ = search_of(other, table, checked)
    assert search
    with pytest.raises(UsageError, match="the recipe itself has other values"):
        open_study(other, checked, aim_of(other, table)[0], search, open_storage(tmp_path, None))


def test_one_score_or_several() -> None:
    made, table, _ = parts('metrics = ["accuracy", "loss"]\ndirections = ["maximize", "minimize"]')
    assert aim_of(made, table)[0].directions == ("maximize", "minimize")
    made, table, _ = parts('metric = "f1"\nmetrics = ["accuracy", "loss"]\ndirections = ["maximize"]')
    assert [str(problem) for problem in aim_of(made, table)[1]] == [
        "tune.metric: cannot stand beside metrics and directions: one score or several",
        "tune.directions: has 1 directions for 2 metrics",
    ]


def test_the_recipes_own_values_are_the_first_trial(tmp_path: Path) -> None:
    study = begun(tmp_path)
    _, _, checked = parts()
    for _ in range(2):
        enqueue_own(study, checked, plan(checked.recipe, REGISTRY).resolved)
    trial = study.ask()
    checked.suggest(trial)
    assert trial.params == {"train.optimizer.lr": 0.05, "train.batch": 8}
    assert len(study.trials) == 1


def test_known_good_values_are_tried_next(tmp_path: Path) -> None:
    space = SPACE + "model.widths = {choices = [[4, 4], [8, 8]]}"
    study = begun(tmp_path, space=space)
    _, _, checked = parts(space=space)
    enqueue(study, checked, ["train.optimizer.lr=0.02,model.widths=[4, 4],train.batch=16"])
    trial = study.ask()
    checked.suggest(trial)
    assert trial.params == {"train.optimizer.lr": 0.02, "train.batch": 16, "model.widths": "[4, 4]"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("train.optimizer.lr", "does not look like key=value"),
        ("train.optimizer.rl=0.02", 'train.optimizer.rl: is not in the space; did you mean "train.optimizer.lr"?'),
        ("train.optimizer.lr=0.5", "0.5 is outside what the space has for train.optimizer.lr"),
        ("train.batch=12", "12 is outside what the space has for train.batch"),
    ],
)
def test_what_is_not_in_the_space_cannot_be_enqueued(tmp_path: Path, text: str, told: str) -> None:
    study = begun(tmp_path)
    with pytest.raises(UsageError) as caught:
        enqueue(study, parts()[2], ["train.batch=8", text])
    assert told in caught.value.message
    assert "train.optimizer.lr, train.batch" in str(caught.value.next_step)
    assert study.trials == []


def test_a_study_ends_at_its_limit_of_failures(tmp_path: Path) -> None:
    study = begun(tmp_path)
    trial = study.ask()
    trial.set_user_attr("cause", "RunFailed: the loss is not finite")
    assert too_many_failures(study, 1) is None
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    error: Any = too_many_failures(study, 1)
    assert isinstance(error, ToolkitError)
    assert "1 trials failed, the last by RunFailed: the loss is not finite" in error.message
    assert too_many_failures(study, 2) is None
