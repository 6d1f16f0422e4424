from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import optuna
import pytest

from tests.tiny import RECIPE
from toolkit.api.errors import EXIT_USAGE, ToolkitError, UsageError
from toolkit.host.registry import discover
from toolkit.recipe.draft import Draft
from toolkit.recipe.tables import Recipe, TuneTable, Use
from toolkit.tune.aim import Aim, aim_of
from toolkit.tune.grid import Grid
from toolkit.tune.outcome import UNCOUNTED
from toolkit.tune.queue import enqueue, enqueue_own
from toolkit.tune.search import PRUNERS, SAMPLERS, Search, drawn_at_random, search_of
from toolkit.tune.space import Space, check_space
from toolkit.tune.storage import open_storage
from toolkit.tune.study import StudyPlan, open_study, plan_study
from toolkit.tune.worker.trial import too_many_failures

REGISTRY = discover()
EPOCHS = "train.epochs = {low = 1, high = 3}\n"
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


def test_a_study_lives_in_a_journal_file(tmp_path: Path) -> None:
    study = begun(tmp_path / "tiny")
    study.tell(study.ask(), 0.5)
    assert (tmp_path / "tiny" / "journal.log").is_file()
    again = begun(tmp_path / "tiny")
    assert [trial.value for trial in again.trials] == [0.5]


@pytest.mark.parametrize("name", sorted({*SAMPLERS} - {"cmaes", "grid"}))
def test_every_sampler_is_found_by_its_short_name(name: str) -> None:
    search, problems = found_by(f'sampler = "{name}"')
    assert problems == []
    assert search
    assert type(search.sampler).__name__ == SAMPLERS[name]


@pytest.mark.parametrize("name", PRUNERS)
def test_every_pruner_is_found_by_its_short_name(name: str) -> None:
    search, problems = found_by(f'pruner = "{name}"\nseeds_per_trial = 2')
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
    'pruner = "wilcoxon"': 'tune.pruner.name: "wilcoxon" compares seeds: it needs tune.seeds_per_trial above 1',
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


CHANGED = {
    "metric": ('metric = "accuracy"\ndirection = "maximize"', SPACE, "metrics loss, now accuracy"),
    "direction": ('metric = "accuracy"\ndirection = "minimize"', SPACE, "directions maximize, now minimize"),
    "range": (
        "",
        SPACE.replace("0.1", "0.2"),
        'tune.space.train.optimizer.lr {"low": 0.01, "high": 0.1, ',
    ),
    "seeds": ("seeds_per_trial = 3", SPACE, "seeds_per_trial 1, now 3"),
    "key": ("", SPACE + "train.epochs = {low = 1, high = 2}", "tune.space.train.epochs absent, now"),
}


@pytest.mark.parametrize("what", CHANGED)
def test_a_changed_study_is_refused_with_what_changed(tmp_path: Path, what: str) -> None:
    begun(tmp_path)
    tune, space, told = CHANGED[what]
    with pytest.raises(UsageError, match="study tiny already exists with different settings") as caught:
        begun(tmp_path, tune, space)
    assert told in caught.value.message
    assert caught.value.exit_code == EXIT_USAGE
    assert caught.value.next_step


def test_sampler_pruner_and_trials_may_change(tmp_path: Path) -> None:
    begun(tmp_path)
    assert begun(tmp_path, 'sampler = "random"\npruner = "none"\nmax_failures = 2').study_name == "tiny"


def test_a_study_of_another_recipe_is_refused(tmp_path: Path) -> None:
    begun(tmp_path)
    other = recipe().model_copy(update={"seed": 5, "model": Use(name="cnn", widths=[4])})
    with pytest.raises(
        UsageError,
        match=r"settings: model\.dropout 0\.1, now absent; model\.widths \[8, 8\], now \[4\]; seed 0, now 5$",
    ):
        open_study(planned(other), open_storage(tmp_path, None))


