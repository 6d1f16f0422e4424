"""The rule of segments that scores best on annotated videos, and how well such a choice does on others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

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
        yield f"mAP at IoU {DECIDING:g}: {self.score:.1%} on these videos, {self.usual:.1%} by the bundle's own rule"
        if self.others is None:
            yield "one video alone does not show how the choice does on others"
        else:
            yield f"mAP at IoU {DECIDING:g} on videos that a rule was not chosen on: {self.others:.1%}"


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
    """The rule that scores best on the videos that are in both `answered` and `truth`, at least one. Of rules that
    score alike it is the first, and the `usual` one comes before all."""
    names = [name for name in answered if name in truth]
    rules = list(dict.fromkeys([usual, *_rules(usual, thresholds)]))
    found = [{name: _segments(answered[name], rule, classes, thresholds) for name in names} for rule in rules]

    def score(place: int, videos: Sequence[str]) -> tuple[float, ...]:
        there, wanted = ({name: table[name] for name in videos} for table in (found[place], truth))
        return tuple(mean_average_precision(there, wanted, overlap) for overlap in (DECIDING, *OVERLAPS))

    def best(videos: Sequence[str]) -> int:
        return max(range(len(rules)), key=lambda place: (score(place, videos), -place))

    place = best(names)
    return Choice(rules[place], score(place, names)[0], score(0, names)[0], _on_others(names, found, truth, best))


def _on_others(
    names: Sequence[str], found: Sequence[Found], truth: Found, best: Callable[[Sequence[str]], int]
) -> float | None:
    """The score of segments each of which is of a rule that was chosen without its video."""
    if len(names) < 2:
        return None
    unseen: dict[str, Sequence[Segment]] = {}
    for part in range(min(FOLDS, len(names))):
        held = names[part::FOLDS]
        rule = best([name for name in names if name not in held])
        unseen |= {name: found[rule][name] for name in held}
    return mean_average_precision(unseen, {name: truth[name] for name in names}, DECIDING)


def _rules(usual: Segmentation, thresholds: Sequence[float] | None) -> Iterator[Segmentation]:
    """Where classes have thresholds of their own, these stand in the place of `high`."""
    highs = HIGH if thresholds is None else (usual.high,)
    for smooth, high, share, shortest in product(SMOOTH, highs, LOW_SHARE, SHORTEST):
        yield replace(usual, smooth=smooth, high=high, low=round(high * share, 3), shortest=shortest)


def _segments(
    answered: Answered, rule: Segmentation, classes: Sequence[str], thresholds: Sequence[float] | None
) -> list[Segment]:
    return segments_of(answered.timed, rule, classes, answered.every, thresholds, answered.length)
