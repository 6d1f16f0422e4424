from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from tests.tiny import RECIPE, only_run, run, write_images, write_recipe
from toolkit.cli import main
from toolkit.components import plan
from toolkit.errors import EXIT_DONE, EXIT_STOPPED, EXIT_USAGE, RecipeError, RunFailed, Stopped
from toolkit.recipe import load
from toolkit.registry import discover
from toolkit.tune import trial as trials
from toolkit.tune.space import check_space
from toolkit.tune.study import aim_of, enqueue_own, open_storage, open_study, search_of
from toolkit.tune.trial import Worker, write_best

SPACE = "train.optimizer.lr = {low = 0.01, high = 0.1}\n"


def recipe_file(tmp_path: Path, tune: str, space: str = SPACE) -> Path:
    root = tmp_path / "images"
    if not root.exists():
        write_images(root)
    return write_recipe(tmp_path, root, text=f"{RECIPE}\n[tune]\n{tune}\n[tune.space]\n{space}")


def worker(path: Path, runs: Path) -> Worker:
    recipe, registry = load(path), discover()
    assert recipe.tune
    space = check_space(recipe, str(path), registry)
    aim, _ = aim_of(recipe, recipe.tune)
    search, _ = search_of(recipe, recipe.tune, space)
    assert search
    folder = runs / recipe.name
    study = open_study(recipe, space, aim, search, open_storage(folder, None))
    enqueue_own(study, space, plan(space.recipe, registry).resolved)
    return Worker(study, space, aim, recipe.tune, str(path), folder, "again")


def records(directory: Path) -> list[tuple[int, float, dict[str, float]]]:
    """What is computed, without how long it took."""
    rows = [json.loads(line) for line in (directory / "records.jsonl").read_text().splitlines()]
    return [(row["step"], row["train_loss"], row["valid"]) for row in rows]


def test_a_study_ends_with_the_asked_trials_and_a_recipe_that_gives_its_best_again(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, 'trials = 3\nsampler = {name = "random", seed = 1}\npruner = "none"')
    one = worker(path, tmp_path / "runs")
    one.work()
    assert [trial.state for trial in one.study.trials] == [TrialState.COMPLETE] * 3
    assert one.study.trials[0].params == {"train.optimizer.lr": 0.05}
    (best,) = write_best(one)
    assert best == tmp_path / "runs" / "tiny" / "best.toml"
    assert run(best, tmp_path / "again") == EXIT_DONE
    winner = one.directory(one.study.best_trial.number)
    assert records(only_run(tmp_path / "again", "best")) == records(winner.path)


class Always(optuna.pruners.BasePruner):
    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        return trial.number > 0


def test_a_pruned_trial_leaves_after_its_epoch(tmp_path: Path) -> None:
    one = worker(recipe_file(tmp_path, "trials = 2"), tmp_path / "runs")
    one.study.pruner = Always()
    one.work()
    assert [trial.state for trial in one.study.trials] == [TrialState.COMPLETE, TrialState.PRUNED]
    assert [len(records(one.directory(number).path)) for number in (0, 1)] == [2, 1]


def test_failures_are_kept_with_their_cause_until_there_are_too_many(tmp_path: Path) -> None:
    space = "train.optimizer.lr = {low = 1e30, high = 1e31}\n"
    one = worker(recipe_file(tmp_path, "trials = 3\nmax_failures = 2", space), tmp_path / "runs")
    with pytest.raises(RunFailed, match="study tiny: 2 trials failed, the last by RunFailed: ") as caught:
        one.work()
    assert caught.value.next_step
    assert [trial.state for trial in one.study.trials] == [TrialState.COMPLETE, TrialState.FAIL, TrialState.FAIL]
    assert all("finite" in trial.user_attrs["cause"] for trial in one.study.trials[1:])


def test_a_score_that_no_epoch_has_ends_the_study_at_once(tmp_path: Path) -> None:
    one = worker(recipe_file(tmp_path, 'trials = 3\nmetric = "acuracy"'), tmp_path / "runs")
    with pytest.raises(RecipeError) as caught:
        one.work()
    assert 'tune.metric: there is no score "acuracy" of an epoch; there are' in str(caught.value.problems[0])
    assert len(one.study.trials) == 1


