from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial
from rich.console import Console

from tests.tiny import RECIPE, write_images, write_recipe
from toolkit.api.errors import EXIT_STOPPED, RunFailed, Stopped
from toolkit.host.registry import discover
from toolkit.recipe.read import load
from toolkit.recipe.tables import TuneTable
from toolkit.recipe.write import to_toml
from toolkit.runs.directory import RunDirectory
from toolkit.runs.repeats import mean_text, repeated_rows
from toolkit.system.signals import Signals
from toolkit.tune import best
from toolkit.tune.aim import Aim
from toolkit.tune.best import Finalists, export_best, finish_best, read_finalists
from toolkit.tune.search import Search
from toolkit.tune.space import Dimension, Space, Values
from toolkit.tune.storage import repeat_of, trial_run
from toolkit.tune.study import StudyPlan

LR = "train.optimizer.lr"


class Study:
    """A study with trials that are reported by hand, and runs that only leave what they are read for."""

    def __init__(self, folder: Path, *, metrics: int = 1) -> None:
        self.folder = folder / "runs" / "tiny"
        self.folder.mkdir(parents=True)
        self.source = str(write_recipe(folder))
        self.recipe = load(Path(self.source))
        self.space = Space(self.recipe, (Dimension(LR, Values(low=0.01, high=1.0)),))
        self.study = optuna.create_study(study_name="tiny", directions=["maximize"] * metrics)
        self.ran: list[str] = []
        self.fails: Callable[[Path], bool] = lambda path: False
        self.splits = ("valid", "test")
        self.log = io.StringIO()

    def add(
        self,
        lr: float,
        values: list[float] | None,
        state: TrialState = TrialState.COMPLETE,
        *,
        here: bool = True,
        **attrs: object,
    ) -> int:
        number = len(self.study.trials)
        ended = state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        trial = create_trial(
            state=state,
            values=values,
            params={LR: lr} if ended else {},
            distributions={LR: FloatDistribution(0.01, 1.0)} if ended else {},
            user_attrs=attrs,
        )
        self.study.add_trial(trial)
        if here:
            run = trial_run(self.folder, number)
            run.path.mkdir()
            run.write_text(run.recipe, to_toml(self.with_rate(lr)))
        return number

    def with_rate(self, lr: float) -> Any:
        optimizer = self.recipe.train.optimizer.model_copy(update={"lr": lr})
        return self.recipe.model_copy(update={"train": self.recipe.train.model_copy(update={"optimizer": optimizer})})

    def finish(self, seeds: int = 1) -> Finalists | None:
        console = Console(file=self.log, width=200)
        search = Search(self.study.sampler, self.study.pruner)
        aim, tune = Aim(("accuracy",), ("maximize",)), TuneTable(trials=1, space={})
        planned = StudyPlan(self.recipe, self.source, discover(), tune, self.space, aim, search, {})
        return finish_best(self.study, planned, self.folder, seeds=seeds, again="again", console=console)

    def run(self, path: Path, *, recipe: None, overrides: tuple[str, ...], console: Console) -> None:
        self.ran.append(str(path.relative_to(self.folder)))
        if self.fails(path):
            raise RunFailed("the loss is not finite")
        read = load(path / "recipe.toml")
        scores = {"accuracy": read.train.optimizer.lr + read.seed / 100, "f1": None, "confusion_matrix": [[1.0]]}
        directory = RunDirectory(path)
        directory.write_json(directory.scores, {"valid": {}, "test": {}} | dict.fromkeys(self.splits, scores))
        directory.write_json(directory.facts, {"sample": True})
        directory.write_text(directory.report, "")


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    made = Study(tmp_path)
    monkeypatch.setattr(best, "resume_run", made.run)
    return made


def test_the_best_is_finished_and_compared_with_the_recipes_own_values(study: Study) -> None:
    study.add(0.05, [0.5], own=[LR])
    study.add(0.5, [0.9])
    compared = study.finish()
    assert compared
    assert study.ran == ["trial-0001", "trial-0000"]
    assert [(one.name, one.trial, one.values, one.seeds) for one in compared.candidates] == [
        ("trial 1", 1, {LR: 0.5}, (0,)),
        ("own values", 0, {LR: 0.05}, (0,)),
    ]
    assert compared.candidates[0].scores["accuracy"] == (0.5,)
    assert (compared.split, compared.sample) == ("test", True)
    shown = study.log.getvalue()
    assert "tiny: scores on test (SAMPLE data)" in shown
    assert "undefined" in shown
    assert "confusion_matrix" not in shown


def test_seeds_reports_the_gain_with_its_spread(study: Study) -> None:
    study.add(0.05, [0.5], own=[LR])
    study.add(0.5, [0.9])
    study.finish(seeds=3)
    assert study.ran == [
        *("trial-0001", "trial-0001/seed-1", "trial-0001/seed-2"),
        *("trial-0000", "trial-0000/seed-1", "trial-0000/seed-2"),
    ]
    assert "51.0 ± 1.0 %" in study.log.getvalue()
    assert "trial 1, 3 seeds" in study.log.getvalue()
    table = json.loads((study.folder / "best.json").read_text())["candidates"][0]
    accuracy = table["scores"]["accuracy"]
    assert [accuracy["mean"], accuracy["std"], *accuracy["values"]] == pytest.approx([0.51, 0.01, 0.5, 0.51, 0.52])
    repeat = load(study.folder / "trial-0001" / "seed-2" / "recipe.toml")
    assert (repeat.seed, repeat.train.optimizer.lr) == (2, 0.5)


