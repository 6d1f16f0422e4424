"""The rules of metrics.

Several processes share no metric: where a run has several, the core gives what all of them answered to one metric, in
any order. So a metric whose scores do not depend on batches and order (`batches`) needs nothing else to be merged.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import torch

from toolkit.api.contracts import DataSpec, Metric, Score, Scores, TargetForm
from toolkit.kit.testing.case import Subject, once
from toolkit.kit.testing.forms import DRAWN, SURE, Answers, Drawn
from toolkit.kit.testing.rulebook import DoesNotApply, Rulebook
from toolkit.kit.testing.side_effects import no_waiting

RULES = Rulebook("metric")

USUAL = DataSpec(("first", "second", "third", "fourth", "fifth", "sixth"), size=8)
ITEMS = 200
CLOSE = 1e-5
OF_CLASSES = {
    "accuracy": "accuracy_score",
    "balanced_accuracy": "balanced_accuracy_score",
    "cohen_kappa": "cohen_kappa_score",
    "matthews_corrcoef": "matthews_corrcoef",
}
"""Names of scores, and scikit-learn's for them, that compare classes predicted with targets."""
OF_NUMBERS = {
    "mae": "mean_absolute_error",
    "mean_absolute_error": "mean_absolute_error",
    "mse": "mean_squared_error",
    "mean_squared_error": "mean_squared_error",
    "rmse": "root_mean_squared_error",
    "median_absolute_error": "median_absolute_error",
    "r2": "r2_score",
    "explained_variance": "explained_variance_score",
}
"""Names of scores, and scikit-learn's for them, that compare numbers: the mean over outputs, or `_per_output`."""
OF_EACH_CLASS = r"(precision|recall|f1|jaccard)_(macro|micro|weighted|per_class)"
"""Names of scores that are numbers of each class, averaged or not."""


@RULES.rule
def scores(subject: Subject) -> Iterator[str]:
    """`compute` gives the same names each time, each with a float, a list of numbers or a square list of lists."""
    found = [scored(subject, answers) for answers in (random_answers(subject), few_answers(subject))]
    for name, score in found[0].items():
        if not isinstance(name, str) or not name:
            yield f"invalid name {name!r}"
        elif wrong := _wrong_score(score):
            yield f"{name} is {wrong}"
    if not found[0]:
        yield "there is no score"
    if found[0].keys() != found[1].keys():
        yield f"names are {sorted(found[0])} for some answers and {sorted(found[1])} for others"


@RULES.rule
def batches(subject: Subject) -> Iterator[str]:
    """Scores do not depend on the order of items nor on the batches they come in."""
    answers = random_answers(subject)
    expected = scored(subject, answers)
    shuffled = answers.part(torch.randperm(ITEMS, generator=torch.Generator().manual_seed(2)))
    for what, given, size in (
        ("in batches of 1", answers, 1),
        ("in batches of 64", answers, 64),
        ("shuffled, in batches of 33", shuffled, 33),
    ):
        yield from unlike(what, scored(subject, given, size), expected)


@RULES.rule
def again(subject: Subject) -> Iterator[str]:
    """`compute` changes nothing: asked twice it gives the same, and what comes later is added."""
    answers, metric = random_answers(subject), build(subject)
    half = ITEMS // 2
    metric.update(*answers.part(slice(0, half)))
    first, second = metric.compute(), metric.compute()
    yield from unlike("asked twice", second, first)
    metric.update(*answers.part(slice(half, ITEMS)))
    yield from unlike("asked between two batches", metric.compute(), scored(subject, answers))


@RULES.rule
def apart(subject: Subject) -> Iterator[str]:
    """Each metric that is built starts empty: two share nothing."""
    first = build(subject).compute()
    for right in (True, False):
        scored(subject, sure_answers(subject, right=right))
        found = [*unlike("before its first batch, but after another was used", build(subject).compute(), first)]
        yield from found
        if found:
            return


@RULES.rule
def empty(subject: Subject) -> Iterator[str]:
    """Before the first batch every number is NaN, and nothing is raised."""
    for name, score in scored(subject, None).items():
        if isinstance(score, float) and not math.isnan(score):
            yield f"{name} is {score}"


@RULES.rule
def absent(subject: Subject) -> Iterator[str]:
    """Classes that never occur and answers that are all alike give numbers or NaN, never an exception."""
    names = scored(subject, random_answers(subject)).keys()
    for what, answers in _awkward(subject):
        found = scored(subject, answers)
        wrong = [name for name, score in found.items() if _wrong_score(score)]
        if wrong or found.keys() != names:
            yield f"{what}: {wrong[0] if wrong else 'other names'}"


@RULES.rule
def overwritten(subject: Subject) -> Iterator[str]:
    """The caller may overwrite logits and targets after `update`, which leaves them as they were."""
    answers, metric = random_answers(subject), build(subject)
    given = Answers(answers.logits.clone(), answers.targets.clone())
    metric.update(*given)
    if not torch.equal(given.logits, answers.logits) or not torch.equal(given.targets, answers.targets):
        yield "update changes what it is given"
    given.logits.zero_()
    given.targets.zero_()
    yield from unlike("after they were overwritten", metric.compute(), scored(subject, answers))


