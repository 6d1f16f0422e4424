"""Metrics: equal to scikit-learn's on the same predictions, and defined where those warn or raise."""

from __future__ import annotations

import importlib
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any, cast, get_type_hints

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import toolkit_metrics
from toolkit.api.contracts import DataSpec, Metric, Scores
from toolkit.kit.testing.side_effects import no_waiting
from toolkit_metrics import accuracy, per_class, probability

OF_NUMBERS = {
    "mae": "mean_absolute_error",
    "rmse": "root_mean_squared_error",
    "r2": "r2_score",
    "median_absolute_error": "median_absolute_error",
}
"""Metrics of numbers, and scikit-learn's names for them."""
NAMES = tuple(name for name in toolkit_metrics.toolkit_metrics() if name not in OF_NUMBERS)
NAN = math.nan


def spec(classes: int = 6) -> DataSpec:
    return DataSpec(tuple(map(str, range(classes))), 8)


def metric(name: str, classes: int = 6, **arguments: Any) -> Metric:
    module, attribute = toolkit_metrics.toolkit_metrics()[name].split(":")
    made: Callable[..., Metric] = getattr(importlib.import_module(module), attribute)
    return made(spec(classes), **arguments)


def scores(name: str, logits: Tensor, targets: Tensor, **arguments: Any) -> Scores:
    made = metric(name, logits.shape[1], **arguments)
    made.update(logits, targets)
    return made.compute()


def predictions(samples: int = 200, classes: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, classes, (samples,), generator=rng)
    logits = torch.randn(samples, classes, generator=rng) + 1.5 * torch.eye(classes)[targets]
    return logits, targets


def logits_for(predicted: list[int], classes: int) -> Tensor:
    return torch.eye(classes)[torch.tensor(predicted)]


def assert_same(one: Scores, other: Scores) -> None:
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_allclose(np.array(one[key]), np.array(other[key]), rtol=1e-5, err_msg=key)


# every metric ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"confusion_matrix"}))
def test_is_nan_before_the_first_batch(name: str) -> None:
    first = next(iter(metric(name).compute().values()))
    assert isinstance(first, float)
    assert math.isnan(first)


def test_confusion_is_empty_before_the_first_batch() -> None:
    assert metric("confusion_matrix", 2).compute() == {"confusion_matrix": [[0, 0], [0, 0]]}


@pytest.mark.parametrize("name", NAMES)
def test_update_reads_no_number(name: str) -> None:
    made = metric(name)
    with FakeTensorMode():  # raises where the value of a tensor is asked for
        for _ in range(2):
            made.update(torch.empty(4, 6), torch.zeros(4, dtype=torch.int64))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", NAMES)
def test_update_never_waits_for_a_cuda_device(name: str) -> None:
    logits, targets = predictions()
    on_device, made = (logits.cuda(), targets.cuda()), metric(name)
    made.update(*on_device)
    with no_waiting():
        made.update(*on_device)
    twice = torch.cat((logits, logits)), torch.cat((targets, targets))
    assert_same(made.compute(), scores(name, *twice))


@given(
    classes=st.integers(2, 12),
    samples=st.integers(1, 40),
    seed=st.integers(0, 2**31),
    spread=st.sampled_from([0.0, 1.0, 300.0]),
)
@settings(max_examples=20)
def test_every_score_is_a_share_a_count_or_nan(classes: int, samples: int, seed: int, spread: float) -> None:
    logits, targets = predictions(samples, classes, seed)
    for name in NAMES:
        arguments = {"k": 1} if name == "top_k" else {}
        for key, score in scores(name, logits * spread, targets, **arguments).items():
            values = np.asarray(score, dtype=float)
            assert values.shape in {(), (classes,), (classes, classes), (15,)}, key
            known = values[~np.isnan(values)]
            assert (known >= -1e-9).all(), key
            assert key in {"confusion_matrix", "log_loss"} or (known <= 1 + 1e-9).all(), key


