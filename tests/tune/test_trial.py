from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import TrialState

from tests.tiny import RECIPE, only_run, run, write_images, write_recipe
from tests.tune.studies import begun
from toolkit.api.contracts import EpochRecord, Record
from toolkit.api.errors import (
    EXIT_DONE,
    EXIT_STOPPED,
    EXIT_USAGE,
    RecipeError,
    RunFailed,
    Stopped,
    ToolkitError,
    UsageError,
)
from toolkit.build.assemble import Assembly
from toolkit.build.plan import Plan
from toolkit.cli.main import main
from toolkit.host.registry import discover
from toolkit.recipe.read import load, parse
from toolkit.system import device as devices
from toolkit.system.signals import Signals
from toolkit.training.checkpoint import BestCheckpoint
from toolkit.tune import latency
from toolkit.tune.best import write_best
from toolkit.tune.outcome import UNCOUNTED
from toolkit.tune.queue import enqueue_own
from toolkit.tune.scoring import Scoring
from toolkit.tune.storage import dashboard_command, open_storage, trial_run
from toolkit.tune.study import plan_study
from toolkit.tune.worker import presence
from toolkit.tune.worker.presence import mark_of
from toolkit.tune.worker.trial import StudyLocation, Worker, joined, too_many_failures

SPACE = "train.optimizer.lr = {low = 0.01, high = 0.1}\n"


def recipe_file(tmp_path: Path, tune: str, space: str = SPACE) -> Path:
    root = tmp_path / "images"
    if not root.exists():
        write_images(root)
    return write_recipe(tmp_path, root, text=f"{RECIPE}\n[tune]\n{tune}\n[tune.space]\n{space}")


_JOINED = ExitStack()


@pytest.fixture(autouse=True)
def _closed_studies() -> Iterator[None]:
    with _JOINED:
        yield


def worker(path: Path, runs: Path, storage: str | None = None) -> Worker:
    """One that has joined the study, until the test ends."""
    planned = plan_study(parse(path), discover())
    one = _JOINED.enter_context(joined(StudyLocation(runs, storage, "again"), planned))
    enqueue_own(one.study, planned.own)
    return one


def best_of(one: Worker) -> list[Path]:
    return write_best(one.study, one.planned, one.folder)


def run_of(one: Worker, number: int) -> Path:
    return trial_run(one.folder, number).path


def records(directory: Path) -> list[tuple[int, float, dict[str, float]]]:
    """What is computed, without how long it took."""
    rows = [json.loads(line) for line in (directory / "records.jsonl").read_text().splitlines()]
    return [(row["step"], row["train_loss"], row["valid"]) for row in rows]


def kept(directory: Path) -> dict[str, float]:
    """Scores on the validation split of the weights that a run keeps."""
    scores: dict[str, float] = BestCheckpoint.load(directory / "best.pt").valid
    return scores


def test_a_study_ends_with_the_asked_trials_and_a_recipe_that_gives_its_best_again(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, 'trials = 3\nsampler = {name = "random", seed = 1}\npruner = "none"')
    one = worker(path, tmp_path / "runs")
    one.work()
    assert [trial.state for trial in one.study.trials] == [TrialState.COMPLETE] * 3
    assert one.study.trials[0].params == {"train.optimizer.lr": 0.05}
    (best,) = best_of(one)
    assert best == tmp_path / "runs" / "tiny" / "best.toml"
    assert run(best, tmp_path / "again") == EXIT_DONE
    winner = run_of(one, one.study.best_trial.number)
    assert records(only_run(tmp_path / "again", "best")) == records(winner)


class Always(optuna.pruners.BasePruner):
    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        return trial.number > 0


def test_a_pruned_trial_leaves_after_its_epoch(tmp_path: Path) -> None:
    one = worker(recipe_file(tmp_path, "trials = 2"), tmp_path / "runs")
    one.study.pruner = Always()
    one.work()
    assert [trial.state for trial in one.study.trials] == [TrialState.COMPLETE, TrialState.PRUNED]
    assert [len(records(run_of(one, number))) for number in (0, 1)] == [2, 1]


def test_failures_are_kept_with_their_cause_until_there_are_too_many(tmp_path: Path) -> None:
    space = "train.optimizer.lr = {low = 1e30, high = 1e31}\n"
    one = worker(recipe_file(tmp_path, "trials = 3\nmax_failures = 2", space), tmp_path / "runs")
    with pytest.raises(RunFailed, match="study tiny: 2 trials failed, the last with RunFailed: ") as caught:
        one.work()
    assert caught.value.next_step
    assert [trial.state for trial in one.study.trials] == [TrialState.COMPLETE, TrialState.FAIL, TrialState.FAIL]
    assert all("finite" in trial.user_attrs["cause"] for trial in one.study.trials[1:])


