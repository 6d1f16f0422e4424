"""How far an answer can be trusted, where items have one class: probabilities that say how often answers are right, a
score below which an answer is declined, and sets of classes that hold the truth.

What is chosen here is chosen on the validation split, of the answers as they are given: averaged over views.
"""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from toolkit.api.clips import Averaged
from toolkit.api.contracts import Scores
from toolkit.system.choices import TrustScore
from toolkit.training.answers import averaged
from toolkit.training.evaluate import Answered

TEMPERATURES = (0.1, 10.0)
"""The lowest and the highest temperature."""
FITTED = 1 << 24
"""Logits that a temperature is fitted on, about: more change nothing but the time it takes."""
ROUNDING = 1e-4
"""What rounding may change of a value in a model that is exported in float32."""
KEPT_KNOWN = 0.95
"""Share of known items that a threshold keeps, where shares of declined unknown ones are compared."""


def fit_temperature(answered: Answered, average: Averaged) -> float:
    """The temperature by which the logits of each view are divided so that answers have the least log loss.

    Source: Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017.
    """
    from scipy.optimize import minimize_scalar

    fitted = _evenly(answered)

    def loss(log: float) -> float:
        return log_loss(tempered(fitted, math.exp(log), average))

    lowest, highest = map(math.log, TEMPERATURES)
    return math.exp(float(minimize_scalar(loss, bounds=(lowest, highest), method="bounded").x))


def tempered(answered: Answered, temperature: float, average: Averaged) -> Answered:
    """The answers where the logits of each view are divided by `temperature`."""
    views = _views(answered) / temperature
    logits = averaged(views.flatten(0, 1), "index", len(views), average)
    return Answered(answered.index, logits, answered.targets, views=views, similarities=answered.similarities)


def log_loss(answered: Answered) -> float:
    """The mean negative logarithm of the probability of the true class."""
    return float(cross_entropy(answered.logits, answered.targets))


def trust_scores(answered: Answered, score: TrustScore, weight: float = 0.0) -> Tensor:
    """float32 `[N]`, the higher the more an answer is trusted: `confidence`, the probability of the likeliest class;
    `energy`, the log of the sum of the exponentials of the logits, averaged over views; or `similarity`, the confidence
    and `weight` times what `Similarity` gives.

    Sources: Hendrycks and Gimpel, "A baseline for detecting misclassified and out-of-distribution examples in neural
    networks", ICLR 2017; Liu, Wang, Owens and Li, "Energy-based out-of-distribution detection", NeurIPS 2020, whose
    energy is the negative of ours.
    """
    if score == "energy":
        return _views(answered).logsumexp(-1).mean(1)
    confidence = answered.logits.softmax(-1).amax(-1)
    return confidence if score == "confidence" else confidence + weight * similarities(answered)


def similarities(answered: Answered) -> Tensor:
    """Those of the answers of a network that measures them."""
    if answered.similarities is None:
        raise AssertionError("the network measures no similarity")
    return answered.similarities


def similarity_weight(answered: Answered) -> float:
    """The weight by which the similarities of known items spread as far as their confidences: so each has its say, and
    no unknown item is needed to choose it. 0 if all similarities are equal.

    Source: the matched scales of Wang, Li, Feng and Zhang, "ViM: out-of-distribution with virtual-logit matching",
    CVPR 2022.
    """
    spread = float(similarities(answered).double().std(correction=0))
    return float(trust_scores(answered, "confidence").double().std(correction=0)) / spread if spread else 0.0


def threshold_of(values: Tensor, share: float) -> float | None:
    """The threshold below which at most the share of further values like these, `[N]`, is expected, and less than
    1 / (N + 1) fewer: of the scores of right answers that may be declined, or of the probabilities of true classes that
    sets may lack. None where N is too small to say.

    Fewer are below where values repeat. Only chance could divide them, and a bundle always answers an input alike.

    Sources: Vovk, Gammerman and Shafer, "Algorithmic learning in a random world", 2005; for sets Sadinle, Lei and
    Wasserman, "Least ambiguous set-valued classifiers with bounded error levels", JASA 2019.
    """
    rank = rank_of(len(values), share)
    return None if rank < 1 else _below(values.sort().values, rank - 1)


def rank_of(count: int, share: float) -> int:
    """Which of so many values in ascending order is the lowest that `threshold_of` keeps, from 1; 0 if they are too
    few."""
    return math.floor(_exact(share) * (count + 1))


def fewest_values(share: float) -> int:
    """How many values `threshold_of` needs."""
    return math.ceil(1 / _exact(share)) - 1


def _exact(share: float) -> Fraction:
    """As it is written: 0.29 of 100 are 29, but fewer in floating-point numbers."""
    return Fraction(str(share))


def _below(ascending: Tensor, place: int) -> float:
    """A threshold that keeps the value at this place though an exported model rounds it, and as few others as that
    allows."""
    here = float(ascending[place])
    gap = here - float(ascending[place - 1]) if place else math.inf
    return float(torch.tensor(here - min(gap / 2, ROUNDING), dtype=torch.float32))


def separation(known: Tensor, unknown: Tensor) -> Scores:
    """How well scores distinguish known items `[N]` from unknown ones `[M]`: `auroc`, the chance that a known item has
    the higher score, and `declined`, the share of unknown items below the threshold that keeps `KEPT_KNOWN`."""
    from scipy.stats import mannwhitneyu

    pairs = len(known) * len(unknown)
    threshold = known.double().quantile(1 - KEPT_KNOWN, interpolation="lower")
    return {
        "auroc": float(mannwhitneyu(known.numpy(), unknown.numpy()).statistic) / pairs,
        "declined": float((unknown < threshold).double().mean()),
    }


def _evenly(answered: Answered) -> Answered:
    """As many evenly spaced items as `FITTED` logits are of."""
    views = _views(answered)
    step = max(views.numel() // FITTED, 1)
    return Answered(answered.index[::step], answered.logits[::step], answered.targets[::step], views=views[::step])


def _views(answered: Answered) -> Tensor:
    """float32 `[N, V, C]`; one view where none were kept."""
    return answered.logits[:, None] if answered.views is None else answered.views
