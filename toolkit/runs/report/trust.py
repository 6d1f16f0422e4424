"""What a page says of how far answers can be trusted. Plain Python: no torch, no numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from toolkit.runs.files import RunFiles
from toolkit.runs.report.statistics import Calibration
from toolkit.system.choices import TrustScore


@dataclass(frozen=True)
class Calibrated:
    """The test split after logits are divided by a temperature that validation chose."""

    temperature: float
    curve: Calibration
    rows: Sequence[tuple[str, float, float]]
    """Each measure with its value before and after."""


@dataclass(frozen=True)
class Unknown:
    """What the run's model does with test items of classes that it has not learned."""

    classes: Sequence[str]
    items: int
    rows: Sequence[tuple[str, float, float]]
    """Each score, with the area under its curve and the share of unknown items that it declines."""


@dataclass(frozen=True)
class Rescored:
    """What comes of the trust of a bundle on the splits that it is scored on, next to what came of it at export."""

    headings: Sequence[str]
    """The splits, each followed by the one for its figures at export."""
    rows: Sequence[tuple[str, Sequence[str]]]
    """Each measure in words, with a text for each heading, empty where it is not known."""
    same_items: bool
    """Whether the splits hold the items that they held at export."""


_MEASURES: Mapping[str, tuple[str, str]] = {
    "items": ("items", ",.0f"),
    "accuracy": ("accuracy", ".1%"),
    "log_loss": ("log loss", ".4f"),
    "ece": ("expected calibration error", ".1%"),
    "declined": ("declined", ".1%"),
    "declined_right": ("declined of the right answers", ".1%"),
    "accuracy_kept": ("accuracy of the rest", ".1%"),
    "coverage": ("sets that hold the truth", ".1%"),
    "set_size": ("classes in a set, mean", ".2f"),
    "empty_sets": ("empty sets", ".1%"),
}
"""The measures of a bundle's trust, in words, with the format of each."""


def rescored(scores: Mapping[str, Any]) -> Rescored | None:
    """What scores.json has under `trust`; None where a bundle has none, or a run was scored."""
    found: Mapping[str, Any] | None = scores.get("trust")
    if not found:
        return None
    splits = [name for name in ("valid", "test", "unknown") if name in found]
    columns = [figures for name in splits for figures in (found[name], found["exported"].get(name, {}))]
    rows = [
        (words, [_text(figures.get(name), form) for figures in columns])
        for name, (words, form) in _MEASURES.items()
        if any(name in found[split] for split in splits)
    ]
    return Rescored([heading for name in splits for heading in (name, "at export")], rows, found["same_items"])


def _text(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form).replace("%", " %")


def calibrated(files: RunFiles) -> Calibrated | None:
    found = files.scores.get("calibration")
    if not found:
        return None
    before, after = found["before"], found["after"]
    rows = [(name, before[name], after[name]) for name in ("ece", "log_loss")]
    return Calibrated(found["temperature"], Calibration(**found["curve"]), rows)


def unknown(files: RunFiles) -> Unknown | None:
    found: dict[str, Any] | None = files.scores.get("unknown")
    if not found:
        return None
    scores = [name for name in get_args(TrustScore) if name in found]
    rows = [(name, found[name]["auroc"], found[name]["declined"]) for name in scores]
    return Unknown(found["classes"], found["items"], rows)
