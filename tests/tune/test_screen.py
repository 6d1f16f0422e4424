from __future__ import annotations

import io
import json
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from rich.console import Console

from toolkit.recipe.tables import TuneTable
from toolkit.tune import screen
from toolkit.tune.outcome import best_numbers, cause, scores, seconds, short_keys
from toolkit.tune.screen import StudyScreen, chosen, trial_line
from toolkit.tune.storage import trial_run

UP, DOWN = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
LR = optuna.distributions.FloatDistribution(1e-3, 1.0, log=True)


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "READ_SECONDS", 0.005)


@pytest.fixture
def study() -> optuna.Study:
    made = optuna.create_study(study_name="tiny", direction="maximize")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        made.set_metric_names(["accuracy"])
    return made


def add(study: optuna.Study, state: TrialState = TrialState.COMPLETE, *values: float, **given: object) -> None:
    values = values or ((0.5,) * len(study.directions) if state == TrialState.COMPLETE else ())
    made = create_trial(
        state=state,
        values=list(values) or None,
        params={"train.optimizer.lr": 0.123456},
        distributions={"train.optimizer.lr": LR},
        **given,  # type: ignore[arg-type]
    )
    study.add_trial(made)


def tune(**keys: object) -> TuneTable:
    return TuneTable.model_validate({"trials": 4, "space": {}, **keys})


def terminal(height: int = 30) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100, height=height, _environ={})


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def until(seen: Callable[[], bool]) -> None:
    limit = time.monotonic() + 30
    while not seen():
        assert time.monotonic() < limit, "it was never seen"
        time.sleep(0.005)


def test_each_trial_is_reported_on_one_line_as_it_ends(study: optuna.Study, tmp_path: Path) -> None:
    add(study, TrialState.COMPLETE, 0.4)
    console = Console(file=io.StringIO(), width=40)
    with StudyScreen(console, study, tune(), tmp_path):
        add(study, TrialState.COMPLETE, 0.75, intermediate_values={1: 0.2, 2: 0.75})
        until(lambda: "trial 1" in text_of(console))
        add(study, TrialState.PRUNED, intermediate_values={1: 0.1})
        add(study, TrialState.FAIL, user_attrs={"cause": "RunFailed: the loss\nis not finite"})
        study.ask()
    lines = text_of(console).splitlines()
    assert lines == [
        "trial 1 finished  accuracy 75.0 %  2 epochs  0.0 s  lr=0.1235  best",
        "trial 2 pruned  accuracy 10.0 %  1 epoch  0.0 s  lr=0.1235",
        "trial 3 failed  0 epochs  0.0 s  lr=0.1235  RunFailed: the loss is not finite",
    ]


def test_the_last_trial_is_reported_when_the_block_ends_at_once(
    study: optuna.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screen, "READ_SECONDS", 3600)
    console = Console(file=io.StringIO(), width=100)
    with StudyScreen(console, study, tune(), tmp_path):
        add(study)
    assert "trial 0 finished" in text_of(console)


def test_a_terminal_shows_a_table_with_the_best_marked(study: optuna.Study, tmp_path: Path) -> None:
    add(study, TrialState.COMPLETE, 0.75, intermediate_values={1: 0.2, 2: 0.75})
    add(study, TrialState.PRUNED, intermediate_values={1: 0.1})
    add(study, TrialState.FAIL, user_attrs={"cause": "no memory"})
    study.ask()
    run = trial_run(tmp_path, 3)
    run.path.mkdir()
    (run.path / "facts.json").write_text('{"epochs": 8}')
    run.records.write_text("{}\n{}\n{}\n")
    console = terminal()
    with StudyScreen(console, study, tune(metric="accuracy"), tmp_path):
        until(lambda: "3/8" in text_of(console))
    shown = text_of(console)
    for part in ("2/4", "accuracy", "75.0 %", "pruned", "failed: no memory", "lr=0.1235", "━"):
        assert part in shown
    best = next(line for line in shown.splitlines() if "75.0 %" in line)
    assert "\x1b[1;32m" in best
    assert "finished, best" in best


def test_a_run_that_is_not_here_shows_what_it_has_reported(study: optuna.Study, tmp_path: Path) -> None:
    study.ask().report(0.25, 5)
    console = terminal()
    with StudyScreen(console, study, tune(), tmp_path):
        pass
    assert "25.0 %" in text_of(console)
    assert "running" in text_of(console)


def test_a_damaged_file_of_a_run_is_passed_over(study: optuna.Study, tmp_path: Path) -> None:
    study.ask()
    run = trial_run(tmp_path, 0)
    run.path.mkdir()
    (run.path / "facts.json").write_text("{")
    console = terminal()
    with StudyScreen(console, study, tune(), tmp_path):
        pass
    assert "running" in text_of(console)


def test_a_quiet_console_stays_quiet(study: optuna.Study, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, quiet=True)
    with StudyScreen(console, study, tune(), tmp_path):
        add(study)
    assert text_of(console) == ""


