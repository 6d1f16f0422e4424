"""What a run's records and scores mean, in words: each verdict names the keys of the recipe that help.

`verdicts` is a pure function of a `Judged`, so the screen and the report always agree. Plain Python: no torch.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import Any, Literal, TypeAlias

from toolkit.api.answers import names_in, number, percent
from toolkit.api.contracts import EpochRecord
from toolkit.api.errors import counted, first_few
from toolkit.runs.estimates import Estimate
from toolkit.runs.files import RunFiles
from toolkit.runs.predictions import Prediction
from toolkit.runs.report.numbers import output_scores
from toolkit.runs.report.statistics import (
    accuracy,
    best_constant_set,
    most_frequent_share,
    overlap,
)
from toolkit.runs.scores import Certainty
from toolkit.runs.slices import Slice, worse_than_rest

Kind: TypeAlias = Literal[
    "nothing_scored",
    "not_finite",
    "chance",
    "few_items",
    "overfitting",
    "improving",
    "waiting",
    "unbalanced",
    "never_predicted",
    "worse_slices",
]

WIDE = 0.20
"""An interval of the accuracy that is wider than this, 95 items or fewer at 50 %, decides too little."""
RISEN = 1.05
"""Overfitting: the validation loss ends this many times its lowest value, or more."""
FALLEN = 0.98
"""Still improving: the validation loss has come down to this share, or less, of what it was a fifth of the run ago."""
WAITING = 0.30
"""A run that waits for data for this share of its training time, or more, is starved."""
UNBALANCED = 3.0
"""How many times the items of the smallest class the largest may have."""
STANDARD_ERRORS = 1.96
"""A mean that lies fewer of them above 0 may be 0, at 95 % confidence."""
FEWEST_EPOCHS = 4
"""A curve of fewer epochs says nothing."""
NAMED_SLICES = 3
"""Slices that a verdict names."""


@dataclass(frozen=True)
class Verdict:
    """One thing that the numbers of a run say."""

    kind: Kind
    text: str
    keys: tuple[str, ...] = ()
    """Keys of the recipe that help, the most likely one first."""

    @property
    def sentence(self) -> str:
        """The verdict with its keys, on one line."""
        return f"{self.text} Try: {', '.join(self.keys)}." if self.keys else self.text


@dataclass(frozen=True)
class Judged:
    """What verdicts are made of: a run's files hold all of it."""

    recipe: Mapping[str, Any]
    """Its tables, defaults included."""
    records: Sequence[EpochRecord] = ()
    finished: bool = True
    split: str | None = None
    """The split that is judged; None where nothing was scored."""
    predictions: Sequence[Prediction] = ()
    """Of `split`."""
    estimates: Sequence[Estimate] = ()
    """Of `split`, where targets are numbers."""
    classes: Sequence[str] = ()
    one_class: bool = True
    """Whether an answer is one class; else it is a set of them."""
    class_items: Mapping[str, int] = field(default_factory=dict)
    """Training items of each class; empty where they are not known."""
    slices: Sequence[Slice] = ()
    """Of `split`."""
    labelled: bool = True
    """Whether the data has labels to compare answers with."""
    certainty: Certainty = field(default_factory=lambda: Certainty({}, {}))
    """Of the scores on `split`."""


def judged(files: RunFiles) -> Judged:
    """What the files of a run say."""
    return Judged(
        recipe=files.tables,
        records=files.records,
        finished=files.finished,
        split=files.split if files.split_scores else None,
        predictions=files.predictions,
        estimates=files.estimates,
        classes=files.classes,
        one_class=files.targets == "index",
        class_items=files.facts.get("class_items", {}),
        slices=files.slices,
        labelled=files.facts.get("labelled", True),
        certainty=Certainty.of(files.scores, files.split),
    )


def verdicts(judged: Judged) -> list[Verdict]:
    """All that can be said of a run that has ended, the most important first."""
    return [verdict for rule in RULES for verdict in rule(judged)]


def _nothing_scored(judged: Judged) -> Iterator[Verdict]:
    if judged.finished and not judged.labelled:
        yield Verdict("nothing_scored", "Nothing was scored: the data has no labels.")
    elif judged.finished and judged.split is None:
        text = "Nothing was scored: the dataset has no validation and no test items."
        yield Verdict("nothing_scored", text, _present(judged, "data.test_share", "data.valid_share"))


def _not_finite(judged: Judged) -> Iterator[Verdict]:
    broken = sum(not math.isfinite(row.confidence) for row in judged.predictions)
    broken += sum(not all(map(math.isfinite, row.prediction.values())) for row in judged.estimates)
    if broken:
        of = f"{broken} of {counted(len(judged.predictions) + len(judged.estimates), 'item')}"
        text = f"Training diverged: the answers to {of} in the {judged.split} split are not finite (NaN or infinite)."
        yield Verdict("not_finite", text, _present(judged, "train.optimizer.lr", "train.clip_norm"))