def test_a_full_disk_fails_no_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    one = worker(recipe_file(tmp_path, 'trials = 1\npruner = "none"'), tmp_path / "runs")
    with monkeypatch.context() as patched:
        patched.setattr("toolkit.training.checkpoint.write_atomically", full)
        with pytest.raises(RunFailed, match=r"last\.pt: cannot be written: No space left") as caught:
            one.work()
    assert caught.value.next_step == "when that is fixed: again"
    assert study_of(one) == [TrialState.RUNNING]
    one.work()
    assert study_of(one) == [TrialState.COMPLETE]


def test_a_score_that_no_epoch_has_ends_the_study_at_once(tmp_path: Path) -> None:
    one = worker(recipe_file(tmp_path, 'trials = 3\nmetric = "acuracy"\ndirection = "maximize"'), tmp_path / "runs")
    with pytest.raises(RecipeError) as caught:
        one.work()
    assert 'tune.metric: no score "acuracy" is computed per epoch; available:' in str(caught.value.problems[0])
    assert len(one.study.trials) == 1


def test_a_signal_keeps_the_trial_and_the_next_worker_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recipe_file(tmp_path, 'trials = 2\nsampler = {name = "random", seed = 1}\npruner = "none"')
    whole = worker(path, tmp_path / "whole")
    whole.work()
    one = worker(path, tmp_path / "runs")
    scores = Scoring.scores

    def interrupted(self: Scoring, record: object) -> list[float]:
        os.kill(os.getpid(), signal.SIGTERM)
        return scores(self, record)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Scoring, "scores", interrupted)
        with pytest.raises(Stopped, match=r"the study in .* keeps all trials") as caught:
            one.work()
    assert (caught.value.exit_code, caught.value.next_step) == (EXIT_STOPPED, "again")
    assert [trial.state for trial in one.study.trials] == [TrialState.RUNNING]
    worker(path, tmp_path / "runs").work()
    assert [trial.state for trial in one.study.trials] == [TrialState.COMPLETE] * 2
    assert records(run_of(one, 0)) == records(run_of(whole, 0))


