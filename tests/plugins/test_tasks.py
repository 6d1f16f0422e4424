"""Tasks: losses equal to torch's, answers, thresholds, and what a recipe may ask of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference
from torch import Tensor, nn
from torch.nn import functional

from toolkit.api.contracts import DataSpec
from toolkit.build.plan import plan
from toolkit.host.registry import discover
from toolkit.recipe.checking import check
from toolkit.recipe.read import overridden, parse
from toolkit.recipe.reading import read_signature
from toolkit.recipe.tables import Recipe
from toolkit.tune.study import plan_study
from toolkit_tasks.classification import classification
from toolkit_tasks.multi_label import best_thresholds, multi_label
from toolkit_tasks.regression import regression

SPEC = DataSpec(("a", "b", "c"), 8)
SETS = DataSpec(("a", "b", "c"), 8, targets="set")
NUMBERS = DataSpec(("age", "height", "weight"), 8, targets="number")
PIXELS = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [-3.0, 4.0, 0.0], [1.0, 1.0, 1.0]])


def forward(pixels: Tensor, network: nn.Module | None = None) -> Tensor:
    return LOGITS[: len(pixels)]


def problems(**args: object) -> list[str]:
    factory = discover().find("task", "classification", "task.name").load()  # type: ignore[union-attr]
    return [str(problem) for problem in check(read_signature(factory, ("targets",)), args, "task")[1]]


def test_the_loss_of_classification_is_torchs_own() -> None:
    targets = torch.tensor([0, 2, 1, 0])
    weights = [1.0, 2.0, 0.5]
    objective = classification(SPEC, class_weights=weights, label_smoothing=0.1)
    expected = functional.cross_entropy(LOGITS, targets, weight=torch.tensor(weights), label_smoothing=0.1)
    torch.testing.assert_close(objective.loss(forward, PIXELS, targets) / objective.weight(targets), expected)
    torch.testing.assert_close(objective.score(LOGITS, targets), functional.cross_entropy(LOGITS, targets))
    assert objective.state_dict() == {}


def test_balanced_classes_weigh_the_same_in_all() -> None:
    targets = [0, 0, 0, 1]
    objective = classification(SPEC, targets=targets, class_weights="balanced")
    assert objective.class_weights is not None
    torch.testing.assert_close(objective.class_weights, torch.tensor([4 / 9, 4 / 3, 0.0]))


def test_weights_of_other_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^class_weights: has 2 weights for 3 classes$"):
        classification(SPEC, class_weights=[1.0, 2.0])


def test_what_a_recipe_may_say_of_weights() -> None:
    assert problems(class_weights="balance") == [
        'task.class_weights: must be one of "none", "balanced" or an array, got "balance"; did you mean "balanced"?'
    ]
    assert problems(class_weights=[1, -1]) == ["task.class_weights.1: must be at least 0, got -1"]
    assert problems(targets=[1]) == ["task.targets: unknown key"]


def test_the_loss_of_sets_is_torchs_own() -> None:
    targets = torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]])
    objective = multi_label(SETS)
    expected = functional.binary_cross_entropy_with_logits(LOGITS, targets)
    torch.testing.assert_close(objective.loss(forward, PIXELS, targets) / objective.weight(targets), expected)
    torch.testing.assert_close(objective.score(LOGITS, targets), expected)


def test_rare_classes_weigh_as_much_as_their_absence() -> None:
    sets = [[0], [0, 1], [], [0]]
    weights = multi_label(SETS, targets=sets, positive_weights="balanced").positive_weights
    assert weights is not None
    torch.testing.assert_close(weights, torch.tensor([1 / 3, 3.0, 1.0]))
    rare = multi_label(SETS, targets=[[0]] + [[]] * 999, positive_weights="balanced").positive_weights
    assert rare is not None
    assert rare.tolist() == [100.0, 1.0, 1.0]
    everywhere = multi_label(SETS, targets=[[0], [0, 1]], positive_weights="balanced").positive_weights
    assert everywhere is not None
    assert everywhere.tolist() == [1.0, 1.0, 1.0]


def test_thresholds_are_chosen_on_what_they_are_asked_of_and_saved() -> None:
    logits = torch.tensor([[-2.0, 0.0, 5.0], [-1.0, -4.0, 5.0], [-3.0, 2.0, 5.0]])
    targets = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    objective = multi_label(SETS)
    objective.settle(logits, targets)
    chosen = objective.thresholds
    right = (logits.sigmoid() >= chosen) == targets.bool()
    assert right[:, :2].all()
    assert float(chosen[2]) == 0.5
    twin = multi_label(SETS)
    twin.load_state_dict(objective.state_dict())
    assert torch.equal(twin.thresholds, chosen)
    fixed = multi_label(SETS, thresholds="fixed")
    fixed.settle(logits, targets)
    assert fixed.thresholds.tolist() == [0.5] * 3


@settings(max_examples=60)
@given(
    answers=st.lists(st.floats(0.001, 0.999), min_size=2, max_size=12),
    shown=st.data(),
)
def test_no_threshold_has_a_better_f1(answers: list[float], shown: st.DataObject) -> None:
    """Tried at every answer, as scikit-learn scores it."""
    targets = shown.draw(st.lists(st.booleans(), min_size=len(answers), max_size=len(answers)).filter(any))
    column, wanted = torch.tensor(answers)[:, None], torch.tensor(targets)
    f1 = partial(reference.f1_score, wanted.numpy(), zero_division=0.0)
    chosen = float(best_thresholds(column, wanted[:, None].float()))
    best = max(f1((column[:, 0] >= cut).numpy()) for cut in column[:, 0])
    assert f1((column[:, 0] >= chosen).numpy()) == pytest.approx(best)


RECIPE = """
[data]
name = "cifar10"
[model]
name = "cnn"
[task]
name = "multi_label"
[train]
epochs = 1
batch = 8
[train.optimizer]
name = "sgd"
lr = 0.1
"""


def planned(tmp_path: Path, *overrides: str) -> Recipe:
    (tmp_path / "r.toml").write_text(RECIPE)
    return plan(parse(tmp_path / "r.toml", overrides), discover()).resolved


def test_a_task_brings_the_metrics_that_are_usual_for_it(tmp_path: Path) -> None:
    recipe = planned(tmp_path)
    assert [use.name for use in recipe.metrics] == ["accuracy", "precision", "recall", "f1", "average_precision"]
    assert (recipe.train.metric, recipe.train.direction) == ("mean_average_precision", "maximize")
    single = planned(tmp_path, "task.name=classification")
    assert "confusion_matrix" in [use.name for use in single.metrics]
    assert single.train.metric == "accuracy"


def test_what_a_recipe_says_of_metrics_stays(tmp_path: Path) -> None:
    recipe = planned(tmp_path, "metrics=['f1']", "train.metric=loss", "train.direction=minimize")
    assert [use.name for use in recipe.metrics] == ["f1"]
    assert (recipe.train.metric, recipe.train.direction) == ("loss", "minimize")
    assert planned(tmp_path, "train.metric=accuracy").train.metric == "accuracy"
    again = plan(recipe, discover()).resolved
    assert again == recipe


def test_trials_of_a_study_keep_the_metrics_that_are_usual_for_the_task(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text(RECIPE + "[tune]\ntrials = 2\nfixed = {seed = 3}\nspace = {train.batch = {choices = [4, 8]}}\n")
    recipe = plan_study(parse(file, ()), discover()).recipe
    trial = plan(overridden(recipe, "r.toml", ["train.batch=4"]), discover()).resolved
    assert [use.name for use in trial.metrics] == ["accuracy", "precision", "recall", "f1", "average_precision"]
    assert (trial.train.metric, trial.seed, trial.train.batch) == ("mean_average_precision", 3, 4)


# Numbers

KNOWN = [(10.0, 100.0, 3.0), (20.0, 300.0, 3.0), (30.0, 200.0, 3.0), (20.0, 200.0, 3.0)]
"""The last output is the same for every item: it has no spread to divide by."""


def test_answers_are_in_the_unit_of_the_data_and_losses_in_spreads() -> None:
    objective = regression(NUMBERS, targets=KNOWN)
    targets = torch.tensor(KNOWN)
    mean, spread = targets.mean(0), torch.tensor([50.0**0.5, 5000.0**0.5, 1.0])
    torch.testing.assert_close(objective.logits(LOGITS), LOGITS * spread + mean)
    expected = functional.mse_loss(LOGITS, (targets - mean) / spread)
    torch.testing.assert_close(objective.loss(forward, PIXELS, targets) / objective.weight(targets), expected)
    torch.testing.assert_close(objective.score(objective.logits(LOGITS), targets), expected)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("mse", functional.mse_loss),
        ("l1", functional.l1_loss),
        ("huber", partial(functional.huber_loss, delta=0.5)),
        ("smooth_l1", partial(functional.smooth_l1_loss, beta=0.5)),
    ],
)
def test_losses_of_numbers_are_torchs_own(loss: str, expected: Any) -> None:
    targets = torch.tensor(KNOWN)
    objective = regression(NUMBERS, targets=KNOWN, loss=loss, delta=0.5, standardise=False)  # type: ignore[arg-type]
    torch.testing.assert_close(objective.logits(LOGITS), LOGITS)
    torch.testing.assert_close(objective.score(LOGITS, targets), expected(LOGITS, targets))


def test_the_unit_is_saved_with_the_weights() -> None:
    trained, other = regression(NUMBERS, targets=KNOWN), regression(NUMBERS, targets=[(0.0, 1.0, 2.0), (5.0, 5.0, 5.0)])
    other.load_state_dict(trained.state_dict())
    torch.testing.assert_close(other.logits(LOGITS), trained.logits(LOGITS))
