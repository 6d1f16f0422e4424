"""How far the answers of a bundle go: chosen on the validation split, and measured on the test split and on the items
of classes that the model has not learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from toolkit.api.answers import percent
from toolkit.api.clips import Averaged
from toolkit.api.errors import DataError
from toolkit.build.agreement import distrusted
from toolkit.build.assemble import Assembly
from toolkit.data.loader import Loader
from toolkit.export.judging import Paired
from toolkit.recipe.read import invalid
from toolkit.recipe.tables import ConformalTable, ExportTable, RejectTable
from toolkit.runs.scores import score_text
from toolkit.runs.trust import answer_unknown, calibration_scores
from toolkit.serving.bundle import Conformal, Rejection, Trust
from toolkit.training.answers import answers_of
from toolkit.training.evaluate import Answered, answer
from toolkit.training.trust import (
    fewest_values,
    fit_temperature,
    rank_of,
    similarities,
    similarity_weight,
    tempered,
    threshold_of,
    trust_scores,
)

IMPROBABLE = 0.001
"""Probability of so many sets without the truth, below which the test items are unlike those of validation."""


def asks_for_trust(table: ExportTable) -> bool:
    """Whether an export says how far answers go."""
    return table.calibrate or table.reject is not None or table.conformal is not None


def chosen_trust(assembly: Assembly, valid: Answered | None) -> Trust:
    """What the recipe's `[export]` asks for, by the network's own answers to the validation split, of each view too;
    None where there is no such split. Nothing is measured yet.

    Raises RecipeError where answers are not of one class, DataError where there are too few validation items."""
    table, average = assembly.recipe.export, assembly.valid.average
    if problems := list(distrusted(assembly.recipe, assembly.spec)):
        raise invalid(assembly.plan.source, problems)
    if valid is None:
        raise DataError(
            "export.calibrate, export.reject and export.conformal require a validation split, but the data has none",
            next_step="use data that has one: --set data.KEY=VALUE; list the keys: "
            f"python -m toolkit plugins show {assembly.recipe.data.name}",
        )
    trust = Trust(temperature=fit_temperature(valid, average) if table.calibrate else 1.0)
    after = calibrated(valid, trust, average)
    if table.reject is not None:
        weight = similarity_weight(after) if table.reject.score == "similarity" else 0.0
        scores = trust_scores(valid if table.reject.score == "energy" else after, table.reject.score, weight)
        right = after.logits.argmax(1) == after.targets
        trust = replace(trust, reject=replace(_rejection(table.reject, scores[right]), weight=weight))
    if table.conformal is not None:
        trust = replace(trust, conformal=_conformal(table.conformal, after))
    return trust


def calibrated(answered: Answered, trust: Trust, average: Averaged) -> Answered:
    """The network's own answers as the exported graph gives them."""
    return answered if trust.temperature == 1 else tempered(answered, trust.temperature, average)


def _rejection(table: RejectTable, scores: Tensor) -> Rejection:
    """`scores` are those of the right answers."""
    threshold = threshold_of(scores, table.rate)
    if threshold is None:
        raise _too_few("export.reject.rate", table.rate, "right answers", len(scores))
    return Rejection(table.score, threshold, table.rate)


def _conformal(table: ConformalTable, answered: Answered) -> Conformal:
    true = answered.logits.softmax(-1).gather(1, answered.targets[:, None]).flatten()
    threshold = threshold_of(true, table.error)
    if threshold is None:
        raise _too_few("export.conformal.error", table.error, "items", len(true))
    return Conformal(threshold, table.error)


def _too_few(key: str, share: float, what: str, found: int) -> DataError:
    needed = fewest_values(share)
    return DataError(
        f"{key} = {share:g} requires at least {needed} {what} on the validation split, found {found}",
        next_step=f"ask for a larger share, such as --set {key}={1 / (found + 1) + 5e-4:.3f}" if found else None,
    )