KILLED = """
import os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.tune.test_trial import worker
from toolkit.tune.scoring import Scoring
scores, seen = Scoring.scores, []
def killed(self, record):
    seen.append(record)
    if len(seen) == 3:
        os.kill(os.getpid(), 9)
    return scores(self, record)
Scoring.scores = killed
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
    assert [row[0] for row in records(run_of(one, 1))] == [3, 6]


def test_the_command_tunes_and_names_the_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recipe_file(tmp_path, 'trials = 2\nsampler = "random"\npruner = "none"')
    words = ["tune", str(path), "--runs", str(tmp_path / "runs"), "--enqueue", "train.optimizer.lr=0.02"]
    assert main([*words, "--set", "train.epochs=1"]) == EXIT_DONE
    printed = capsys.readouterr().out
    assert "trials: 2 finished, 0 pruned, 0 failed" in printed
    assert str(tmp_path / "runs" / "tiny" / "best.toml") in printed
    tried = {trial.number: trial.params for trial in worker_study(tmp_path)}
    assert tried == {0: {"train.optimizer.lr": 0.05}, 1: {"train.optimizer.lr": 0.02}}


def test_of_equal_trials_the_first_is_named_as_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe_file(tmp_path, "trials = 2")
    one = worker(path, tmp_path / "runs")
    for _ in range(2):
        trial = one.study.ask()
        one.scoring.draft(trial)
        one.study.tell(trial, 0.5)
    monkeypatch.setattr("toolkit.tune.session.finish_best", lambda *arguments, **others: None)
    monkeypatch.setattr("toolkit.tune.session.write_study_report", lambda *arguments, **others: None)
    assert main(["tune", str(path), "--runs", str(tmp_path / "runs")]) == EXIT_DONE
    screen = capsys.readouterr().out.splitlines()
    named = [line for line in screen if line.startswith("trial ")]
    viewed = [line for line in screen if line.startswith("view ")]
    assert viewed == [f"view {dashboard_command(tmp_path / 'runs' / 'tiny', None)}"] * 2
    assert named == ["trial 0: loss 0.5000 with train.optimizer.lr = 0.05"]


def test_values_cannot_be_queued_in_a_study_that_has_all_its_trials(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe_file(tmp_path, 'trials = 1\nsampler = "random"\npruner = "none"')
    words = ["tune", str(path), "--runs", str(tmp_path / "runs"), "--set", "train.epochs=1"]
    assert main(words) == EXIT_DONE
    words += ["--enqueue", "train.optimizer.lr=0.02"]
    assert main(words) == EXIT_USAGE
    printed = capsys.readouterr().err
    assert "study tiny has 1 of its 1 trials, begun or queued: --enqueue asks for 1 more" in printed
    assert "--set tune.trials=2" in printed
    assert main([*words, "--set", "tune.trials=2"]) == EXIT_DONE
    assert [trial.params["train.optimizer.lr"] for trial in worker_study(tmp_path)] == [0.05, 0.02]


def test_the_best_is_repeated_and_exported_when_that_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = recipe_file(tmp_path, 'trials = 2\nsampler = "random"\npruner = "none"')
    assert main(["tune", str(path), "--seeds", "2", "--export", "--set", "train.epochs=1"]) == EXIT_DONE
    printed = capsys.readouterr().out
    compared = json.loads((tmp_path / "runs" / "tiny" / "best.json").read_text())
    assert len(compared["candidates"][0]["seeds"]) == 2
    assert (tmp_path / "exports" / "tiny" / "bundle.json").is_file()
    assert "bundle exports/tiny" in printed


def test_a_stopped_study_has_its_report_and_best_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe_file(tmp_path, 'trials = 2\npruner = "none"')
    scores, seen = Scoring.scores, []

    def interrupted(self: Scoring, record: EpochRecord) -> list[float]:
        seen.append(record)
        if len(seen) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return scores(self, record)

    monkeypatch.setattr(Scoring, "scores", interrupted)
    words = ["tune", str(path), "--runs", str(tmp_path / "runs")]
    assert main(words) == EXIT_STOPPED
    printed = capsys.readouterr()
    assert f"next:  python -m toolkit {' '.join(words)}" in printed.err
    assert "trials: 1 finished, 0 pruned, 0 failed" in printed.out
    assert {"best.toml", "study.html"} <= {path.name for path in (tmp_path / "runs" / "tiny").iterdir()}


def test_a_report_that_fails_does_not_hide_what_ended_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise OSError("no room for a report")

    monkeypatch.setattr("toolkit.tune.session.write_study_report", failing)
    path = recipe_file(tmp_path, 'trials = 2\nmetric = "acuracy"\ndirection = "maximize"')
    assert main(["tune", str(path), "--runs", str(tmp_path / "runs")]) == EXIT_USAGE
    printed = capsys.readouterr()
    assert 'tune.metric: no score "acuracy"' in printed.err
    assert "warning: OSError: no room for a report" in printed.out


def worker_study(tmp_path: Path) -> list[optuna.trial.FrozenTrial]:
    storage = open_storage(tmp_path / "runs" / "tiny", None)
    return optuna.load_study(study_name="tiny", storage=storage).trials


def test_the_command_reports_all_that_is_wrong_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = "train.epoks = {low = 1, high = 2}\ntrain.batch = {low = 9, high = 8}\n"
    path = recipe_file(tmp_path, 'trials = 2\nsampler = "tpee"\nmetric = "f1"\nmetrics = ["f1"]', space)
    assert main(["tune", str(path), "--runs", str(tmp_path / "runs")]) == EXIT_USAGE
    printed = capsys.readouterr().err
    keys = ("tune.space.train.epoks", "tune.space.train.batch", "tune.sampler.name", "tune.metric", "tune.directions")
    assert [key for key in keys if f"{key}: " not in printed] == []
    assert f"next:  correct [tune] in {path}" in printed
    assert not (tmp_path / "runs").exists()


def test_a_recipe_that_says_nothing_of_tuning_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_recipe(tmp_path)
    assert main(["tune", str(path)]) == EXIT_USAGE
    assert f"{path}: tune: is required: a table with trials and the space" in capsys.readouterr().err


def study_of(one: Worker) -> list[TrialState]:
    return [trial.state for trial in one.study.get_trials(deepcopy=False)]


WARM = """
train.batch = {choices = [8, 6]}
input.size = {choices = [32, 24]}
data.valid_share = {choices = [0.2, 0.4]}
augment.random_crop.padding = {low = 1, high = 3}
"""


def test_a_warm_worker_computes_what_a_fresh_process_would(tmp_path: Path) -> None:
    """Whether the data of the trial before serves it too or not."""
    one = worker(recipe_file(tmp_path, 'trials = 7\nsampler = {name = "random", seed = 2}', WARM), tmp_path / "runs")
    one.study.pruner = optuna.pruners.NopPruner()
    one.work()
    recipes = [load(run_of(one, number) / "recipe.toml") for number in range(7)]
    data = [(recipe.input.size, recipe.data.args["valid_share"]) for recipe in recipes]
    again = [number for number in range(1, 7) if data[number] == data[number - 1]]
    assert 0 < len(again) < 6
    for number in (again[0], next(number for number in range(1, 7) if number not in again)):
        fresh = tmp_path / f"fresh-{number}"
        assert run(run_of(one, number) / "recipe.toml", fresh) == EXIT_DONE
        assert records(only_run(fresh, "tiny")) == records(run_of(one, number))


def test_data_is_read_once_for_all_trials_that_share_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    data = Plan.data
    monkeypatch.setattr(Plan, "data", lambda self: read.append(self.resolved.seed) or data(self))
    one = worker(recipe_file(tmp_path, 'trials = 3\npruner = "none"'), tmp_path / "runs")
    one.work()
    assert study_of(one) == [TrialState.COMPLETE] * 3
    assert len(read) == 1


def test_what_a_trial_asks_of_torch_ends_with_it(tmp_path: Path) -> None:
    space = "train.deterministic = {choices = [true, false]}\ntrain.threads = {choices = [1, 2]}\n"
    tune = 'trials = 4\nsampler = "grid"\npruner = "none"'
    one = worker(recipe_file(tmp_path, tune, space), tmp_path / "runs")
    seen, own = [], torch.get_num_threads()
    scores = Scoring.scores

    def looking(self: Scoring, record: EpochRecord) -> list[float]:
        seen.append((torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()))
        return scores(self, record)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Scoring, "scores", looking)
        one.work()
    asked = [trial.params for trial in one.study.trials[1:]]
    assert seen.pop(0) == seen.pop(0) == (False, own)  # the recipe's own values: of threads it has none
    assert seen == [(params["train.deterministic"], params["train.threads"]) for params in asked for _ in range(2)]
    devices.make_deterministic(False)
    devices.use_threads(None)


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_trial_is_worth_what_the_weights_are_that_its_run_keeps(tmp_path: Path, direction: str) -> None:
    """Whichever epoch has the best of the study's score, the run keeps that of the best `train.metric`."""
    path = recipe_file(tmp_path, f'trials = 1\nmetric = "loss"\ndirection = "{direction}"')
    path.write_text(path.read_text().replace('metric = "loss"\ndirection = "maximize"\n', "", 1))
    one = worker(path, tmp_path / "runs")
    one.work()
    assert one.study.best_value == kept(run_of(one, 0))["loss"]