def test_a_storage_that_fails_for_a_while_is_reported_and_read_again(
    study: optuna.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = study.get_trials
    broken = threading.Event()

    def reading(**given: object) -> list[FrozenTrial]:
        if broken.is_set():
            raise ConnectionError("gone")
        return read(deepcopy=False)

    monkeypatch.setattr(study, "get_trials", reading)
    console = terminal()
    with StudyScreen(console, study, tune(), tmp_path):
        broken.set()
        until(lambda: "the storage cannot be read: ConnectionError" in text_of(console))
        broken.clear()
        add(study, TrialState.COMPLETE, 0.625)
        until(lambda: "62.5 %" in text_of(console))


def test_a_storage_that_does_not_answer_holds_nobody_up(
    study: optuna.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screen, "LEAVE_SECONDS", 0.01)
    answer, asked = threading.Event(), threading.Event()

    def waiting(**given: object) -> list[FrozenTrial]:
        asked.set()
        answer.wait(30)
        return []

    console = Console(file=io.StringIO())
    with StudyScreen(console, study, tune(), tmp_path) as shown:
        monkeypatch.setattr(study, "get_trials", waiting)
        asked.wait(30)
    assert not answer.is_set()
    answer.set()
    shown._reader.join(30)


def test_an_error_inside_the_block_is_left_alone(study: optuna.Study, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mine"), StudyScreen(terminal(), study, tune(), tmp_path):
        raise ValueError("mine")


def test_the_screen_writes_nothing(tmp_path: Path) -> None:
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal.log")))
    study = optuna.create_study(storage=storage, study_name="tiny")
    add(study)
    before = (tmp_path / "journal.log").read_bytes()
    with StudyScreen(terminal(), study, tune(), tmp_path) as shown:
        until(lambda: len(shown._trials) == 1)
    assert (tmp_path / "journal.log").read_bytes() == before
    assert json.loads(before.splitlines()[0])


def test_a_database_is_read_by_a_connection_of_its_own(tmp_path: Path) -> None:
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/study.db")
    study = optuna.create_study(storage=storage, study_name="tiny")
    console = Console(file=io.StringIO(), width=100)
    with StudyScreen(console, study, tune(), tmp_path, leave=storage.remove_session):
        add(study)
        until(lambda: "trial 0 finished" in text_of(console))
    storage.remove_session()
    assert storage.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    storage.engine.dispose()


def frozen(number: int, state: TrialState = TrialState.COMPLETE, *values: float, **given: object) -> FrozenTrial:
    trial = create_trial(state=state, values=list(values) or None, **given)  # type: ignore[arg-type]
    trial.number = number
    return trial


def test_of_many_trials_those_under_way_the_best_and_the_latest_are_shown() -> None:
    trials = [frozen(number, TrialState.COMPLETE, number) for number in range(30)]
    trials[2] = frozen(2, TrialState.RUNNING)
    assert [one.number for one in chosen(trials, [5], 6)] == [2, 5, 26, 27, 28, 29]


def test_a_line_of_several_scores_reports_all() -> None:
    assert trial_line(frozen(3, TrialState.COMPLETE, 0.5, 2.0), (UP, DOWN), ("f1_macro", "loss"), 4, best=True) == (
        "trial 3 finished  f1_macro 50.0 %  loss 2.0000  4 epochs  0.0 s  best"
    )


@pytest.mark.parametrize(("direction", "best"), [(UP, 0.9), (DOWN, 0.1)])
def test_the_score_of_a_pruned_trial_is_the_best_it_has_reported(direction: StudyDirection, best: float) -> None:
    reported = {1: 0.1, 2: 0.9, 3: float("nan")}
    assert scores(frozen(0, TrialState.PRUNED, intermediate_values=reported), (direction,)) == (best,)
    assert scores(frozen(0, TrialState.PRUNED), (direction,)) == ()
    assert scores(frozen(0, TrialState.PRUNED, intermediate_values=reported), (direction, UP)) == ()


def test_a_trial_that_waits_has_taken_no_time() -> None:
    assert seconds(frozen(0, TrialState.WAITING)) == 0


def test_a_failure_without_a_cause_says_so() -> None:
    assert cause(frozen(0, TrialState.FAIL)) == "unknown"
    assert cause(frozen(0, TrialState.PRUNED)) == ""


def test_keys_are_as_short_as_reports_them_apart() -> None:
    keys = ["train.optimizer.lr", "model.name", "data.name", "train.batch", "seed"]
    assert list(short_keys(keys).values()) == ["lr", "model", "data", "batch", "seed"]
    assert short_keys(["a.b", "b", "c.b"]) == {"a.b": "a.b", "b": "b", "c.b": "c.b"}
    assert short_keys(["model.name", "model.head.name"]) == {"model.name": "model", "model.head.name": "head"}


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12))
def test_the_front_is_that_of_optuna(points: list[tuple[int, int]]) -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.add_trials([create_trial(values=list(point)) for point in points])
    assert best_numbers(study.trials, study.directions) == {trial.number for trial in study.best_trials}


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.sampled_from(["maximize", "minimize"]))
def test_the_best_is_that_of_optuna(values: list[int], direction: str) -> None:
    study = optuna.create_study(direction=direction)
    study.add_trials([create_trial(value=value) for value in values])
    assert best_numbers(study.trials, study.directions) == {study.best_trial.number}