def test_what_is_finished_is_not_run_again(study: Study) -> None:
    study.add(0.5, [0.9], own=[LR])
    study.finish(seeds=2)
    study.ran.clear()
    (study.folder / "trial-0000" / "seed-1" / "report.html").unlink()
    study.finish(seeds=3)
    assert study.ran == ["trial-0000/seed-1", "trial-0000/seed-2"]


def test_a_repeat_that_fails_is_reported_and_the_others_count(study: Study) -> None:
    study.add(0.5, [0.9], own=[LR])
    study.fails = lambda path: path.name == "seed-1"
    compared = study.finish(seeds=3)
    assert compared
    (one,) = compared.candidates
    assert one.seeds == (0, 2)
    assert one.failures == {"trial-0000/seed-1": "the loss is not finite"}
    assert "trial-0000/seed-1 failed" in study.log.getvalue()


def test_when_every_run_fails_that_is_what_is_reported(study: Study) -> None:
    study.add(0.5, [0.9], own=[LR])
    study.fails = lambda path: True
    compared = study.finish()
    assert compared
    assert (compared.candidates[0].scores, compared.scores) == ({}, [])
    assert "the loss is not finite" in study.log.getvalue()


def test_own_values_that_were_pruned_are_run_whole_for_a_comparison_over_seeds(study: Study) -> None:
    study.add(0.05, None, TrialState.PRUNED, own=[LR])
    study.add(0.5, [0.9])
    compared = study.finish()
    assert compared
    assert compared.notes == ("the recipe's own values were pruned; two seeds or more run them whole",)
    assert study.ran == ["trial-0001"]
    study.finish(seeds=2)
    assert study.ran == ["trial-0001", "trial-0001/seed-1", "own", "own/seed-1"]
    assert load(study.folder / "own" / "recipe.toml").train.optimizer.lr == 0.05


@pytest.mark.parametrize(
    ("state", "attrs", "note"),
    [
        (TrialState.FAIL, {"cause": "no memory"}, "the recipe's own values failed: no memory"),
        (TrialState.WAITING, {}, "the recipe's own values have not been tried to their end; two seeds or more"),
    ],
)
def test_own_values_that_have_no_score_are_reported(
    study: Study, state: TrialState, attrs: Mapping[str, object], note: str
) -> None:
    study.add(0.05, None, state, own=[LR], **attrs)
    study.add(0.5, [0.9])
    compared = study.finish(seeds=2)
    assert compared
    assert [one.name for one in compared.candidates] == ["trial 1"]
    assert compared.notes[0].startswith(note)
    assert f"note: {note}" in study.log.getvalue()


def test_a_trial_that_another_machine_has_run_is_run_by_its_values(study: Study) -> None:
    study.add(0.05, [0.5], here=False, own=[LR])
    study.add(0.5, [0.9], here=False)
    compared = study.finish()
    assert compared
    assert [one.scores["accuracy"] for one in compared.candidates] == [(0.5,), (0.05,)]


def test_without_a_test_split_the_validation_split_is_reported(study: Study) -> None:
    study.splits = ("valid",)
    study.add(0.5, [0.9])
    compared = study.finish()
    assert compared
    assert compared.split == "valid"
    assert "scores on valid" in study.log.getvalue()


def test_a_study_without_a_finished_trial_has_no_best(study: Study) -> None:
    study.add(0.05, None, TrialState.FAIL, own=[LR])
    assert study.finish() is None
    assert export_best(study.study, study.folder, exports=study.folder, console=Console(quiet=True)) == []
    assert not (study.folder / "best.json").exists()