def test_a_tracker_that_fails_in_a_study_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Failing:
        def track(self, record: Record) -> None:
            raise OSError("no room for records")

    monkeypatch.setattr(Plan, "trackers", lambda self, directory: [Failing()])
    worker(recipe_file(tmp_path, "trials = 1"), tmp_path / "runs").work()
    assert "warning: tracker Failing failed and is skipped from here on: OSError: no room" in capsys.readouterr().err


SEEDS = 'trials = 2\nseeds_per_trial = 2\nsampler = {name = "random", seed = 1}\n'


def test_a_trial_of_several_seeds_is_worth_their_mean(tmp_path: Path) -> None:
    tune = f'{SEEDS}pruner = "none"\nmetric = "accuracy"\ndirection = "maximize"'
    one = worker(recipe_file(tmp_path, tune), tmp_path / "runs")
    one.work()
    for trial in one.study.trials:
        first = run_of(one, trial.number)
        assert trial.value == pytest.approx((kept(first)["accuracy"] + kept(first / "seed-1")["accuracy"]) / 2)
        assert [load(folder / "recipe.toml").seed for folder in (first, first / "seed-1")] == [0, 1]
        assert records(first) != records(first / "seed-1")
    assert run(run_of(one, 1) / "seed-1" / "recipe.toml", tmp_path / "again") == EXIT_DONE
    assert records(only_run(tmp_path / "again", "tiny")) == records(run_of(one, 1) / "seed-1")


