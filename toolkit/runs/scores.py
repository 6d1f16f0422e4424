"""Scores as a person reads them: shares in percent, and one row for what is equal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

SHARES = frozenset({"accuracy", "precision", "recall", "f1", "ece"})
"""Words in the names of scores that are shares of a whole, 0..1."""


def score_text(name: str, value: float) -> str:
    """`81.3 %` for a share, `0.8134` for another score, `undefined` for NaN."""
    if math.isnan(value):
        return "undefined"
    return f"{value:.1%}".replace("%", " %") if is_share(name) else f"{value:.4f}"


def is_share(name: str) -> bool:
    """Whether the score of this name is a share of a whole."""
    return not SHARES.isdisjoint(name.split("_"))


def distinct_scores(splits: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Sequence[str], Sequence[float | None]]]:
    """The scalar scores of these splits: the names that share the same values, and the value in each split.

    None where a split does not have the score. On balanced data several metrics agree by definition.
    """
    scalars = (name for split in splits for name, score in split.items() if isinstance(score, float))
    rows: dict[tuple[object, ...], list[str]] = {}
    for name in dict.fromkeys(scalars):
        # Sums in another order differ in the last digits.
        shown = tuple(None if name not in split else f"{split[name]:.5g}" for split in splits)
        alone = name if all(text in (None, "nan") for text in shown) else None
        rows.setdefault((shown, is_share(name), alone), []).append(name)
    for names in rows.values():
        yield names, [split.get(names[0]) for split in splits]
