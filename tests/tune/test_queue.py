from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from tests.tune.studies import SPACE, begun, parts, planned, recipe
from toolkit.api.errors import UsageError
from toolkit.tune.outcome import UNCOUNTED
from toolkit.tune.queue import enqueue, enqueue_own

EPOCHS = "train.epochs = {low = 1, high = 3}\n"


def test_the_recipes_own_values_are_the_first_trial(tmp_path: Path) -> None:
    study = begun(tmp_path)
    _, _, checked = parts()
    for _ in range(2):
        enqueue_own(study, planned(recipe()).own)
    trial = study.ask()
    checked.suggest(trial)
    assert trial.params == {"train.optimizer.lr": 0.05, "train.batch": 8}
    assert len(study.trials) == 1


def test_known_good_values_are_tried_next(tmp_path: Path) -> None:
    space = SPACE + "model.widths = {choices = [[4, 4], [8, 8]]}"
    study = begun(tmp_path, space=space)
    _, _, checked = parts(space=space)
    enqueue(study, checked, ["train.optimizer.lr=0.02,model.widths=[4, 4],train.batch=16"], trials=1)
    trial = study.ask()
    checked.suggest(trial)
    assert trial.params == {"train.optimizer.lr": 0.02, "train.batch": 16, "model.widths": "[4, 4]"}


def test_values_that_the_study_has_are_passed_over_and_reported(tmp_path: Path) -> None:
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
    assert caught.value.next_step == "run the same command with --set tune.trials=2"
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
    ("text", "printed"),
    [
        ('train.batch="8,train.optimizer.lr=0.02', "is outside the space of train.batch"),
        ("train.optimizer.lr", "expected key=value, got"),
        ("train.optimizer.rl=0.02", 'train.optimizer.rl: is not in the space; did you mean "train.optimizer.lr"?'),
        ("train.optimizer.lr=0.5", "0.5 is outside the space of train.optimizer.lr"),
        ("train.batch=12", "12 is outside the space of train.batch"),
        ("train.epochs=2.5", "2.5 is outside the space of train.epochs"),
    ],
)
def test_what_is_not_in_the_space_cannot_be_enqueued(tmp_path: Path, text: str, printed: str) -> None:
    study = begun(tmp_path)
    with pytest.raises(UsageError) as caught:
        enqueue(study, parts(space=SPACE + EPOCHS)[2], ["train.batch=8", text], trials=2)
    assert printed in caught.value.message
    assert "train.optimizer.lr, train.batch" in str(caught.value.next_step)
    assert study.trials == []