def test_a_trial_interrupted_in_its_second_seed_goes_on_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = recipe_file(tmp_path, f'{SEEDS}pruner = "none"')
    whole = worker(path, tmp_path / "whole")
    whole.work()
    one = worker(path, tmp_path / "runs")
    seen: list[EpochRecord] = []
    scores = Scoring.scores

    def interrupted(self: Scoring, record: EpochRecord) -> list[float]:
        seen.append(record)
        if len(seen) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return scores(self, record)

    with monkeypatch.context() as patched:
        patched.setattr(Scoring, "scores", interrupted)
        with pytest.raises(Stopped):
            one.work()
    assert study_of(one) == [TrialState.RUNNING]
    worker(path, tmp_path / "runs").work()
    assert [trial.value for trial in one.study.trials] == [trial.value for trial in whole.study.trials]
    assert records(run_of(one, 0) / "seed-1") == records(run_of(whole, 0) / "seed-1")


def test_wilcoxon_hears_of_each_seed(tmp_path: Path) -> None:
    one = worker(recipe_file(tmp_path, f'{SEEDS}pruner = "wilcoxon"'), tmp_path / "runs")
    one.work()
    for trial in one.study.trials:
        assert sorted(trial.intermediate_values) == [0, 1]
        assert trial.value == pytest.approx(sum(trial.intermediate_values.values()) / 2)


def test_a_pruner_of_seeds_ends_a_trial_between_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = worker(recipe_file(tmp_path, f'{SEEDS}pruner = "wilcoxon"'), tmp_path / "runs")
    monkeypatch.setattr(optuna.pruners.WilcoxonPruner, "prune", lambda pruner, study, trial: trial.number > 0)
    one.work()
    assert study_of(one) == [TrialState.COMPLETE, TrialState.PRUNED]
    assert len(records(run_of(one, 1))) == 2
    assert not (run_of(one, 1) / "seed-1").exists()


def test_the_time_that_the_exported_model_takes_is_a_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured, measure = [], latency.measure

    def measuring(assembly: Assembly) -> float:
        measured.append(assembly.recipe.model)
        return measure(assembly)

    monkeypatch.setattr(latency, "measure", measuring)
    monkeypatch.setattr(latency, "SECONDS", 0.0)
    tune = 'trials = 3\nsampler = "grid"\nmetrics = ["latency", "accuracy"]\ndirections = ["minimize", "maximize"]'
    space = "model.widths = {choices = [[8, 8], [32, 32]]}\ntrain.epochs = {choices = [1, 2]}\n"
    one = worker(recipe_file(tmp_path, tune, space), tmp_path / "runs")
    one.work()
    assert study_of(one) == [TrialState.COMPLETE] * 3
    for trial in one.study.trials:
        assert 0 < trial.values[0] < 10_000
        assert trial.values[1] == kept(run_of(one, trial.number))["accuracy"]
    assert len(measured) == len({trial.params["model.widths"] for trial in one.study.trials})
    assert len(best_of(one)) == len(one.study.best_trials)


def test_what_has_left_the_front_is_no_longer_among_the_best(tmp_path: Path) -> None:
    tune = 'trials = 2\nmetrics = ["accuracy", "loss"]\ndirections = ["maximize", "minimize"]'
    one = worker(recipe_file(tmp_path, tune), tmp_path / "runs")
    values = {"train.optimizer.lr": optuna.distributions.FloatDistribution(0.01, 0.1)}
    one.study.tell(one.study.ask(values), [0.5, 0.5])
    assert [path.name for path in best_of(one)] == ["best-0000.toml"]
    one.study.tell(one.study.ask(values), [0.6, 0.4])
    assert [path.name for path in best_of(one)] == ["best-0001.toml"]
    assert [path.name for path in one.folder.glob("best*.toml")] == ["best-0001.toml"]


# Where a trial lies


def interrupt(one: Worker, epochs: int = 1) -> None:
    """Work until a signal comes, which is after so many epochs of this worker."""
    scores, seen = Scoring.scores, []

    def interrupted(self: Scoring, record: EpochRecord) -> list[float]:
        seen.append(record)
        if len(seen) == epochs:
            os.kill(os.getpid(), signal.SIGTERM)
        return scores(self, record)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Scoring, "scores", interrupted)
        with pytest.raises(Stopped):
            one.work()


def on(host: str, monkeypatch: pytest.MonkeyPatch, *, boot: str) -> None:
    """Be on another machine from here on, as far as names show."""
    monkeypatch.setattr(presence, "machine", lambda: [host, boot])


TWO = 'trials = 2\nsampler = {name = "random", seed = 1}\npruner = "none"'