def test_keys_are_unique() -> None:
    keys = [key for name in NAMES for key in metric(name).compute()]
    assert len(keys) == len(set(keys))


def test_neither_offering_nor_updating_loads_scikit_learn() -> None:
    code = (
        "import toolkit_metrics as p, sys; offered = p.toolkit_metrics(); "
        "assert not {'torch', 'numpy', 'sklearn'} & {*sys.modules}; "
        "import importlib; [importlib.import_module(path.split(':')[0]) for path in offered.values()]; "
        "assert 'sklearn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


# accuracy and top-k ------------------------------------------------------------------------------------------------


def test_accuracy_is_scikit_learns() -> None:
    logits, targets = predictions()
    wanted = reference.accuracy_score(targets, logits.argmax(1))
    assert scores("accuracy", logits, targets) == {"accuracy": pytest.approx(wanted)}


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_is_scikit_learns(k: int) -> None:
    logits, targets = predictions()
    wanted = reference.top_k_accuracy_score(targets, logits, k=k, labels=range(6))
    assert scores("top_k", logits, targets, k=k) == {f"top_{k}_accuracy": pytest.approx(wanted)}


@pytest.mark.parametrize("k", [6, 7])
def test_top_k_of_all_classes_says_nothing(k: int) -> None:
    with pytest.raises(ValueError, match=f"^k: must be below the 6 classes of the data, got {k}"):
        accuracy.top_k(spec(), k=k)


# precision, recall, F1, confusion ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["precision", "recall", "f1"])
def test_scores_of_classes_are_scikit_learns(name: str) -> None:
    logits, targets = predictions()
    found, score = scores(name, logits, targets), getattr(reference, f"{name}_score")
    for average, key in (("macro", "macro"), ("weighted", "weighted"), (None, "per_class")):
        wanted = score(targets, logits.argmax(1), average=average)
        assert found[f"{name}_{key}"] == pytest.approx(wanted if average else list(wanted))


@pytest.mark.parametrize(
    ("name", "macro", "weighted", "each"),
    [
        ("precision", (1 + 1 / 2 + 0) / 3, (2 * 1 + 2 * 1 / 2 + 0) / 5, [1.0, 0.5, 0.0, NAN]),
        ("recall", (1 / 2 + 1 / 2 + 0) / 3, (2 * 1 / 2 + 2 * 1 / 2 + 0) / 5, [0.5, 0.5, 0.0, NAN]),
        ("f1", (2 / 3 + 1 / 2 + 0) / 3, (2 * 2 / 3 + 2 * 1 / 2 + 0) / 5, [2 / 3, 0.5, 0.0, NAN]),
    ],
)
def test_an_absent_class_has_no_score_and_one_never_predicted_has_zero(
    name: str, macro: float, weighted: float, each: list[float]
) -> None:
    targets, predicted = [0, 0, 1, 1, 2], [0, 3, 1, 3, 1]
    assert scores(name, logits_for(predicted, 4), torch.tensor(targets)) == {
        f"{name}_macro": pytest.approx(macro),
        f"{name}_weighted": pytest.approx(weighted),
        f"{name}_per_class": pytest.approx(each, nan_ok=True),
    }


def test_confusion_counts_targets_by_row_and_predictions_by_column() -> None:
    found = scores("confusion_matrix", logits_for([1, 1, 0, 2], 4), torch.tensor([0, 0, 1, 2]))
    assert found == {"confusion_matrix": [[0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]}


# log loss ----------------------------------------------------------------------------------------------------------


def test_log_loss_is_cross_entropy() -> None:
    logits, targets = predictions()
    wanted = torch.nn.functional.cross_entropy(logits.double(), targets).item()
    assert scores("log_loss", logits, targets) == {"log_loss": pytest.approx(wanted)}


def test_log_loss_knows_classes_that_never_occur() -> None:
    found = scores("log_loss", torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64))
    assert found == {"log_loss": pytest.approx(math.log(4))}


def test_log_loss_of_a_sure_mistake_is_finite() -> None:
    found = cast(float, scores("log_loss", torch.tensor([[1000.0, 0.0]]), torch.tensor([1]))["log_loss"])
    assert 30 < found < 40


@pytest.mark.parametrize("name", ["log_loss", "calibration"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_is_nan_where_a_logit_is_not_finite(name: str, bad: float) -> None:
    logits, targets = predictions()
    logits[3, 2] = bad
    first = next(iter(scores(name, logits, targets).values()))
    assert math.isnan(cast(float, first))


def test_log_loss_needs_two_classes() -> None:
    with pytest.raises(ValueError, match=r"^log_loss: needs at least 2 classes, the data has 1$"):
        probability.log_loss(spec(1))


# calibration -------------------------------------------------------------------------------------------------------


def test_reliability_curve_is_scikit_learns() -> None:
    logits, targets = predictions(500)
    found = scores("calibration", logits, targets, bins=10)
    confidence, predicted = logits.softmax(1).max(1)
    accuracies, confidences = calibration_curve((predicted == targets).int(), confidence, n_bins=10)
    filled = [place for place, share in enumerate(cast(list[float], found["calibration_share"])) if share]
    assert np.array(found["calibration_accuracy"])[filled] == pytest.approx(accuracies)
    assert np.array(found["calibration_confidence"])[filled] == pytest.approx(confidences)


def test_calibration_error_weighs_gaps_by_share() -> None:
    logits = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]]).log()
    found = scores("calibration", logits, torch.tensor([0, 1, 1, 1]), bins=4)
    assert found["ece"] == pytest.approx(0.5 * 0.4 + 0.5 * 0.6)
    assert found["calibration_share"] == [0.0, 0.0, 0.5, 0.5]
    assert found["calibration_accuracy"] == pytest.approx([NAN, NAN, 0.0, 0.5], nan_ok=True)
    assert found["calibration_confidence"] == pytest.approx([NAN, NAN, 0.6, 0.9], nan_ok=True)


