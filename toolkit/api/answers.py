"""From probabilities to the classes that an answer names, and to text; from numbers to text: one rule for runs, reports
and bundles."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

SEPARATOR = "|"
"""Stands between the names of a set of classes, in files and on screens."""
NONE = "(none)"
"""What a person reads where a set of classes is empty; in files it is the empty text."""

UNKNOWN = "unknown"
"""What a person reads where an answer is declined."""


def named_classes(probabilities: Sequence[float], thresholds: Sequence[float] | None) -> list[int]:
    """Numbers of the classes that an answer names: the first of the likeliest; with thresholds all classes that reach
    their own, perhaps none.

    `probabilities` are those of the C classes, and `thresholds`, where given, as many.
    """
    if thresholds is None:
        return [max(range(len(probabilities)), key=probabilities.__getitem__)]
    pairs = zip(probabilities, thresholds, strict=True)
    return [number for number, (probability, threshold) in enumerate(pairs) if probability >= threshold]


def confidence(probabilities: Sequence[float], thresholds: Sequence[float]) -> float:
    """How sure an answer with a set of classes is, 0..1: the probability that the whole set is right, if the classes
    are independent. The product over all classes of the probability that the class is there where the answer names it,
    and that it is not where the answer does not."""
    named = set(named_classes(probabilities, thresholds))
    return math.prod(
        probability if number in named else 1 - probability for number, probability in enumerate(probabilities)
    )


def label(classes: Sequence[str], numbers: Iterable[int]) -> str:
    """The names of some classes as one text."""
    return SEPARATOR.join(classes[number] for number in numbers)


def names_in(text: str) -> list[str]:
    """The names of the classes in a text that `label` made of a set."""
    return text.split(SEPARATOR) if text else []


def number(value: float) -> str:
    """A number of any size as a person reads it: four significant digits, and all digits before the point."""
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e12 else f"{value:.4g}"


def percent(share: float, digits: int = 1) -> str:
    """A share, 0..1, in percent as a person reads it, with so many digits after the point."""
    return f"{100 * share:.{digits}f} %"
