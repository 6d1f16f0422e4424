"""What a run's scores say of how far its answers can be trusted: calibration, and what it does with unknown classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, get_args

from toolkit.api.answers import percent
from toolkit.api.clips import Averaged
from toolkit.api.contracts import DataSpec, Scores
from toolkit.api.errors import counted, first_few
from toolkit.build.assemble import Assembly
from toolkit.runs.report import statistics
from toolkit.system.choices import TrustScore
from toolkit.training.evaluate import Answered, Autocast, Evaluation, answer
from toolkit.training.similarity import fit_similarity
from toolkit.training.trust import (
    KEPT_KNOWN,
    fit_temperature,
    log_loss,
    separation,
    similarity_weight,
    tempered,
    trust_scores,
)


def calibration(answers: Mapping[str, Evaluation], spec: DataSpec, average: Averaged) -> dict[str, Any]:
    """What scores.json has under `calibration`: the temperature that validation chooses, and by it the log loss and the
    calibration error of the test split before and after, with the curve after it. Empty where there are not both
    splits, an answer is not one class, or a logit is not finite."""
    if spec.targets != "index" or len(answers) < 2:
        return {}
    if not all(bool(one.logits.isfinite().all()) for one in answers.values()):
        return {}
    temperature = fit_temperature(answers["valid"], average)
    after = tempered(answers["test"], temperature, average)
    return {
        "calibration": {
            "temperature": temperature,
            "before": calibration_scores(answers["test"]),
            "after": calibration_scores(after),
            "curve": asdict(_curve(after)),
        }
    }


def calibration_scores(answered: Answered) -> dict[str, float]:
    """`log_loss` and `ece`, the expected calibration error, 0..1."""
    return {"log_loss": log_loss(answered), "ece": _curve(answered).expected_error}


def _curve(answered: Answered) -> statistics.Calibration:
    confidence, named = answered.logits.softmax(-1).max(-1)
    right = named == answered.targets
    return statistics.binned(list(zip(confidence.tolist(), right.tolist(), strict=True)))


def measure_similarity(assembly: Assembly) -> None:
    """Let the network measure how similar features are to those of its training items, all of which it is asked."""
    table = assembly.recipe.train
    batches = assembly.train.evaluation(table.eval_batch or table.batch_size)
    network, classes = assembly.network, len(assembly.spec.classes)
    network.similarity = fit_similarity(network, batches, classes=classes, ranks=assembly.ranks).to(assembly.device)


def unknown_scores(assembly: Assembly, answers: Mapping[str, Answered]) -> dict[str, Any]:
    """What scores.json has under `unknown`: how well each score distinguishes the test items from those of classes that
    the model has not learned. Empty where the recipe holds no class out, or no test items are among the `answers`."""
    if assembly.unknown is None or "test" not in answers:
        return {}
    unknown, known = answer_unknown(assembly, assembly.autocast), answers["test"]
    measured = assembly.network.similarity is not None
    scores = [name for name in get_args(TrustScore) if measured or name != "similarity"]
    weight = similarity_weight(answers.get("valid", known)) if measured else 0.0
    found = {
        name: separation(trust_scores(known, name, weight), trust_scores(unknown, name, weight)) for name in scores
    }
    return unknown_entry(assembly.recipe.data.unknown or (), len(unknown.index), found)


def unknown_entry(classes: Sequence[str], items: int, found: Mapping[TrustScore, Scores]) -> dict[str, Any]:
    """The entry `unknown` of scores.json: the classes held out, the number of their items, and what `separation` found
    by score."""
    return {"unknown": {"classes": list(classes), "items": items, **found}}


def unknown_lines(scores: Mapping[str, Any]) -> Iterator[str]:
    """What scores.json has under `unknown`, a line for each score."""
    found = scores.get("unknown")
    if not found:
        return
    for name in (score for score in get_args(TrustScore) if score in found):
        one = found[name]
        yield (
            f"unknown: {counted(found['items'], 'item')} of {first_few(found['classes'])}: by {name} AUROC "
            f"{one['auroc']:.3f}, {percent(one['declined'])} declined at {100 * KEPT_KNOWN:g} % kept known items"
        )


def answer_unknown(assembly: Assembly, autocast: Autocast) -> Answered:
    """The network's answers to the unknown items, of each view too."""
    loader, table = assembly.unknown, assembly.recipe.train
    if loader is None:
        raise AssertionError("the recipe holds no class out")
    batches = loader.evaluation(table.eval_batch or table.batch_size)
    return answer(
        assembly.network,
        assembly.objective,
        batches,
        autocast,
        average=loader.average,
        ranks=assembly.ranks,
        keep_views=True,
    )