def test_full_confidence_falls_into_the_last_bin() -> None:
    found = scores("calibration", torch.tensor([[1000.0, 0.0]]), torch.tensor([0]), bins=3)
    assert found["calibration_share"] == [0.0, 0.0, 1.0]
    assert found["ece"] == pytest.approx(0.0)


@pytest.mark.parametrize("factory", [(accuracy.top_k, "k"), (probability.calibration, "bins")])
def test_annotations_carry_their_limits(factory: tuple[Callable[..., Metric], str]) -> None:
    made, key = factory
    with pytest.raises(ValidationError):
        TypeAdapter(get_type_hints(made, include_extras=True)[key]).validate_python(0)


def test_absent_from_one_batch_is_not_absent() -> None:
    made = per_class.recall(spec(2))
    made.update(logits_for([0], 2), torch.tensor([0]))
    made.update(logits_for([1], 2), torch.tensor([1]))
    assert made.compute()["recall_per_class"] == [1.0, 1.0]


# Sets of classes


def sets_of(name: str, logits: Tensor, targets: Tensor) -> Scores:
    module, attribute = toolkit_metrics.toolkit_metrics()[name].split(":")
    classes = tuple(map(str, range(logits.shape[1])))
    made = getattr(importlib.import_module(module), attribute)(DataSpec(classes, 8, targets="set"))
    for part in (slice(0, 5), slice(5, None)):
        made.update(logits[part], targets[part])
    found: Scores = made.compute()
    return found


def some_sets() -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(3)
    targets = (torch.rand(60, 4, generator=rng) < torch.tensor([0.5, 0.2, 0.8, 0.0])).float()
    return torch.randn(60, 4, generator=rng) + 2 * (targets - 0.5), targets