@pytest.mark.parametrize("database", [False, True])
@pytest.mark.parametrize("change", ["moved", "renamed host", "new boot"])
def test_an_interrupted_trial_goes_on_in_its_folder_wherever_that_is_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, database: bool
) -> None:
    path, runs = recipe_file(tmp_path, TWO), tmp_path / "runs"
    storage = f"sqlite:///{tmp_path}/study.db" if database else None
    on("here", monkeypatch, boot="first")
    interrupt(worker(path, runs, storage))
    if change == "moved":
        runs = runs.rename(tmp_path / "elsewhere")
    else:
        on("here" if change == "new boot" else "there", monkeypatch, boot="second" if change == "new boot" else "first")
    one = worker(path, runs, storage)
    monkeypatch.setattr(presence, "SILENT_SECONDS", 0.0)  # who takes it for another machine's does not wait for ever
    one.work()
    assert study_of(one) == [TrialState.COMPLETE] * 2


def test_the_folder_of_a_journal_may_go_to_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = recipe_file(tmp_path, TWO)
    on("here", monkeypatch, boot="first")
    interrupt(worker(path, tmp_path / "runs"))
    shutil.move(tmp_path / "runs", tmp_path / "there")
    on("there", monkeypatch, boot="second")
    one = worker(path, tmp_path / "there")
    one.work()
    assert study_of(one) == [TrialState.COMPLETE] * 2


def test_another_machines_folder_of_the_study_does_not_have_its_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, storage = recipe_file(tmp_path, TWO), f"sqlite:///{tmp_path}/study.db"
    interrupt(worker(path, tmp_path / "runs", storage))
    one = worker(path, tmp_path / "other", storage)
    run_of(one, 0).mkdir()
    monkeypatch.setattr(presence, "SILENT_SECONDS", 0.0)
    one.work()
    assert study_of(one) == [TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]


