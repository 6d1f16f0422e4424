"""The rules of metrics.

Several processes share no metric: where a run has several, the core gives what all of them answered to one metric, in
any order. So a metric whose scores do not depend on batches and order (`batches`) needs nothing else to be merged.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toolkit.api.contracts import DataSpec, Metric, Score, Scores
from toolkit.kit.testing.rulebook import DoesNotApply, Rulebook
from toolkit.kit.testing.signatures import arguments
from toolkit.kit.testing.subject import Subject
from toolkit.kit.testing.waiting import no_waiting

RULES = Rulebook("metric")
RULES.rule(arguments)

USUAL = DataSpec(("first", "second", "third", "fourth", "fifth", "sixth"), size=8)
ITEMS = 200
CLOSE = 1e-5
SURE = 20.0
"""How far a confident logit stands above the others."""


@dataclass(frozen=True)
class Answers:
    """Logits float32 `[N, C]` and targets int64 `[N]`."""

    logits: Tensor
    targets: Tensor

    def part(self, places: Any) -> Answers:
        """The items at these places."""
        return Answers(self.logits[places], self.targets[places])


@RULES.rule
def scores(subject: Subject) -> Iterator[str]:
    """`compute` gives the same names each time, each with a float, a list of numbers or a square list of lists."""
    found = [scored(subject, answers) for answers in (random_answers(subject), few_answers(subject))]
    for name, score in found[0].items():
        wrong = _wrong_score(score)
        if not isinstance(name, str) or not name:
            yield f"{name!r} is no name"
        elif wrong:
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
        difference = unlike(scored(subject, given, size), expected)
        if difference:
            yield f"{what}: {difference}"


@RULES.rule
def again(subject: Subject) -> Iterator[str]:
    """`compute` changes nothing: asked twice it gives the same, and what comes later is added."""
    answers, metric = random_answers(subject), build(subject)
    half = ITEMS // 2
    metric.update(*_pair(answers.part(slice(0, half))))
    first, second = metric.compute(), metric.compute()
    if difference := unlike(second, first):
        yield f"asked twice: {difference}"
    metric.update(*_pair(answers.part(slice(half, ITEMS))))
    if difference := unlike(metric.compute(), scored(subject, answers)):
        yield f"asked between two batches: {difference}"


@RULES.rule
def apart(subject: Subject) -> Iterator[str]:
    """Each metric that is built begins anew: two share nothing."""
    first = build(subject).compute()
    for right in (True, False):
        scored(subject, sure_answers(subject, right=right))
        if difference := unlike(build(subject).compute(), first):
            yield f"before its first batch, but after another was used: {difference}"
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
    metric.update(*_pair(given))
    if not torch.equal(given.logits, answers.logits) or not torch.equal(given.targets, answers.targets):
        yield "update changes what it is given"
    given.logits.zero_()
    given.targets.zero_()
    if difference := unlike(metric.compute(), scored(subject, answers)):
        yield f"after they were overwritten: {difference}"


@RULES.rule
def inference(subject: Subject) -> Iterator[str]:
    """Tensors of inference mode, and ones that require gradients, are taken as any other."""
    answers = random_answers(subject)
    expected = scored(subject, answers)
    with torch.inference_mode():
        found = scored(subject, Answers(answers.logits.clone(), answers.targets.clone()))
    if difference := unlike(found, expected):
        yield f"in inference mode: {difference}"
    if difference := unlike(
        scored(subject, Answers(answers.logits.clone().requires_grad_(), answers.targets)), expected
    ):
        yield f"with logits that require gradients: {difference}"


@RULES.rule
def bounds(subject: Subject) -> Iterator[str]:
    """A score of random answers lies between those of answers that are all right and all wrong, both given surely."""
    shown = (random_answers(subject), sure_answers(subject, right=True), sure_answers(subject, right=False))
    found = [_numbers(scored(subject, answers)) for answers in shown]
    for name, score in found[0].items():
        ends = sorted((found[1].get(name, math.nan), found[2].get(name, math.nan)))
        if not ends[0] - CLOSE <= score <= ends[1] + CLOSE and not math.isnan(ends[0] + ends[1] + score):
            yield f"{name} is {score:.4g}, outside the {ends[0]:.4g} and {ends[1]:.4g} of all right and all wrong"


@RULES.rule
def reference(subject: Subject) -> Iterator[str]:
    """A score that is called as one of scikit-learn's is that score, on data with all classes and without some."""
    met = False
    for what, answers in (("all classes", random_answers(subject)), ("a class absent", without_last_class(subject))):
        found = scored(subject, answers)
        for name, expected in _expected(found, answers).items():
            met = True
            if not _near(_of_present(found[name], answers), expected):
                yield f"{name} with {what} is {_shown(found[name])}, scikit-learn's is {_shown(expected)}"
    if not met:
        raise DoesNotApply("none of its scores is called as one of scikit-learn's")