@pytest.mark.parametrize("name", ["precision", "recall", "f1"])
def test_scores_of_sets_are_those_of_scikit_learn(name: str) -> None:
    logits, targets = some_sets()
    score = getattr(reference, f"{name}_score")
    predicted, wanted = (logits >= 0).numpy()[:, :3], targets.numpy()[:, :3]
    found = sets_of(name, logits, targets)
    each = score(wanted, predicted, average=None, zero_division=0.0)
    assert found[f"{name}_per_class"] == pytest.approx([*each, NAN], nan_ok=True)
    assert found[f"{name}_macro"] == pytest.approx(each.mean())
    assert found[f"{name}_weighted"] == pytest.approx(score(wanted, predicted, average="weighted", zero_division=0.0))


def test_a_set_is_right_as_a_whole() -> None:
    logits, targets = some_sets()
    expected = reference.accuracy_score(targets.numpy() > 0, (logits >= 0).numpy())
    assert sets_of("accuracy", logits, targets) == {"accuracy": pytest.approx(expected)}


def test_average_precision_is_that_of_scikit_learn() -> None:
    logits, targets = some_sets()
    expected = [reference.average_precision_score(targets[:, n].numpy(), logits[:, n].numpy()) for n in range(3)]
    found = sets_of("average_precision", logits, targets)
    assert found["average_precision_per_class"] == pytest.approx([*expected, NAN], nan_ok=True)
    assert found["mean_average_precision"] == pytest.approx(sum(expected) / 3)


def test_average_precision_of_one_class_an_item_ranks_by_probability() -> None:
    logits, targets = predictions()
    found = scores("average_precision", logits, targets)["average_precision_per_class"]
    probabilities, shown = logits.softmax(1).numpy(), torch.eye(6)[targets].numpy()
    assert found == pytest.approx(list(reference.average_precision_score(shown, probabilities, average=None)))


@pytest.mark.parametrize("name", ["top_k", "confusion_matrix", "log_loss", "calibration"])
def test_what_has_no_meaning_for_sets_says_so(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: is defined for one class an item, the data has sets of classes$"):
        sets_of(name, *some_sets())


# Numbers


def of_numbers(name: str, answers: Tensor, targets: Tensor) -> Scores:
    module, attribute = toolkit_metrics.toolkit_metrics()[name].split(":")
    names = tuple(map(str, range(targets.shape[1])))
    made = getattr(importlib.import_module(module), attribute)(DataSpec(names, 8, targets="number"))
    for part in (slice(0, 5), slice(5, None)):
        made.update(answers[part], targets[part])
    found: Scores = made.compute()
    return found


@pytest.mark.parametrize("name", OF_NUMBERS)
@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_scores_of_numbers_are_scikit_learns(name: str, unit: float) -> None:
    rng = torch.Generator().manual_seed(3)
    targets = unit * (torch.randn(60, 2, generator=rng) + 3)
    answers = targets + unit * torch.randn(60, 2, generator=rng)
    found, score = of_numbers(name, answers, targets), getattr(reference, OF_NUMBERS[name])
    given = targets.double().numpy(), answers.double().numpy()
    assert found[name] == pytest.approx(score(*given), rel=1e-6)
    assert found[f"{name}_per_output"] == pytest.approx(score(*given, multioutput="raw_values"), rel=1e-6)


def test_r2_of_targets_that_are_all_the_same_is_undefined() -> None:
    found = of_numbers("r2", torch.randn(8, 2), torch.stack([torch.full((8,), 3.0), torch.arange(8.0)], 1))
    first, second = cast(list[float], found["r2_per_output"])
    assert math.isnan(first)
    assert not math.isnan(second)
    assert math.isnan(cast(float, found["r2"]))


@pytest.mark.parametrize("name", NAMES)
def test_what_has_no_meaning_for_numbers_says_so(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: is defined for .*, the data has numbers$"):
        of_numbers(name, torch.zeros(8, 2), torch.zeros(8, 2))


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_what_has_no_meaning_for_classes_says_so(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: is defined for numbers, the data has one class an item$"):
        metric(name)
