"""Scores as rows: one for each number, however many metrics give it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Row(NamedTuple):
    """Scalar scores that are equal on every split."""

    names: tuple[str, ...]
    values: tuple[float | None, ...]
    """One a split; None where the split has no such score."""

    @property
    def heading(self) -> str:
        return " = ".join(self.names)


def score_rows(splits: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The scalar scores of some splits. `loss` and `log_loss` often agree, as do macro and weighted averages over
    classes of equal size; what is undefined agrees with nothing."""
    scalars = [{name: value for name, value in split.items() if _scalar(value)} for split in splits]
    rows: dict[object, Row] = {}
    for name in dict.fromkeys(name for split in scalars for name in split):
        values = tuple(split.get(name) for split in scalars)
        digits = tuple(None if value is None else f"{value:.6g}" for value in values)
        defined = all(value is None or math.isfinite(value) for value in values)
        alike: object = digits if defined else name
        names = rows[alike].names if alike in rows else ()
        rows[alike] = Row((*names, name), values)
    return list(rows.values())


def _scalar(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