@RULES.rule
def inference(subject: Subject) -> Iterator[str]:
    """Tensors of inference mode, and ones that require gradients, are taken as any other."""
    answers = random_answers(subject)
    expected = scored(subject, answers)
    with torch.inference_mode():
        found = scored(subject, Answers(answers.logits.clone(), answers.targets.clone()))
    yield from unlike("in inference mode", found, expected)
    found = scored(subject, Answers(answers.logits.clone().requires_grad_(), answers.targets))
    yield from unlike("with logits that require gradients", found, expected)


@RULES.rule
def bounds(subject: Subject) -> Iterator[str]:
    """A score of random answers lies between those of answers that are all right and all wrong, both given surely."""
    shown = (random_answers(subject), sure_answers(subject, right=True), sure_answers(subject, right=False))
    given = (scored(subject, answers) for answers in shown)
    found = [{name: score for name, score in each.items() if isinstance(score, float)} for each in given]
    for name, score in found[0].items():
        ends = sorted((found[1].get(name, math.nan), found[2].get(name, math.nan)))
        if not ends[0] - CLOSE <= score <= ends[1] + CLOSE and not math.isnan(ends[0] + ends[1] + score):
            yield f"{name} is {score:.4g}, outside the {ends[0]:.4g} and {ends[1]:.4g} of all right and all wrong"


@RULES.rule
def reference(subject: Subject) -> Iterator[str]:
    """A score that is called as one of scikit-learn's is that score, on data with all classes and without some."""
    met = False
    (form, count), kind = _form(subject), spec_of(subject).targets
    for what, answers in (("all classes", random_answers(subject)), ("a class absent", form.lacking(ITEMS, count))):
        for name, score in scored(subject, answers).items():
            expected, given = _by_sklearn(name, answers, kind), score
            if expected is None:
                continue
            met = True
            if kind != "number" and isinstance(score, list) and score and not isinstance(score[0], list):
                # One number for each class that occurs.
                given = [score[target] for target in _occurring(answers)]
            if not _near(given, expected):
                yield f"{name} with {what} is {_shown(score)}, scikit-learn's is {_shown(expected)}"
    if not met:
        raise DoesNotApply("no score has the name of one of scikit-learn's")


@RULES.rule
def device(subject: Subject) -> Iterator[str]:
    """Tensors on a GPU are taken, and `update` does not wait for the device."""
    if not torch.cuda.is_available():
        raise DoesNotApply("there is no CUDA device here")
    answers, metric = random_answers(subject), build(subject)
    there = Answers(answers.logits.cuda(), answers.targets.cuda())
    build(subject).update(*there)
    with no_waiting():
        metric.update(*there)
    yield from unlike("on the GPU", metric.compute(), scored(subject, answers))


def build(subject: Subject) -> Metric:
    """A fresh metric."""
    metric: Metric = subject.build(spec_of(subject))
    return metric


def scored(subject: Subject, answers: Answers | None, size: int = ITEMS) -> Scores:
    """The scores of these answers, given in batches of `size`; None: of none."""
    metric = build(subject)
    if answers is not None:
        for start in range(0, len(answers.targets), size):
            metric.update(*answers.part(slice(start, start + size)))
    found = metric.compute()
    if not isinstance(found, Mapping):
        raise TypeError(f"compute gave {type(found).__name__}, not names mapped to scores")
    return found


def random_answers(subject: Subject) -> Answers:
    """Answers that are mostly right, with every class among the targets."""
    form, count = _form(subject)
    return form.answers(ITEMS, count)


def few_answers(subject: Subject) -> Answers:
    """Answers for a handful of items."""
    return random_answers(subject).part(slice(0, 3))


def sure_answers(subject: Subject, *, right: bool) -> Answers:
    """Confident answers, all of them right or all of them wrong."""
    form, count = _form(subject)
    return form.sure(ITEMS, count, right=right)


def unlike(what: str, found: Scores, expected: Scores) -> Iterator[str]:
    """The first in which two sets of scores differ, beyond rounding."""
    if found.keys() != expected.keys():
        yield f"{what}: names are {sorted(found)}, not {sorted(expected)}"
        return
    for name, score in expected.items():
        if not _near(found[name], score):
            yield f"{what}: {name} is {_shown(found[name])}, not {_shown(score)}"
            return


@once
def spec_of(subject: Subject) -> DataSpec:
    """What the metrics of a case are built for: where it does not say, something small with targets of the first form
    that the metric is defined for."""
    if subject.case.spec is not None:
        return subject.case.spec
    for form in DRAWN:
        spec = replace(USUAL, targets=form)
        with suppress(Exception):  # what it raises for every form is raised again where a rule builds it
            subject.build(spec)
            return spec
    return USUAL


def _form(subject: Subject) -> tuple[Drawn, int]:
    """The form of the targets, and how many classes or outputs there are."""
    spec = spec_of(subject)
    return DRAWN[spec.targets], len(spec.classes)


