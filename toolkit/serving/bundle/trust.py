"""How far the answers of a bundle go: the temperature in its graph, when it declines, and sets that hold the truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from toolkit.api.answers import named_classes
from toolkit.system.choices import TrustScore

DECLINED, ENERGY, PLAUSIBLE = "declined", "energy", "plausible"
"""Names of the graph's outputs besides its answers."""


@dataclass(frozen=True)
class Rejection:
    """When an answer is declined: where its score is below the threshold."""

    score: TrustScore
    threshold: float
    rate: float
    """Largest share of right answers that the threshold was chosen to decline."""


@dataclass(frozen=True)
class Conformal:
    """Which classes the set of an answer has: those whose probability reaches the threshold."""

    threshold: float
    error: float
    """Largest share of sets that the threshold was chosen to lack the truth in."""


@dataclass(frozen=True)
class Trust:
    """What was chosen on the validation split."""

    temperature: float = 1.0
    """What the graph divides logits by."""
    reject: Rejection | None = None
    conformal: Conformal | None = None
    measured: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """What came of it, by `valid`, `test` and `unknown`: see the bundle's reference."""

    @classmethod
    def read(cls, claimed: Mapping[str, Any]) -> Trust:
        """Of bundle.json. Raises TypeError for keys that are too many or too few."""
        reject, conformal = claimed.get("reject"), claimed.get("conformal")
        return cls(
            **{
                **claimed,
                "reject": None if reject is None else Rejection(**reject),
                "conformal": None if conformal is None else Conformal(**conformal),
            }
        )

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the graph puts out besides its answers."""
        energy = (ENERGY,) if self.scored else ()
        declined = () if self.reject is None else (DECLINED,)
        return (*energy, *declined, *(() if self.conformal is None else (PLAUSIBLE,)))

    @property
    def scored(self) -> bool:
        """Whether the graph gives the score by which it declines; else it follows from the probabilities."""
        return self.reject is not None and self.reject.score == "energy"

    def declines(self, probabilities: Sequence[float], energy: float | None) -> bool:
        """Whether the answer with these C probabilities is declined; `energy` where the graph gives it."""
        if self.reject is None:
            return False
        score = energy if self.scored else max(probabilities)
        return score is not None and score < self.reject.threshold

    def plausible(self, probabilities: Sequence[float]) -> list[int] | None:
        """Numbers of the classes in the set of an answer, perhaps none; None where a bundle has no sets."""
        if self.conformal is None:
            return None
        return named_classes(probabilities, [self.conformal.threshold] * len(probabilities))

    def contradictions(self, form: str) -> Iterator[str]:
        """What no exported bundle says."""
        numbers: list[tuple[str, object]] = [("temperature", self.temperature)]
        if self.reject is not None:
            numbers += [("reject.threshold", self.reject.threshold), ("reject.rate", self.reject.rate)]
            if self.reject.score not in get_args(TrustScore):
                yield f"trust.reject.score: unknown score {self.reject.score!r}"
        if self.conformal is not None:
            numbers += [("conformal.threshold", self.conformal.threshold), ("conformal.error", self.conformal.error)]
        for name, value in numbers:
            if type(value) not in (int, float):
                yield f"trust.{name}: must be a number, got {value!r}"
        if form != "index" and self.outputs:
            yield "trust: only a model of one class an item declines or has sets"


UNTOUCHED = Trust()
"""Answers as the network gives them, none of them declined."""
