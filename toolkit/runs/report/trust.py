"""What a page says of how far answers can be trusted. Plain Python: no torch, no numpy."""

from __future__ import annotations

from collections.abc import Sequence
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