class Decisions(NamedTuple):
    """What is decided of the answers to N items; bool `[N]`, None where it is not decided."""

    declined: Tensor | None
    covered: Tensor | None
    """Whether the set of an answer holds the truth."""

    @classmethod
    def of(cls, trust: Trust, probabilities: Tensor, scores: Tensor | None, targets: Tensor) -> Decisions:
        """By the probabilities `[N, C]` and the scores `[N]` of `Trust.scored`, where these decide."""
        declined = covered = None
        if trust.reject is not None:
            declined = trust.reject.compared(probabilities.amax(-1), scores) < trust.reject.threshold
        if trust.conformal is not None:
            # an unknown item has no class, and so is never covered
            true = probabilities.gather(1, targets.clamp(min=0)[:, None]).flatten()
            covered = (targets >= 0) & (true >= trust.conformal.threshold)
        return cls(declined, covered)

    def shares(self) -> dict[str, float]:
        """For bundle.json: `declined`, of all answers, and `coverage`, of the sets."""
        return _share("declined", self.declined) | _share("coverage", self.covered)


NOTHING_DECIDED = Decisions(None, None)


def decided(trust: Trust, answered: Answered, average: Averaged) -> Decisions:
    """Of the network's own answers."""
    after = calibrated(answered, trust, average)
    return Decisions.of(trust, after.logits.softmax(-1), _given(trust, answered), answered.targets)


def _given(trust: Trust, answered: Answered) -> Tensor | None:
    """What the exported graph gives under the name of `Trust.scored`."""
    if trust.scored is None:
        return None
    return trust_scores(answered, "energy") if trust.scored == "energy" else similarities(answered)


def measured(trust: Trust, assembly: Assembly, valid: Answered) -> Trust:
    """`trust` with what comes of it. `valid` are the network's own answers to the validation split."""
    average = assembly.valid.average
    found: dict[str, Mapping[str, float]] = {"valid": _measured(trust, valid, average)}
    if len(assembly.test.store):
        found["test"] = _measured(trust, exact_answers(assembly, assembly.test), average)
    if assembly.unknown is not None:
        unknown = answer_unknown(assembly, torch.inference_mode)
        found["unknown"] = outcome_of_unknown(decided(trust, unknown, average), len(unknown.index))
    return replace(trust, measured=found)


def exact_answers(assembly: Assembly, loader: Loader) -> Answered:
    """The network's answers to a split in float32, of each view too."""
    table = assembly.recipe.train
    batches, exact = loader.evaluation(table.eval_batch or table.batch_size), torch.inference_mode  # no autocast
    return answer(assembly.network, assembly.objective, batches, exact, average=loader.average, keep_views=True)


def _measured(trust: Trust, answered: Answered, average: Averaged) -> dict[str, float]:
    return outcome(trust, calibrated(answered, trust, average), decided(trust, answered, average), before=answered)


def outcome(
    trust: Trust, answered: Answered, decisions: Decisions, *, before: Answered | None = None
) -> dict[str, float]:
    """What comes of `trust` on a split, for bundle.json: `answered` are the answers that a bundle gives, and `before`
    those without its temperature, where they are known."""
    right = answered.logits.argmax(1) == answered.targets
    found: dict[str, float] = {"items": len(right), "accuracy": float(right.double().mean())}
    if trust.temperature != 1:
        found |= {} if before is None else {f"{name}_before": one for name, one in calibration_scores(before).items()}
        found |= calibration_scores(answered)
    if decisions.declined is not None:
        kept = ~decisions.declined
        found |= _share("declined", decisions.declined) | _share("declined_right", decisions.declined[right])
        found |= _share("accuracy_kept", right[kept])
    if trust.conformal is not None and decisions.covered is not None:
        sizes = (answers_of(answered.logits, "index") >= trust.conformal.threshold).sum(1)
        found |= _share("coverage", decisions.covered)
        found |= {"set_size": float(sizes.double().mean()), "empty_sets": float((sizes == 0).double().mean())}
    return found


def outcome_of_unknown(decisions: Decisions, items: int) -> dict[str, float]:
    """As `outcome`, of items of classes that the model has not learned."""
    return {"items": items, **_share("declined", decisions.declined)}


def _share(name: str, found: Tensor | None) -> dict[str, float]:
    """The share of what is true; nothing of no items."""
    return {} if found is None or not len(found) else {name: float(found.double().mean())}