def test_one_score_or_several() -> None:
    made, table, _ = parts('metrics = ["accuracy", "loss"]\ndirections = ["maximize", "minimize"]')
    assert aim_of(made, table)[0].directions == ("maximize", "minimize")
    made, table, _ = parts('metric = "f1"\nmetrics = ["accuracy", "loss"]\ndirections = ["maximize"]')
    assert [str(problem) for problem in aim_of(made, table)[1]] == [
        "tune.metric: cannot stand beside metrics and directions: one score or several",
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
    'metric = "latency"': [
        'tune.metric: "latency" alone would be best of a model that knows nothing: name a score too'
    ],
    'metrics = ["accuracy", "latency"]\ndirections = ["maximize", "maximize"]': [
        'tune.directions: "latency" is time: it can only be minimized'
    ],
    'metrics = ["latency", "latency", "f1"]\ndirections = ["minimize", "minimize", "maximize"]': [
        'tune.metrics: has "latency" twice'
    ],
}


@pytest.mark.parametrize("tune", WRONG_LATENCY)
def test_a_wrong_latency_is_told(tune: str) -> None:
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


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
def test_workers_with_one_seed_draw_as_one_worker_would(tmp_path: Path, sampler: str) -> None:
    """And unlike values: which worker draws makes no difference."""
    tune = f'sampler = {{name = "{sampler}", seed = 3}}'

    def drawn(studies: list[optuna.Study]) -> list[dict[str, Any]]:
        _, _, space = parts(tune)
        search, _ = search_of(*parts(tune))
        assert search
        for number in range(4):
            study = studies[number % len(studies)]
            study.sampler = search.sampler_of(number)
            trial = study.ask()
            space.suggest(trial)
            study.tell(trial, float(number))
        return [trial.params for trial in studies[0].trials]

    together = drawn([begun(tmp_path / "together", tune) for _ in range(2)])
    assert together == drawn([begun(tmp_path / "alone", tune)])
    assert len({params["train.optimizer.lr"] for params in together}) == 4


def test_without_a_seed_no_two_workers_draw_the_same() -> None:
    drawn = set()
    for _ in range(2):
        search, _ = found_by('sampler = "random"')
        assert search
        study = optuna.create_study(sampler=search.sampler_of(0))
        drawn.add(study.ask().suggest_float("x", 0, 1))
    assert len(drawn) == 2


def test_a_shared_sequence_keeps_its_seed() -> None:
    search, _ = found_by('sampler = {name = "QMCSampler", seed = 3}')
    assert search
    assert search.sampler_of(0) is search.sampler_of(1) is search.sampler


def test_the_recipes_own_values_are_the_first_trial(tmp_path: Path) -> None:
    study = begun(tmp_path)
    _, _, checked = parts()
    for _ in range(2):
        enqueue_own(study, planned(recipe()).own)
    trial = study.ask()
    checked.suggest(trial)
    assert trial.params == {"train.optimizer.lr": 0.05, "train.batch": 8}
    assert len(study.trials) == 1


@pytest.mark.parametrize(("sampler", "keys"), [("nsga2", ["train.batch"]), ("tpe", [])])
def test_keys_that_the_own_values_take_from_a_sampler_are_known(tmp_path: Path, sampler: str, keys: list[str]) -> None:
    tune, space = f'sampler = "{sampler}"', SPACE.replace("[8, 16]", "[16, 32]")
    study = begun(tmp_path, tune, space)
    made, table, checked = parts(tune, space)
    search, _ = search_of(made, table, checked)
    assert search
    assert drawn_at_random(search, checked, planned(made).own) == keys
    own = study.ask({"train.optimizer.lr": optuna.distributions.FloatDistribution(0.01, 0.1)})
    study.tell(own, 0.5)
    trial = study.ask()
    checked.suggest(trial)
    study.tell(trial, 0.4)
    learnt = search.sampler.infer_relative_search_space(study, study.trials[1])
    assert [key for key in keys if key in learnt] == []


def test_known_good_values_are_tried_next(tmp_path: Path) -> None:
    space = SPACE + "model.widths = {choices = [[4, 4], [8, 8]]}"
    study = begun(tmp_path, space=space)
    _, _, checked = parts(space=space)
    enqueue(study, checked, ["train.optimizer.lr=0.02,model.widths=[4, 4],train.batch=16"], trials=1)
    trial = study.ask()
    checked.suggest(trial)
    assert trial.params == {"train.optimizer.lr": 0.02, "train.batch": 16, "model.widths": "[4, 4]"}