def _awkward(subject: Subject) -> Iterator[tuple[str, Answers]]:
    (form, count), answers = _form(subject), random_answers(subject)
    yield from form.awkward(ITEMS, count)
    yield "one item", answers.part(slice(0, 1))
    yield "one answer for all", Answers(SURE * torch.eye(count)[torch.zeros(ITEMS, dtype=torch.int64)], answers.targets)
    yield "logits that are all alike", Answers(torch.zeros(ITEMS, count), answers.targets)
    yield "logits of 1e4", Answers(answers.logits * 1e4, answers.targets)
    yield "all answers right", sure_answers(subject, right=True)
    yield "all answers wrong", sure_answers(subject, right=False)


def _wrong_score(score: object) -> str | None:
    if isinstance(score, float):
        return None
    if not isinstance(score, list):
        return f"{type(score).__name__}, not a float"
    lists = [row for row in score if isinstance(row, list)]
    if lists and (len(lists) < len(score) or {len(row) for row in lists} != {len(score)}):
        return "a list of lists that is not square"
    odd = [one for one in (chain(*lists) if lists else score) if type(one) not in (int, float)]
    return f"a list with {type(odd[0]).__name__} in it" if odd else None


def _near(found: Score, expected: Score) -> bool:
    one, other = np.asarray(found, dtype=float), np.asarray(expected, dtype=float)
    return one.shape == other.shape and bool(np.allclose(one, other, rtol=CLOSE, atol=CLOSE, equal_nan=True))


def _shown(score: Score) -> str:
    return f"{score:.6g}" if isinstance(score, float) else str(np.asarray(score, dtype=float).round(6).tolist())


def _occurring(answers: Answers) -> list[int]:
    """The classes that targets show."""
    shown = answers.targets if answers.targets.ndim == 1 else answers.targets.any(0).nonzero()
    return [int(number) for number in shown.unique()]


def _sklearn() -> Any:
    """Its scores. Importing it takes longer than all rules of a metric, and few metrics are called as one of its."""
    from sklearn import metrics

    return metrics


def _by_sklearn(name: str, answers: Answers, form: TargetForm) -> Score | None:
    """What scikit-learn gives for the score of this name; None where the name does not say which it is."""
    if form == "number":
        return _of_numbers_by_sklearn(name, answers)
    if form == "set":
        return _of_sets_by_sklearn(name, answers)
    targets, predicted = answers.targets.numpy(), answers.logits.argmax(dim=1).numpy()
    probabilities = answers.logits.double().softmax(dim=1).numpy()
    labels = np.arange(probabilities.shape[1])
    found: Any = None
    if name in OF_CLASSES:
        found = getattr(_sklearn(), OF_CLASSES[name])(targets, predicted)
    elif averaged := re.fullmatch(OF_EACH_CLASS, name):
        average = None if averaged[2] == "per_class" else averaged[2]
        score = getattr(_sklearn(), f"{averaged[1]}_score")
        found = score(targets, predicted, labels=np.unique(targets), average=average, zero_division=0.0)
    elif top := re.fullmatch(r"top_?(\d+)_accuracy", name):
        # Counted here: scikit-learn warns where a class is absent, and of two classes takes other input.
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, : int(top[1])]
        found = (best == targets[:, None]).any(axis=1).mean()
    elif name == "log_loss":
        found = _sklearn().log_loss(targets, probabilities, labels=labels)
    elif name == "confusion_matrix":
        found = _sklearn().confusion_matrix(targets, predicted, labels=labels)
    plain: Score | None = None if found is None else np.asarray(found).tolist()
    return plain


def _of_sets_by_sklearn(name: str, answers: Answers) -> Score | None:
    """As `_by_sklearn`, where targets are sets: of the classes with a logit of at least 0, and of those that occur."""
    targets, predicted, labels = answers.targets.numpy(), (answers.logits >= 0).numpy(), _occurring(answers)
    found: Any = None
    if name == "accuracy":
        found = _sklearn().accuracy_score(targets, predicted)
    elif averaged := re.fullmatch(OF_EACH_CLASS, name):
        average = None if averaged[2] == "per_class" else averaged[2]
        score = getattr(_sklearn(), f"{averaged[1]}_score")
        found = score(targets, predicted, labels=labels, average=average, zero_division=0.0)
    elif name in ("mean_average_precision", "average_precision_per_class"):
        average = "macro" if name.startswith("mean") else None
        found = _sklearn().average_precision_score(
            targets[:, labels], answers.logits.numpy()[:, labels], average=average
        )
    plain: Score | None = None if found is None else np.asarray(found).tolist()
    return plain


def _of_numbers_by_sklearn(name: str, answers: Answers) -> Score | None:
    alone = name.removesuffix("_per_output")
    if alone not in OF_NUMBERS:
        return None
    how = "uniform_average" if alone == name else "raw_values"
    targets, answered = answers.targets.double().numpy(), answers.logits.double().numpy()
    plain: Score = np.asarray(getattr(_sklearn(), OF_NUMBERS[alone])(targets, answered, multioutput=how)).tolist()
    return plain