def lines(trust: Trust) -> Iterator[str]:
    """What was chosen and measured, on the test split where there is one, a line each."""
    split = "test" if "test" in trust.measured else "valid"
    found = trust.measured.get(split, {})
    if trust.temperature != 1:
        changes = ", ".join(
            f"{words} {score_text(name, found[f'{name}_before'])} becomes {score_text(name, found[name])}"
            for name, words in (("log_loss", "log loss"), ("ece", "expected calibration error"))
        )
        yield f"calibration: temperature {trust.temperature:.3g}; {split} {changes}"
    if trust.reject is not None:
        yield f"reject: {_rejected(trust.reject, split, found, trust.measured.get('unknown', {}))}"
    if trust.conformal is not None:
        yield (
            f"conformal: the sets hold the truth of {percent(found['coverage'])} of the {split} items (asked for "
            f"{percent(1 - trust.conformal.error)}{_by_chance(trust)}), with {found['set_size']:.2f} classes on average"
        )


def _by_chance(trust: Trust) -> str:
    """Between which shares the sets hold the truth of 19 in 20 test splits like this one."""
    lacking = _lacking(trust)
    if lacking is None:
        return ""
    items = trust.measured["test"]["items"]
    least, most = (1 - float(one) / items for one in lacking.ppf([0.975, 0.025]))
    return f"; chance alone gives {100 * least:.1f} to {percent(most)}"


def _rejected(reject: Rejection, split: str, found: Mapping[str, float], unknown: Mapping[str, float]) -> str:
    text = f"declines {percent(found['declined'])} of the {split} items"
    if "declined_right" in found:
        asked = f"at most {percent(reject.rate)} was asked for"
        text += f", {percent(found['declined_right'])} of those answered right ({asked})"
    if "accuracy_kept" in found:
        text += f"; accuracy {percent(found['accuracy'])} becomes {percent(found['accuracy_kept'])} on the rest"
    if "declined" in unknown:
        text += f"; declines {percent(unknown['declined'])} of {unknown['items']:,.0f} unknown items"
    return text


def warnings(trust: Trust) -> Iterator[str]:
    """What a user must know before relying on it."""
    lacking = _lacking(trust)
    if lacking is None:
        return
    found = trust.measured["test"]
    items = int(found["items"])
    missed = round(items * (1 - found["coverage"]))
    chance = float(lacking.sf(missed - 1))
    if chance < IMPROBABLE:
        yield (
            f"the sets lack the truth of {missed:,} of {items:,} test items, which is more than chance: the test items "
            "are unlike those of validation, so the sets promise too much for items like them"
        )


def _lacking(trust: Trust) -> Any:
    """How the number of sets that lack the truth is distributed over test splits of this size, where their items are
    like those of validation: a frozen distribution of scipy. None where no such split was measured.

    Source: Vovk, "Conditional validity of inductive conformal predictors", ACML 2012.
    """
    from scipy.stats import betabinom

    found, valid = trust.measured.get("test", {}), trust.measured.get("valid", {})
    if trust.conformal is None or "coverage" not in found:
        return None
    known = int(valid["items"])
    below = rank_of(known, trust.conformal.error)
    return betabinom(n=int(found["items"]), a=below, b=known + 1 - below)


@dataclass(frozen=True)
class Worsened:
    """Items of which the exported model decides worse, and those of which it decides better."""

    what: str
    paired: Paired
    items: int

    @property
    def points(self) -> float:
        return 100 * (self.paired.worse - self.paired.better) / self.items


def worsened(trained: Decisions, exported: Decisions, right: Tensor) -> Iterator[Worsened]:
    """Where decisions differ: right answers that one of the models declines, and sets that hold the truth of one.
    `right` is bool `[N]`: whether the trained model is."""
    if trained.declined is not None and exported.declined is not None and right.any():
        before, after = trained.declined[right], exported.declined[right]
        what = "right answers that are declined"
        yield Worsened(what, _paired(before, after), len(before))
    if trained.covered is not None and exported.covered is not None:
        before, after = ~trained.covered, ~exported.covered
        yield Worsened("sets that lack the truth", _paired(before, after), len(before))


def _paired(before: Tensor, after: Tensor) -> Paired:
    """Of what is true where it is worse."""
    return Paired(int((after & ~before).sum()), int((before & ~after).sum()))
