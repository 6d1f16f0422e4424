"""How a model's answers over time become events: what recipes set, bundles hold and `predict --segments` does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Segmentation:
    """The rule of `toolkit.serving.predict.segments`."""

    smooth: float = 1.0
    """Seconds over which answers are averaged."""
    high: float = 0.6
    """The probability that an event reaches, above 0 and at most 1."""
    low: float = 0.4
    """The probability at which it begins and ends, above 0 and at most `high`."""
    shortest: float = 0.5
    """Seconds of the shortest event."""