def _chance(judged: Judged) -> Iterator[Verdict]:
    rows = judged.predictions
    if not rows or not judged.classes or not judged.one_class:
        return
    reached, constant, guessed = accuracy(rows), most_frequent_share(rows), 1 / len(judged.classes)
    low, high = judged.certainty.interval("accuracy", reached, len(rows))
    if low > max(constant, guessed):
        return
    most_frequent = "Answering the most frequent class every time"
    rival, baseline = ("Guessing", guessed) if guessed >= constant else (most_frequent, constant)
    text = (
        f"No better than chance: {judged.split} accuracy {percent(reached)} (95 % interval {percent(low)} to "
        f"{percent(high)}). {rival} reaches {percent(baseline)}."
    )
    yield Verdict("chance", text, _more_training(judged))


def _constant_set(judged: Judged) -> Iterator[Verdict]:
    """By the mean, over items, of how much more an answer overlaps with its target than the best constant set does,
    and its standard error. Whole sets that are right would say little: a model may miss one of many classes."""
    if judged.one_class or len(judged.predictions) < 2:
        return
    targets = [names_in(row.target) for row in judged.predictions]
    answers = [names_in(row.prediction) for row in judged.predictions]
    answered = [overlap(*pair) for pair in zip(targets, answers, strict=True)]
    constant = best_constant_set(targets)
    rival = [overlap(target, constant) for target in targets]
    if _above_zero([one - other for one, other in zip(answered, rival, strict=True)]):
        return
    text = (
        f"No better than a constant: {judged.split} answers overlap with their targets by {percent(mean(answered))}. "
        f"Answering {', '.join(constant) or 'no class'} every time reaches {percent(mean(rival))}."
    )
    yield Verdict("chance", text, _more_training(judged))


def _above_zero(gains: Sequence[float]) -> bool:
    """Whether the mean of these, two or more, is reliably above 0."""
    return mean(gains) > STANDARD_ERRORS * stdev(gains) / math.sqrt(len(gains))


def _constant(judged: Judged) -> Iterator[Verdict]:
    """By the mean, over items, of how much nearer an answer is than the best constant, and its standard error."""
    for name in judged.estimates[0].target if judged.estimates else ():
        found = output_scores(name, judged.estimates)
        nearer = [abs(one.target[name] - found.middle) - abs(one.error(name)) for one in judged.estimates]
        if len(nearer) < 2 or found.baseline == 0:
            continue
        if _above_zero(nearer):
            continue
        text = (
            f"No better than a constant: {judged.split} mean absolute error of {name} {number(found.mae)}. Answering "
            f"the median {number(found.middle)} every time has {number(found.baseline)}."
        )
        yield Verdict("chance", text, _more_training(judged))


def _more_training(judged: Judged) -> tuple[str, ...]:
    weights = judged.recipe.get("model", {}).get("weights")
    pretrained = ("model.weights",) if weights == "none" else ()
    return ("train.optimizer.lr", "train.epochs", *pretrained)


def _few_items(judged: Judged) -> Iterator[Verdict]:
    rows = judged.predictions
    if not rows:
        return
    low, high = judged.certainty.interval("accuracy", accuracy(rows), len(rows))
    if high - low <= WIDE:
        return
    text = (
        f"Too few items to judge: {counted(len(rows), 'item')} in the {judged.split} split, so the 95 % interval of "
        f"the accuracy spans {100 * (high - low):.0f} points."
    )
    yield Verdict("few_items", text, _present(judged, f"data.{judged.split}_share"))


def _overfitting(judged: Judged) -> Iterator[Verdict]:
    records, lowest = judged.records, _lowest(judged.records)
    if lowest is None:
        return
    later = [one.valid["loss"] for one in records if one.epoch > lowest.epoch and "loss" in one.valid]
    last = later[-min(3, len(later)) :]
    if len(last) < 2 or not math.isfinite(sum(last)):
        return
    level, low = sum(last) / len(last), lowest.valid["loss"]
    trained = records[-1].train_loss
    if level < RISEN * low or not trained < lowest.train_loss:
        return
    text = (
        f"Overfitting from epoch {lowest.epoch + 1}: the training loss falls from {lowest.train_loss:.3f} to "
        f"{trained:.3f}, the validation loss rises from {low:.3f} to {later[-1]:.3f}."
    )
    yield Verdict("overfitting", text, ("augment", *_present(judged, "train.optimizer.weight_decay"), "train.patience"))