@RULES.rule
def device(subject: Subject) -> Iterator[str]:
    """Tensors on a GPU are taken, and `update` does not wait for the device."""
    if not torch.cuda.is_available():
        raise DoesNotApply("there is no CUDA device here")
    answers, metric = random_answers(subject), build(subject)
    there = Answers(answers.logits.cuda(), answers.targets.cuda())
    build(subject).update(*_pair(there))
    with no_waiting():
        metric.update(*_pair(there))
    if difference := unlike(metric.compute(), scored(subject, answers)):
        yield f"on the GPU: {difference}"


def build(subject: Subject) -> Metric:
    """A fresh metric."""
    metric: Metric = subject.build(_spec(subject))
    return metric


def scored(subject: Subject, answers: Answers | None, size: int = ITEMS) -> Scores:
    """The scores of these answers, given in batches of `size`; None: of none."""
    metric = build(subject)
    for start in range(0, 0 if answers is None else len(answers.targets), size):
        part = slice(start, start + size)
        metric.update(*_pair(answers.part(part)))  # type: ignore[union-attr]  # there is no range of None
    found = metric.compute()
    if not isinstance(found, Mapping):
        raise TypeError(f"compute gave {type(found).__name__}, not names mapped to scores")
    return found


def random_answers(subject: Subject) -> Answers:
    """Answers that are mostly right, with every class among the targets."""
    return _drawn(_count(subject), _count(subject))


def without_last_class(subject: Subject) -> Answers:
    """Answers in which the last class neither occurs nor is predicted."""
    count = _count(subject)
    found = _drawn(max(count - 1, 1), count)
    if count > 1:
        found.logits[:, -1] = -SURE
    return found


def few_answers(subject: Subject) -> Answers:
    """Answers for a handful of items."""
    return random_answers(subject).part(slice(0, 3))


def sure_answers(subject: Subject, *, right: bool) -> Answers:
    """Confident answers, all of them right or all of them wrong."""
    count = _count(subject)
    targets = torch.arange(ITEMS) % count
    answered = targets if right else (targets + 1) % count
    logits = SURE * torch.eye(count)[answered]
    return Answers(logits - (0.0 if right else SURE) * torch.eye(count)[targets], targets)


def unlike(found: Scores, expected: Scores) -> str | None:
    """In what two sets of scores differ, beyond rounding."""
    if found.keys() != expected.keys():
        return f"names are {sorted(found)}, not {sorted(expected)}"
    for name, score in expected.items():
        if not _near(found[name], score):
            return f"{name} is {_shown(found[name])}, not {_shown(score)}"
    return None


def _spec(subject: Subject) -> DataSpec:
    return subject.case.spec or USUAL


def _count(subject: Subject) -> int:
    return len(_spec(subject).classes)


def _pair(answers: Answers) -> tuple[Tensor, Tensor]:
    return answers.logits, answers.targets


def _drawn(occurring: int, classes: int) -> Answers:
    rng = torch.Generator().manual_seed(1)
    targets = torch.cat((torch.arange(occurring), torch.randint(0, occurring, (ITEMS,), generator=rng)))[:ITEMS]
    logits = torch.randn(ITEMS, classes, generator=rng) + 1.5 * torch.eye(classes)[targets]
    return Answers(logits, targets)


def _awkward(subject: Subject) -> Iterator[tuple[str, Answers]]:
    count, answers = _count(subject), random_answers(subject)
    yield "a class that neither occurs nor is predicted", without_last_class(subject)
    yield "one item", answers.part(slice(0, 1))
    yield "one class alone", answers.part(answers.targets == 0)
    yield "one answer for all", Answers(SURE * torch.eye(count)[torch.zeros(ITEMS, dtype=torch.int64)], answers.targets)
    yield "logits that are all alike", Answers(torch.zeros(ITEMS, count), answers.targets)
    yield "logits of 1e4", Answers(answers.logits * 1e4, answers.targets)
    yield "all answers right", sure_answers(subject, right=True)
    yield "all answers wrong", sure_answers(subject, right=False)