def test_values_that_the_study_has_are_passed_over_and_told(tmp_path: Path) -> None:
    study = begun(tmp_path)
    _, _, checked = parts()
    asked = ["train.batch=16,train.optimizer.lr=0.02", "train.batch=8,train.optimizer.lr=0.03"]
    assert enqueue(study, checked, [*asked, asked[0]], trials=2) == []
    trial = study.ask()
    trial.set_user_attr("cause", "RunFailed: the loss is not finite")
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert enqueue(study, checked, asked, trials=2) == [
        f"--enqueue {asked[0]}: trial 0 has these values and failed: RunFailed: the loss is not finite",
        f"--enqueue {asked[1]}: trial 1 has these values",
    ]
    assert len(study.trials) == 2


def test_values_that_failed_by_no_fault_of_theirs_are_queued_again(tmp_path: Path) -> None:
    study = begun(tmp_path)
    _, _, checked = parts()
    for _ in range(2):
        assert enqueue(study, checked, ["train.batch=16,train.optimizer.lr=0.02"], trials=1) == []
        trial = study.ask()
        trial.set_user_attr(UNCOUNTED, True)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert len(study.trials) == 2


def test_values_that_the_study_would_end_without_are_refused(tmp_path: Path) -> None:
    study = begun(tmp_path)
    _, _, checked = parts()
    asked = ["train.optimizer.lr=0.02,train.batch=16"]
    enqueue(study, checked, asked, trials=1)
    for state in (optuna.trial.TrialState.FAIL, optuna.trial.TrialState.COMPLETE):
        trial = study.ask({"train.batch": optuna.distributions.CategoricalDistribution([8, 16])})
        study.tell(trial, 0.5 if state == optuna.trial.TrialState.COMPLETE else None, state)
    enqueue(study, checked, asked, trials=1)
    with pytest.raises(UsageError) as caught:
        enqueue(study, checked, [*asked, "train.batch=8,train.optimizer.lr=0.03"], trials=1)
    assert caught.value.message == "study tiny has 1 of its 1 trials, begun or queued: --enqueue asks for 1 more"
    assert caught.value.next_step == "give the same command with --set tune.trials=2"
    assert len(study.trials) == 2
    enqueue(study, checked, ["train.batch=8,train.optimizer.lr=0.03"], trials=2)
    assert len(study.trials) == 3


def test_whole_tables_are_tried_next(tmp_path: Path) -> None:
    tables = '["horizontal_flip", {name = "cutout", size = 8}]'
    space = SPACE + f"augment = {{choices = [[], {tables}]}}\n"
    study = begun(tmp_path, space=space)
    _, _, checked = parts(space=space)
    enqueue(study, checked, [f"train.batch=16,augment={tables},train.optimizer.lr=0.02"], trials=1)
    trial = study.ask()
    checked.suggest(trial)
    assert trial.params["train.batch"] == 16
    assert trial.params["train.optimizer.lr"] == 0.02
    assert "cutout" in trial.params["augment"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('train.batch="8,train.optimizer.lr=0.02', "is outside what the space has for train.batch"),
        ("train.optimizer.lr", "does not look like key=value"),
        ("train.optimizer.rl=0.02", 'train.optimizer.rl: is not in the space; did you mean "train.optimizer.lr"?'),
        ("train.optimizer.lr=0.5", "0.5 is outside what the space has for train.optimizer.lr"),
        ("train.batch=12", "12 is outside what the space has for train.batch"),
        ("train.epochs=2.5", "2.5 is outside what the space has for train.epochs"),
    ],
)
def test_what_is_not_in_the_space_cannot_be_enqueued(tmp_path: Path, text: str, told: str) -> None:
    study = begun(tmp_path)
    with pytest.raises(UsageError) as caught:
        enqueue(study, parts(space=SPACE + EPOCHS)[2], ["train.batch=8", text], trials=2)
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


def test_a_failure_that_is_no_fault_of_the_values_is_not_counted(tmp_path: Path) -> None:
    study = begun(tmp_path)
    trial = study.ask()
    trial.set_user_attr(UNCOUNTED, True)
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert too_many_failures(study, 1) is None
