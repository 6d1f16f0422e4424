from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from tests.tune.studies import SPACE, begun, found_by, parts, planned
from toolkit.tune.search import PRUNERS, SAMPLERS, drawn_at_random, search_of


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
    'sampler = "tpee"': 'tune.sampler.name: unknown sampler "tpee" (choose from tpe, gp, cmaes, random, grid, nsga2); '
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
def test_a_wrong_sampler_or_pruner_is_reported(tune: str) -> None:
    search, problems = found_by(tune)
    assert search is None
    assert WRONG[tune] in "\n".join(problems)


def test_a_sampler_whose_package_is_missing_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert found_by('sampler = "cmaes"')[1] == ['tune.sampler.name: "cmaes" needs the package cmaes: pip install cmaes']


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