def _wrong_score(score: object) -> str | None:
    if isinstance(score, float):
        return None
    if not isinstance(score, list):
        return f"{type(score).__name__}, no float"
    lists = [row for row in score if isinstance(row, list)]
    if lists and (len(lists) < len(score) or {len(row) for row in lists} != {len(score)}):
        return "a list of lists that is not square"
    odd = [one for one in (chain(*lists) if lists else score) if type(one) not in (int, float)]
    return f"a list with {type(odd[0]).__name__} in it" if odd else None


def _numbers(found: Scores) -> dict[str, float]:
    return {name: score for name, score in found.items() if isinstance(score, float)}


def _near(found: Score, expected: Score) -> bool:
    one, other = np.asarray(found, dtype=float), np.asarray(expected, dtype=float)
    return one.shape == other.shape and bool(np.allclose(one, other, rtol=CLOSE, atol=CLOSE, equal_nan=True))


def _shown(score: Score) -> str:
    return f"{score:.6g}" if isinstance(score, float) else str(np.asarray(score, dtype=float).round(6).tolist())


def _of_present(score: Score, answers: Answers) -> Score:
    """Of a list with one number a class, those of the classes that occur; any other score as it is."""
    if isinstance(score, list) and score and not isinstance(score[0], list):
        return [score[target] for target in answers.targets.unique().tolist()]
    return score


def _expected(found: Scores, answers: Answers) -> dict[str, Score]:
    """What scikit-learn gives for those of the scores whose names say which they are."""
    given = _Given(
        answers.targets.numpy(),
        answers.logits.argmax(dim=1).numpy(),
        answers.logits.double().softmax(dim=1).numpy(),
    )
    recognised = ((name, _by_name(name, given)) for name in found)
    return {name: ask() for name, ask in recognised if ask is not None}


@dataclass(frozen=True)
class _Given:
    targets: Any
    predicted: Any
    probabilities: Any

    @property
    def labels(self) -> Any:
        return np.arange(self.probabilities.shape[1])


def _by_name(name: str, given: _Given) -> Callable[[], Score] | None:
    """How to ask scikit-learn for the score of this name; None where the name does not say which it is."""
    from sklearn import metrics

    if name in _OF_CLASSES:
        return lambda: float(getattr(metrics, _OF_CLASSES[name])(given.targets, given.predicted))
    if averaged := re.fullmatch(r"(precision|recall|f1|jaccard)_(macro|micro|weighted|per_class)", name):
        return lambda: _averaged(getattr(metrics, f"{averaged[1]}_score"), averaged[2], given)
    if top := re.fullmatch(r"top_?(\d+)_accuracy", name):
        return lambda: _top(int(top[1]), given)
    if name == "log_loss":
        return lambda: float(metrics.log_loss(given.targets, given.probabilities, labels=given.labels))
    if name == "confusion_matrix":
        counts = metrics.confusion_matrix(given.targets, given.predicted, labels=given.labels)
        return counts.tolist  # type: ignore[no-any-return]
    return None


_OF_CLASSES = {
    "accuracy": "accuracy_score",
    "balanced_accuracy": "balanced_accuracy_score",
    "cohen_kappa": "cohen_kappa_score",
    "matthews_corrcoef": "matthews_corrcoef",
}


def _averaged(score: Callable[..., Any], average: str, given: _Given) -> Score:
    present = np.unique(given.targets)
    one_a_class = average == "per_class"
    found = score(
        given.targets, given.predicted, labels=present, average=None if one_a_class else average, zero_division=0.0
    )
    scores: Score = found.tolist() if one_a_class else float(found)
    return scores


def _top(count: int, given: _Given) -> float:
    """Counted here: scikit-learn warns where a class is absent, and of two classes takes other input."""
    best = np.argsort(-given.probabilities, axis=1, kind="stable")[:, :count]
    return float((best == given.targets[:, None]).any(axis=1).mean())