def test_a_folder_on_two_machines_is_worked_on_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy, or a drive that both see, whose locks need not reach from one to the other."""
    path, storage = recipe_file(tmp_path, TWO), f"sqlite:///{tmp_path}/study.db"
    on("here", monkeypatch, boot="first")
    interrupt(worker(path, tmp_path / "runs", storage))
    shutil.copytree(tmp_path / "runs", tmp_path / "copy")
    here = worker(path, tmp_path / "runs", storage)
    on("there", monkeypatch, boot="second")
    there = worker(path, tmp_path / "copy", storage)

    def taken(one: Worker) -> bool:
        with ExitStack() as held:
            return one._left_behind(held) is not None

    assert [taken(there), taken(there)] == [False, False]
    with monkeypatch.context() as patched:
        patched.setattr(presence, "SILENT_SECONDS", 0.0)
        assert taken(there)
    on("here", monkeypatch, boot="first")
    assert not taken(here)  # it is the other's by now


def test_workers_that_begin_at_once_agree_on_their_folder(tmp_path: Path) -> None:
    together = threading.Barrier(8)

    def asked(_: int) -> str:
        together.wait()
        return mark_of(tmp_path / "tiny")

    with ThreadPoolExecutor(8) as threads:
        assert len({*threads.map(asked, range(8))}) == 1
    assert mark_of(tmp_path / "other") != mark_of(tmp_path / "tiny")


def test_a_trial_that_was_taken_and_left_draws_what_its_number_says(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, TWO)
    whole = worker(path, tmp_path / "whole")
    whole.work()
    one = worker(path, tmp_path / "runs")
    with ExitStack() as held:
        for _ in range(2):
            assert one._next(held)
    worker(path, tmp_path / "runs").work()
    assert [trial.params for trial in one.study.trials] == [trial.params for trial in whole.study.trials]


# Workers on other machines


def of_another(one: Worker) -> optuna.Study:
    """The study as another machine has it."""
    return optuna.load_study(study_name="tiny", storage=open_storage(one.folder, None))


def test_a_silent_machines_trial_is_given_up_and_its_values_are_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "SILENT_SECONDS", 0.0)
    one = replace(worker(recipe_file(tmp_path, 'trials = 2\npruner = "none"'), tmp_path / "runs"), shared=True)
    trial = of_another(one).ask()  # the recipe's own values
    trial.set_user_attr("machine", ["elsewhere", "its boot"])
    lost = of_another(one).ask()
    lost.suggest_float("train.optimizer.lr", 0.01, 0.1)
    one.work()
    states = study_of(one)
    assert states[:2] == [TrialState.FAIL] * 2
    assert sorted(states[2:], key=str) == [TrialState.COMPLETE] * 2
    assert "its worker on elsewhere has been silent for" in one.study.trials[0].user_attrs["cause"]
    assert [one.study.trials[number].params for number in (2, 3)] == [
        {"train.optimizer.lr": 0.05},
        lost.params,
    ]
    assert "own" in one.study.trials[2].user_attrs


def test_a_machine_that_signs_is_waited_for(tmp_path: Path) -> None:
    watch = presence.Watch()
    study = optuna.create_study()
    trial = study.ask()
    trial.set_user_attr("machine", "elsewhere")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(presence, "SIGN_SECONDS", 0.01)
        patched.setattr(presence, "SILENT_SECONDS", 0.0)
        with presence.signing(trial):
            assert not watch.is_silent(study.trials[0])
            before = study.trials[0].user_attrs.get(presence.SIGNATURE)
            while study.trials[0].user_attrs.get(presence.SIGNATURE) == before:
                time.sleep(0.01)
            assert not watch.is_silent(study.trials[0])
        watch.is_silent(study.trials[0])
        assert watch.is_silent(study.trials[0])


def test_a_storage_that_fails_for_a_moment_ends_no_signing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "SIGN_SECONDS", 0.01)
    trial = optuna.create_study().ask()
    calls = []

    def failing(*_: object) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise OSError

    monkeypatch.setattr(trial.storage, "set_trial_user_attr", failing)
    with presence.signing(trial):
        while len(calls) < 3:
            time.sleep(0.01)


def test_a_trial_whose_worker_was_killed_as_it_took_it_is_tried_again(tmp_path: Path) -> None:
    one = worker(recipe_file(tmp_path, 'trials = 1\npruner = "none"'), tmp_path / "runs")
    of_another(one).ask()
    one.work()
    assert study_of(one) == [TrialState.FAIL, TrialState.COMPLETE]
    assert one.study.trials[1].params == {"train.optimizer.lr": 0.05}
    assert "own" in one.study.trials[1].user_attrs


def test_a_point_of_a_grid_that_was_lost_is_tried_again(tmp_path: Path) -> None:
    space = "train.optimizer.lr = {choices = [0.05, 0.02]}\n"
    one = worker(recipe_file(tmp_path, 'trials = 2\nsampler = "grid"\npruner = "none"', space), tmp_path / "runs")
    for _ in range(2):
        lost = one.study.ask()
        lost.suggest_categorical("train.optimizer.lr", [0.05, 0.02])
        if lost.number == 0:
            one.study.tell(lost, 0.5)
    one.work()
    assert study_of(one) == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    assert one.study.trials[2].params == lost.params == {"train.optimizer.lr": 0.02}


def test_the_command_reports_what_a_sampler_draws_at_random(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recipe_file(tmp_path, 'trials = 1\nsampler = "nsga2"', SPACE + "train.batch = {choices = [4, 6]}\n")
    assert main(["tune", str(path), "--runs", str(tmp_path / "runs"), "--set", "train.epochs=1"]) == EXIT_DONE
    assert "note: tune.space.train.batch: the recipe's own value is outside the space" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rates", "trials", "printed"),
    [
        ("[0.02, 0.03]", 2, "the grid has 3 points, the study tries 2; for all of them: --set tune.trials=3"),
        ("[0.02, 0.03]", 3, ""),
        ("[0.05, 0.03]", 1, "the grid has 2 points, the study tries 1; for all of them: --set tune.trials=2"),
        ("[0.05, 0.03]", 2, ""),
    ],
)
def test_the_command_reports_that_a_grid_will_not_be_seen_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rates: str, trials: int, printed: str
) -> None:
    path = recipe_file(
        tmp_path, f'trials = {trials}\nsampler = "grid"', f"train.optimizer.lr = {{choices = {rates}}}\n"
    )
    one = worker(path, tmp_path / "runs")
    for _ in range(trials):
        one.study.tell(one.study.ask(), 0.5)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("toolkit.tune.session.finish_best", lambda *arguments, **others: None)
        patched.setattr("toolkit.tune.session.write_study_report", lambda *arguments, **others: None)
        patched.setattr("toolkit.tune.session.write_best", lambda *arguments: [])
        assert main(["tune", str(path), "--runs", str(tmp_path / "runs")]) == EXIT_DONE
    assert [
        line.removeprefix("note: tune.trials: ") for line in capsys.readouterr().out.splitlines() if "grid" in line
    ] == ([printed] if printed else [])


def test_runs_of_another_study_are_no_runs_of_this_one(tmp_path: Path) -> None:
    """Of one in another database, or whose journal was removed."""
    path = recipe_file(tmp_path, TWO.replace("seed = 1", "seed = 2"))
    worker(path, tmp_path / "runs").work()
    path = recipe_file(tmp_path, TWO)
    one = worker(path, tmp_path / "runs", f"sqlite:///{tmp_path}/study.db")
    with pytest.raises(UsageError, match="trial-0000: is a run of another study") as caught:
        one.work()
    assert str(caught.value.next_step).startswith(f"move {one.folder} away")
    assert study_of(one) == [TrialState.WAITING]


def test_two_machines_do_not_both_take_the_last_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other takes one between our look and our asking."""
    one = replace(worker(recipe_file(tmp_path, 'trials = 2\npruner = "none"'), tmp_path / "runs"), shared=True)
    other = of_another(one)
    ask = optuna.Study.ask

    def late(self: optuna.Study) -> optuna.Trial:
        if self is one.study and len(other.get_trials(deepcopy=False)) == 1:
            for _ in range(2):
                other.tell(ask(other), 0.5)
        return ask(self)

    monkeypatch.setattr(optuna.Study, "ask", late)
    one.work()
    assert study_of(one) == [TrialState.COMPLETE] * 2 + [TrialState.FAIL]
    assert one.study.trials[2].user_attrs["cause"] == "there were enough trials already"