def test_a_signal_keeps_the_trial_and_the_next_worker_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recipe_file(tmp_path, 'trials = 2\nsampler = {name = "random", seed = 1}\npruner = "none"')
    whole = worker(path, tmp_path / "whole")
    whole.work()
    one = worker(path, tmp_path / "runs")
    scores = Worker._scores

    def interrupted(self: Worker, record: object) -> list[float]:
        os.kill(os.getpid(), signal.SIGTERM)
        return scores(self, record)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(trials.Worker, "_scores", interrupted)
        with pytest.raises(Stopped, match=r"the study in .* keeps all trials") as caught:
            one.work()
    assert (caught.value.exit_code, caught.value.next_step) == (EXIT_STOPPED, "again")
    assert [trial.state for trial in one.study.trials] == [TrialState.RUNNING]
    worker(path, tmp_path / "runs").work()
    assert [trial.state for trial in one.study.trials] == [TrialState.COMPLETE] * 2
    assert records(one.directory(0).path) == records(whole.directory(0).path)


KILLED = """
import os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.test_tune_trial import worker
from toolkit.tune import trial
scores, seen = trial.Worker._scores, []
def killed(self, record):
    seen.append(record)
    if len(seen) == 3:
        os.kill(os.getpid(), 9)
    return scores(self, record)
trial.Worker._scores = killed
worker(Path(sys.argv[1]), Path(sys.argv[2])).work()
"""


@pytest.mark.slow  # a process of its own loads torch
def test_a_killed_workers_trial_is_taken_up_again(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, 'trials = 2\npruner = "none"')
    words = [sys.executable, "-c", KILLED, str(path), str(tmp_path / "runs")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    one = worker(path, tmp_path / "runs")
    assert [trial.state for trial in one.study.trials] == [TrialState.COMPLETE, TrialState.RUNNING]
    one.work()
    assert [trial.state for trial in one.study.trials] == [TrialState.COMPLETE] * 2
    assert [row[0] for row in records(one.directory(1).path)] == [3, 6]


def test_the_command_tunes_and_names_the_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recipe_file(tmp_path, 'trials = 2\nsampler = "random"\npruner = "none"')
    words = ["tune", str(path), "--runs", str(tmp_path / "runs"), "--enqueue", "train.optimizer.lr=0.02"]
    assert main([*words, "--set", "train.epochs=1"]) == EXIT_DONE
    told = capsys.readouterr().out
    assert "trials: 2 finished, 0 pruned, 0 failed" in told
    assert str(tmp_path / "runs" / "tiny" / "best.toml") in told
    tried = {trial.number: trial.params for trial in worker_study(tmp_path)}
    assert tried == {0: {"train.optimizer.lr": 0.05}, 1: {"train.optimizer.lr": 0.02}}


def worker_study(tmp_path: Path) -> list[optuna.trial.FrozenTrial]:
    storage = open_storage(tmp_path / "runs" / "tiny", None)
    return optuna.load_study(study_name="tiny", storage=storage).trials


def test_the_command_tells_all_that_is_wrong_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = "train.epoks = {low = 1, high = 2}\ntrain.batch = {low = 9, high = 8}\n"
    path = recipe_file(tmp_path, 'trials = 2\nsampler = "tpee"\nmetric = "f1"\nmetrics = ["f1"]', space)
    assert main(["tune", str(path), "--runs", str(tmp_path / "runs")]) == EXIT_USAGE
    told = capsys.readouterr().err
    keys = ("tune.space.train.epoks", "tune.space.train.batch", "tune.sampler.name", "tune.metric", "tune.directions")
    assert [key for key in keys if f"{key}: " not in told] == []
    assert f"next:  correct [tune] in {path}" in told
    assert not (tmp_path / "runs").exists()


def test_a_recipe_that_says_nothing_of_tuning_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_recipe(tmp_path)
    assert main(["tune", str(path)]) == EXIT_USAGE
    assert f"{path}: tune: is required: a table with trials and the space" in capsys.readouterr().err