def _improving(judged: Judged) -> Iterator[Verdict]:
    records, lowest = judged.records, _lowest(judged.records)
    if not judged.finished or lowest is None or lowest.epoch != records[-1].epoch:
        return
    before = records[-1 - math.ceil(len(records) / 5)]
    if lowest.valid["loss"] > FALLEN * before.valid.get("loss", math.nan):
        return
    text = (
        f"Still improving at the last epoch: the validation loss falls from {before.valid['loss']:.3f} in epoch "
        f"{before.epoch} to {lowest.valid['loss']:.3f} in epoch {lowest.epoch}."
    )
    yield Verdict("improving", text, ("train.epochs",))


def _waiting(judged: Judged) -> Iterator[Verdict]:
    """By the epochs after the first, which decodes every item once."""
    records = judged.records[1:] or judged.records
    seconds = sum(one.seconds for one in records)
    waited = sum(one.seconds * one.waiting for one in records)
    if not seconds or waited / seconds < WAITING:
        return
    text = f"Starved of data: {percent(waited / seconds, 0)} of the training time is spent waiting for data."
    yield Verdict("waiting", text, ("input.memory_gb", "input.cache_gb", "input.workers"))


def _unbalanced(judged: Judged) -> Iterator[Verdict]:
    counts = {name: count for name, count in judged.class_items.items() if count}
    if not counts or _weighted(judged):
        return
    fewest, most = min(counts, key=lambda name: counts[name]), max(counts, key=lambda name: counts[name])
    if counts[most] < UNBALANCED * counts[fewest]:
        return
    text = (
        f"Unbalanced classes: {counted(counts[fewest], 'training item')} of {fewest}, {counts[most]} of {most}; "
        "accuracy hides mistakes on rare classes."
    )
    yield Verdict("unbalanced", text, _weights(judged))


def _never_predicted(judged: Judged) -> Iterator[Verdict]:
    names = (lambda label: [label]) if judged.one_class else names_in
    targets = Counter(name for row in judged.predictions for name in names(row.target))
    answered = {name for row in judged.predictions for name in names(row.prediction)}
    never = [name for name in judged.classes if targets[name] and name not in answered]
    missing = [f"{name} ({counted(targets[name], 'item')})" for name in never]
    if not missing:
        return
    classes = "1 class is" if len(missing) == 1 else f"{len(missing)} classes are"
    text = f"{classes} never predicted on the {judged.split} split: {first_few(missing)}."
    yield Verdict("never_predicted", text, (*(() if _weighted(judged) else _weights(judged)), "train.epochs"))


def _worse_slices(judged: Judged) -> Iterator[Verdict]:
    worse = [one.sentence for one in worse_than_rest(judged.slices)]
    if not worse:
        return
    slices = "1 slice is" if len(worse) == 1 else f"{len(worse)} slices are"
    more = f"; and {len(worse) - NAMED_SLICES} more" if len(worse) > NAMED_SLICES else ""
    text = f"{slices} worse than the rest of the {judged.split} split: {'; '.join(worse[:NAMED_SLICES])}{more}."
    yield Verdict("worse_slices", text)


RULES: tuple[Callable[[Judged], Iterator[Verdict]], ...] = (
    _nothing_scored,
    _not_finite,
    _chance,
    _constant_set,
    _constant,
    _few_items,
    _overfitting,
    _improving,
    _waiting,
    _unbalanced,
    _never_predicted,
    _worse_slices,
)


def _lowest(records: Sequence[EpochRecord]) -> EpochRecord | None:
    """The epoch of the lowest validation loss; None where the curve is too short or has none."""
    scored = [one for one in records if math.isfinite(one.valid.get("loss", math.nan))]
    return min(scored, key=lambda one: one.valid["loss"]) if len(scored) >= FEWEST_EPOCHS else None


WEIGHTS = ("class_weights", "positive_weights")
"""What tasks call the weights of classes."""


def _weights(judged: Judged) -> tuple[str, ...]:
    """The key that weights classes, with its value, where the task has one."""
    task = judged.recipe.get("task", {})
    return tuple(f'task.{key} = "balanced"' for key in WEIGHTS if key in task)


def _weighted(judged: Judged) -> bool:
    task = judged.recipe.get("task", {})
    return any(task.get(key, "none") != "none" for key in WEIGHTS)


def _present(judged: Judged, *keys: str) -> tuple[str, ...]:
    """Those of the keys that the recipe has: a component's arguments are its own."""
    return tuple(key for key in keys if _has(judged.recipe, key.split(".")))


def _has(table: Any, steps: Sequence[str]) -> bool:
    return not steps or (isinstance(table, Mapping) and steps[0] in table and _has(table[steps[0]], steps[1:]))
