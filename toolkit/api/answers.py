"""From probabilities to the classes that an answer names, and to text: one rule for runs, reports and bundles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

SEPARATOR = "|"
"""Stands between the names of a set of classes, in files and on screens."""


def named_classes(probabilities: Sequence[float], thresholds: Sequence[float] | None) -> list[int]:
    """Numbers of the classes that an answer names: the first of the likeliest; with thresholds all classes that reach
    their own, perhaps none.

    `probabilities` are those of the C classes, and `thresholds`, where given, as many.
    """
    if thresholds is None:
        return [max(range(len(probabilities)), key=probabilities.__getitem__)]
    pairs = zip(probabilities, thresholds, strict=True)
    return [number for number, (probability, threshold) in enumerate(pairs) if probability >= threshold]


def label(classes: Sequence[str], numbers: Iterable[int]) -> str:
    """The names of some classes as one text."""
    return SEPARATOR.join(classes[number] for number in numbers)