def test_of_several_metrics_the_front_is_compared_thinned_and_ends_included(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study(tmp_path, metrics=2)
    monkeypatch.setattr(best, "resume_run", study.run)
    for step in range(9):
        study.add(0.1 + step / 100, [step / 10, 1 - step / 10])
    compared = study.finish()
    assert compared
    assert [one.trial for one in compared.candidates] == [0, 2, 4, 6, 8]
    assert compared.notes == ("5 of the 9 trials of the Pareto front are compared",)


def test_a_signal_ends_with_the_command_that_goes_on(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    study.add(0.5, [0.9])

    def interrupted(path: Path, **given: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(best, "resume_run", interrupted)
    with pytest.raises(Stopped, match="keeps the study and the last checkpoint") as caught:
        study.finish()
    assert (caught.value.exit_code, caught.value.next_step) == (EXIT_STOPPED, "again")


def test_a_run_that_saved_itself_ends_with_the_same_command(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    study.add(0.5, [0.9])

    def stopped(path: Path, **given: object) -> None:
        raise Stopped("saved", exit_code=130, next_step="resume this run")

    monkeypatch.setattr(best, "resume_run", stopped)
    with pytest.raises(Stopped) as caught:
        study.finish()
    assert (caught.value.exit_code, caught.value.next_step) == (130, "again")


def test_one_process_at_a_time_finishes_the_best(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    study.add(0.5, [0.9])
    monkeypatch.setattr(Signals, "__enter__", lambda self: self)
    monkeypatch.setattr(Signals, "__exit__", lambda *_: None)
    with (study.folder / ".best.lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        waiting = threading.Thread(target=study.finish)
        waiting.start()
        while "waiting for it" not in study.log.getvalue():
            waiting.join(0.01)
        assert study.ran == []
    waiting.join()
    assert study.ran == ["trial-0000"]


def test_the_best_is_finished_where_nothing_can_be_locked(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr("fcntl.flock", refuse)
    study.add(0.5, [0.9])
    study.finish()
    assert study.ran == ["trial-0000"]
    assert "waiting for it" not in study.log.getvalue()


def test_the_comparison_is_read_as_it_was_written(study: Study) -> None:
    assert read_finalists(study.folder) is None
    study.add(0.5, [0.9], own=[LR])
    compared = study.finish(seeds=2)
    assert repr(read_finalists(study.folder)) == repr(compared)  # NaN is not equal to itself


@pytest.mark.parametrize("text", ["{", '{"split": "test"}', '{"candidates": [{}]}', "[]"])
def test_a_damaged_comparison_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "best.json").write_text(text)
    with pytest.raises(RunFailed, match=r"best\.json: cannot be read") as caught:
        read_finalists(tmp_path)
    assert str(caught.value.next_step).startswith(f"remove {tmp_path / 'best.json'}")


@pytest.mark.parametrize(
    ("name", "values", "text"),
    [
        ("loss", (), "—"),
        ("loss", (0.5,), "0.5000"),
        ("loss", (0.4, 0.6), "0.5000 ± 0.1414"),
        ("loss", (float("nan"), 1.0), "undefined"),
        ("accuracy", (0.5,), "50.0 %"),
        ("f1_macro", (0.4, 0.6), "50.0 ± 14.1 %"),
    ],
)
def test_mean_and_deviation_as_text(name: str, values: tuple[float, ...], text: str) -> None:
    assert mean_text(name, values) == text


def test_scores_that_are_equal_in_every_run_share_a_row() -> None:
    equal = {"loss": (0.4, 0.6), "log_loss": (0.4, 0.6), "accuracy": (0.4, 0.6), "recall_macro": (0.4, 0.5)}
    other = {"loss": (0.3,), "log_loss": (0.3,), "accuracy": (0.7,), "recall_macro": (0.7,)}
    assert repeated_rows([equal, other]) == [
        ("loss = log_loss", ("0.5000 ± 0.1414", "0.3000")),
        ("accuracy", ("50.0 ± 14.1 %", "70.0 %")),
        ("recall_macro", ("45.0 ± 7.1 %", "70.0 %")),
    ]


def test_the_bundle_of_the_best_is_named_after_the_study(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    study.add(0.05, [0.5])
    study.add(0.5, [0.9])
    assert [place.name for place in exported(study, monkeypatch)] == ["tiny"]


def test_each_bundle_of_a_front_has_its_trials_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study(tmp_path, metrics=2)
    study.add(0.05, [0.5, 0.7])
    study.add(0.5, [0.9, 0.1])
    assert [place.name for place in exported(study, monkeypatch)] == ["tiny-0000", "tiny-0001"]


def exported(study: Study, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    from toolkit.export import write as export

    seen: list[Path] = []

    def stand_in(run: Path, *, name: str, exports: Path, **given: object) -> Path:
        seen.append(run)
        return exports / name

    monkeypatch.setattr(export, "export_run", stand_in)
    bundles = export_best(study.study, study.folder, exports=study.folder, console=Console(quiet=True))
    assert [run.name.removeprefix("trial-") for run in seen][-1] == "0001"
    return bundles


@pytest.mark.slow  # trains, draws reports
def test_real_runs_are_repeated_with_other_seeds(tmp_path: Path) -> None:
    text = RECIPE.replace("epochs = 2", "epochs = 1")
    study = Study(tmp_path)
    study.source = str(write_recipe(tmp_path, write_images(tmp_path / "images"), text=text))
    study.recipe = load(Path(study.source))
    study.add(0.05, [0.5], own=[LR])
    compared = study.finish(seeds=2)
    assert compared
    (own,) = compared.candidates
    assert own.seeds == (0, 1)
    assert len(set(own.scores["loss"])) == 2
    assert (study.folder / "trial-0000" / "seed-1" / "report.html").is_file()
    facts = [json.loads((study.folder / run / "facts.json").read_text()) for run in own.runs]
    assert [one["recipe"] for one in facts] == ["tiny", "tiny"]
    assert repeat_of(trial_run(study.folder, 0), 0).path == study.folder / "trial-0000"
