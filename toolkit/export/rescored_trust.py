"""What comes of a bundle's trust on other items: what it declines, its sets and its temperature, measured again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from toolkit.export.trust import Decisions, outcome, outcome_of_unknown
from toolkit.runs.trust import unknown_entry
from toolkit.serving.bundle import Trust
from toolkit.serving.bundle.manifest import Manifest
from toolkit.system.choices import TrustScore
from toolkit.training.answers import answers_of
from toolkit.training.evaluate import Answered
from toolkit.training.trust import separation, trust_scores

UNKNOWN = "unknown"
"""Where the items of held-out classes are, of data and of scores."""


class Given(NamedTuple):
    """What a bundle gives to N items of a split."""

    answered: Answered
    scores: Tensor | None
    """float32 `[N]`: what the bundle gives besides its answers, if it declines by that."""

    def compared(self, trust: Trust) -> dict[TrustScore, Tensor]:
        """The confidence, and what the bundle declines by, float32 `[N]`: the higher, the more an answer is trusted."""
        found: dict[TrustScore, Tensor] = {"confidence": trust_scores(self.answered, "confidence")}
        if trust.reject is not None:
            found[trust.reject.score] = trust.reject.compared(found["confidence"], self.scores)
        return found

    def decisions(self, trust: Trust) -> Decisions:
        answered = self.answered
        return Decisions.of(trust, answers_of(answered.logits, "index"), self.scores, answered.targets)


def rescored_unknown(trust: Trust, given: Mapping[str, Given], classes: Sequence[str]) -> dict[str, Any]:
    """As `unknown_scores` of a run, by the scores that the bundle gives; `classes` are those held out."""
    if UNKNOWN not in given or "test" not in given:
        return {}
    known, unknown = given["test"].compared(trust), given[UNKNOWN].compared(trust)
    found = {name: separation(known[name], unknown[name]) for name in known}
    return unknown_entry(classes, len(given[UNKNOWN].answered.index), found)


def rescored_trust(manifest: Manifest, given: Mapping[str, Given], protocol: Mapping[str, Any]) -> dict[str, Any]:
    """What scores.json has under `trust`: by split what comes of the bundle's own; under `exported` what came of it at
    export, and whether that was on the same items. Empty where a bundle has nothing to measure.

    protocol: how the scores are made
    """
    trust = manifest.trust
    if trust.temperature == 1 and not trust.outputs:
        return {}
    found = {name: outcome(trust, one.answered, one.decisions(trust)) for name, one in given.items() if name != UNKNOWN}
    if UNKNOWN in given:
        found[UNKNOWN] = outcome_of_unknown(given[UNKNOWN].decisions(trust), len(given[UNKNOWN].answered.index))
    same = manifest.protocol.get("split_hash") == protocol.get("split_hash")
    return {"trust": {**found, "exported": trust.measured, "same_items": same}}