def test_the_recipes_own_values_are_tried_once_even_if_several_workers_queue_them(tmp_path: Path) -> None:
    one = worker(recipe_file(tmp_path, 'trials = 2\npruner = "none"'), tmp_path / "runs")
    own = one.study.trials[0]
    one.study.enqueue_trial(own.system_attrs["fixed_params"], user_attrs=own.user_attrs)
    one.work()
    assert study_of(one) == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    assert one.study.trials[1].user_attrs["cause"] == "another trial has the recipe's own values already"


def test_a_trial_that_others_have_given_up_is_left_to_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = worker(recipe_file(tmp_path, 'trials = 2\npruner = "none"'), tmp_path / "runs")
    values = Scoring.values

    def taken(self: Scoring, trial: optuna.Trial, signals: Signals) -> list[float]:
        if trial.number == 0:
            of_another(one).tell(0, state=TrialState.FAIL)
        return values(self, trial, signals)

    monkeypatch.setattr(Scoring, "values", taken)
    one.work()
    assert study_of(one) == [TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]


def test_a_storage_that_fails_ends_the_worker_and_keeps_the_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = worker(recipe_file(tmp_path, 'trials = 1\npruner = "none"'), tmp_path / "runs")

    def failing(self: optuna.Trial, value: float, step: int) -> None:
        raise optuna.exceptions.StorageInternalError("commit") from OSError("server closed the connection")

    with monkeypatch.context() as patched:
        patched.setattr(optuna.Trial, "report", failing)
        with pytest.raises(RunFailed, match="the storage of study tiny has failed: server closed") as caught:
            one.work()
    assert caught.value.next_step == "when it answers again: again"
    assert study_of(one) == [TrialState.RUNNING]
    one.work()
    assert study_of(one) == [TrialState.COMPLETE]


def test_the_best_of_another_machine_is_written_by_its_values(tmp_path: Path) -> None:
    one = worker(recipe_file(tmp_path, 'trials = 2\npruner = "none"'), tmp_path / "runs")
    one.work()
    winner = one.study.best_trial.number
    there = (run_of(one, winner) / "recipe.toml").read_text()
    shutil.rmtree(run_of(one, winner))
    (best,) = best_of(one)
    assert best.read_text() == there


def test_a_study_ends_at_its_limit_of_failures(tmp_path: Path) -> None:
    study = begun(tmp_path)
    trial = study.ask()
    trial.set_user_attr("cause", "RunFailed: the loss is not finite")
    assert too_many_failures(study, 1) is None
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    error: Any = too_many_failures(study, 1)
    assert isinstance(error, ToolkitError)
    assert "1 trials failed, the last with RunFailed: the loss is not finite" in error.message
    assert too_many_failures(study, 2) is None


def test_a_failure_without_fault_of_the_values_is_not_counted(tmp_path: Path) -> None:
    study = begun(tmp_path)
    trial = study.ask()
    trial.set_user_attr(UNCOUNTED, True)
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert too_many_failures(study, 1) is None
