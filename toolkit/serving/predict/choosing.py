"""The rule of segments that scores best on annotated videos, and how well such a choice does on others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from toolkit.api.answers import percent
from toolkit.serving.predict.segment_scores import OVERLAPS, mean_average_precision
from toolkit.serving.predict.segments import Segment, segments_of
from toolkit.system.segmentation import Segmentation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SMOOTH, SHORTEST = (0.5, 1.0, 2.0, 4.0), (0.0, 0.5, 1.0)
HIGH, LOW_SHARE = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8), (0.5, 2 / 3, 0.8, 1.0)
"""What is tried of each key; `low` as a share of `high`."""
FOLDS = 5
"""Parts of the videos, each of which is scored by the rule that the others choose."""
ROUNDS = 2
"""How often each key is tried again, since the best value of one depends on the others."""
DECIDING = OVERLAPS[1]

Found = Mapping[str, Sequence[Segment]]


@dataclass(frozen=True)
class Answered:
    """The answers to one video over time."""

    every: float
    """Seconds between two answers."""
    timed: Sequence[tuple[float, NDArray[np.float32]]]
    """Where the clip of each has its middle, in seconds, and the answer `[C]`."""
    length: float


@dataclass(frozen=True)
class Choice:
    """A rule, and its mean average precision at an IoU of `DECIDING`."""

    rule: Segmentation
    score: float
    usual: float
    """Of the rule that the bundle has."""
    others: float | None
    """Of rules on videos that they were not chosen on; None where there are too few videos."""

    def lines(self) -> Iterator[str]:
        """What a user reads."""
        yield f"chosen: {', '.join(f'{key} {value:g}' for key, value in keys(self.rule).items())}"
        score, usual = percent(self.score), percent(self.usual)
        yield f"mAP at IoU {DECIDING:g}: {score} on these videos, {usual} by the bundle's own rule"
        if self.others is None:
            yield "one video alone does not show how the choice does on others"
        else:
            yield f"mAP at IoU {DECIDING:g} on videos that a rule was not chosen on: {percent(self.others)}"


def keys(rule: Segmentation) -> dict[str, float]:
    """The keys of the recipe's table `[export.segments]`."""
    return dict(zip(("smooth", "high", "low", "shortest"), astuple(rule), strict=True))


def chosen(
    answered: Mapping[str, Answered],
    truth: Found,
    classes: Sequence[str],
    usual: Segmentation,
    thresholds: Sequence[float] | None,
) -> Choice:
    """A rule that scores best on the videos that are in both `answered` and `truth`, at least one. From the `usual` one
    on, and from the default one, each key in turn takes the value that scores best, or keeps its own."""
    names = [name for name in answered if name in truth]

    @cache
    def found(rule: Segmentation) -> Found:
        return {name: _segments(answered[name], rule, classes, thresholds) for name in names}

    def score(rule: Segmentation, videos: Sequence[str]) -> float:
        there, wanted = ({name: table[name] for name in videos} for table in (found(rule), truth))
        return mean_average_precision(there, wanted, DECIDING)

    def climbed(rule: Segmentation, videos: Sequence[str]) -> Segmentation:
        for others in (_KEYS if thresholds is None else _WITH_THRESHOLDS) * ROUNDS:
            rule = max([rule, *others(rule)], key=lambda one: score(one, videos))
        return rule

    def best(videos: Sequence[str]) -> Segmentation:
        starts = dict.fromkeys([usual, Segmentation()])  # from a rule that finds nothing, no single key leads away
        return max((climbed(start, videos) for start in starts), key=lambda one: score(one, videos))

    rule = best(names)
    others = None
    if len(names) > 1:
        parts = [names[part::FOLDS] for part in range(min(FOLDS, len(names)))]
        rules = {name: best([one for one in names if one not in part]) for part in parts for name in part}
        unseen = {name: found(rules[name])[name] for name in names}
        others = mean_average_precision(unseen, {name: truth[name] for name in names}, DECIDING)
    return Choice(rule, score(rule, names), score(usual, names), others)


def _smoother(rule: Segmentation) -> list[Segmentation]:
    return [replace(rule, smooth=seconds) for seconds in SMOOTH]


def _higher(rule: Segmentation) -> list[Segmentation]:
    return [replace(rule, high=high, low=round(high * rule.low / rule.high, 3)) for high in HIGH]


def _lower(rule: Segmentation) -> list[Segmentation]:
    return [replace(rule, low=round(rule.high * share, 3)) for share in LOW_SHARE]


def _shorter(rule: Segmentation) -> list[Segmentation]:
    return [replace(rule, shortest=seconds) for seconds in SHORTEST]


_WITH_THRESHOLDS = (_lower, _smoother, _shorter)
"""Where classes have thresholds of their own, these stand in the place of `high`."""
_KEYS = (_higher, *_WITH_THRESHOLDS)


def _segments(
    answered: Answered, rule: Segmentation, classes: Sequence[str], thresholds: Sequence[float] | None
) -> list[Segment]:
    return segments_of(answered.timed, rule, classes, answered.every, thresholds, answered.length)
