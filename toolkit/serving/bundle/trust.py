"""How far the answers of a bundle go: the temperature in its graph, when it declines, and sets that hold the truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from toolkit.api.answers import named_classes
from toolkit.system.choices import TrustScore

DECLINED, PLAUSIBLE = "declined", "plausible"
"""Names of the graph's outputs besides its answers and the score that it declines by."""
SCORES = {
    "energy": "the log of the sum of the exponentials of the logits; for unknown inputs it is low",
    "similarity": "the cosine of the angle between the features and those of the nearest class; for unknown inputs it "
    "is low",
}
"""Names of the outputs that are such a score, and what they hold."""


@dataclass(frozen=True)
class Rejection:
    """When an answer is declined: where its score is below the threshold."""

    score: TrustScore
    threshold: float
    rate: float
    """Largest share of right answers that the threshold was chosen to decline."""
    weight: float = 0.0
    """Of the similarity, which is added to the confidence; 0 where another score decides."""

    def compared(self, confidence: Any, score: Any) -> Any:
        """What is compared with the threshold: of the probability of the likeliest class, and of what the graph gives
        under the name of the score, where it does. Both are numbers, or arrays or tensors of one shape."""
        if self.score == "confidence":
            return confidence
        return score if self.score == "energy" else confidence + self.weight * score


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
        scores = () if self.scored is None else (self.scored,)
        declined = () if self.reject is None else (DECLINED,)
        return (*scores, *declined, *(() if self.conformal is None else (PLAUSIBLE,)))

    @property
    def scored(self) -> str | None:
        """The name of the output with the score by which the model declines; None where that follows from the
        probabilities."""
        return self.reject.score if self.reject is not None and self.reject.score in SCORES else None

    @property
    def score_columns(self) -> int:
        """How many numbers a session gives behind the answer."""
        return int(self.scored is not None)

    def declines(self, probabilities: Sequence[float], score: float | None) -> bool:
        """Whether the answer with these C probabilities is declined; `score` is what the graph gives, where it does."""
        if self.reject is None or (score is None and self.scored):
            return False
        return bool(self.reject.compared(max(probabilities), score) < self.reject.threshold)

    def plausible(self, probabilities: Sequence[float]) -> list[int] | None:
        """Numbers of the classes in the set of an answer, perhaps none; None where a bundle has no sets."""
        if self.conformal is None:
            return None
        return named_classes(probabilities, [self.conformal.threshold] * len(probabilities))

    def contradictions(self, form: str) -> Iterator[str]:
        """What no exported bundle says."""
        numbers: list[tuple[str, object]] = [("temperature", self.temperature)]
        if self.reject is not None:
            numbers += [(f"reject.{name}", getattr(self.reject, name)) for name in ("threshold", "rate", "weight")]
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
