"""Whether a difference is more than chance: intervals and tests, of single items and of repeated runs.

Everything is drawn from `SEED`, so a comparison repeated gives the same numbers. Items of one source (a video, a
patient, a scene) are resampled together, since they are not independent. Student's distribution is of `scipy.special`,
which loads in half the time of `scipy.stats`: every run needs it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers: TypeAlias = NDArray[np.float64]
    Values: TypeAlias = Sequence[float] | Numbers
    Names: TypeAlias = Sequence[str] | NDArray[np.int64]
    """Of what each item comes from."""

SIGNIFICANT = 0.05
"""The p-value below which a difference is not chance."""
CONFIDENCE = 1 - SIGNIFICANT
"""Of every interval."""
RESAMPLES = 2000
"""Draws of a bootstrap."""
PERMUTATIONS = 9999
"""Draws of a permutation test where there are too many to try all."""
SEED = 0
_Z = 1.959964
"""Standard errors on each side of a mean that hold `CONFIDENCE` of a normal distribution."""
_BATCH = 100


class Interval(NamedTuple):
    """Where a number lies, at 95 % confidence; NaN where that cannot be said."""

    low: float
    high: float


UNKNOWN = Interval(math.nan, math.nan)


def mcnemar(worse: int, better: int) -> float:
    """How probable it is that the two numbers of items are as far apart, if each such item were as likely to become
    better as worse: the exact McNemar test, two-sided.

    Source: McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
    Psychometrika 12, 1947; exact by the binomial distribution.
    """
    from scipy import stats

    return min(2 * float(stats.binom.cdf(min(worse, better), worse + better, 0.5)), 1.0)


def sign_flip(differences: Sequence[float], sources: Sequence[str]) -> float:
    """The two-sided p-value of a mean difference of 0, if each source were as likely to differ the other way.

    `differences` and `sources` hold N items' values and what each comes from. Source: the paired permutation test of
    Fisher, "The design of experiments", 1935, of the sums over sources.
    """
    import numpy as np
    from scipy import stats

    totals, _ = _by_source(differences, sources)
    totals = totals[totals != 0]  # either sign of it is the same
    if len(totals) < 2:
        return 1.0

    def mean(values: Numbers, axis: int = -1) -> Any:
        return values.mean(axis=axis)

    found = stats.permutation_test(
        (totals,), mean, permutation_type="samples", n_resamples=PERMUTATIONS, batch=_BATCH, vectorized=True,
        rng=np.random.default_rng(SEED),
    )  # fmt: skip
    return float(found.pvalue)


def bootstrap(values: Sequence[float], sources: Sequence[str]) -> Interval:
    """The interval of the mean of N items, by the percentiles of its bootstrap over sources; unknown of one source.

    Source: Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13.
    """
    import numpy as np

    totals, counts = _by_source(values, sources)
    if len(totals) < 2:
        return UNKNOWN
    draw, means = np.random.default_rng(SEED), []
    for _ in range(RESAMPLES // _BATCH):
        chosen = draw.integers(0, len(totals), (_BATCH, len(totals)))
        means.append(totals[chosen].sum(1) / counts[chosen].sum(1))
    low, high = np.quantile(np.concatenate(means), [SIGNIFICANT / 2, 1 - SIGNIFICANT / 2])
    return Interval(float(low), float(high))


def wilson_interval(share: float, count: float) -> Interval:
    """The score interval of a proportion (Wilson, 1927); `count` may be an effective number of items."""
    if count == 0:
        return Interval(0.0, 1.0)
    scale = 1 + _Z * _Z / count
    centre = (share + _Z * _Z / (2 * count)) / scale
    half = _Z / scale * math.sqrt(share * (1 - share) / count + _Z * _Z / (4 * count * count))
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def mean_interval(values: Values, sources: Names, *, shares: bool) -> Interval:
    """The interval of the mean of N items, where those of one source are not independent; unknown of one source.

    `shares` says that each value is 0 or 1: then Wilson's interval of as many items as are worth the sources, which is
    also right where all values are equal. Else Student's interval, of the sums over sources.

    Source: Korn and Graubard, "Confidence intervals for proportions with small expected number of positive counts
    estimated from survey data", Survey Methodology 24, 1998, for the number of items.
    """
    import numpy as np
    from scipy import special

    numbers = np.asarray(values, np.float64)
    mean, count = float(numbers.mean()), len(numbers)
    totals, _ = _by_source(numbers - mean, sources)
    if len(totals) < 2:
        return UNKNOWN
    if shares and len(totals) == count:
        return wilson_interval(mean, count)
    variance = len(totals) / (len(totals) - 1) * float((totals**2).sum()) / count**2
    quantile = float(special.stdtrit(len(totals) - 1, 1 - SIGNIFICANT / 2))
    if not shares:
        half = quantile * math.sqrt(variance)
        return Interval(mean - half, mean + half)
    spread = mean * (1 - mean)
    worth = len(totals) if spread == 0 else min(spread / variance, count) if variance else count
    return wilson_interval(mean, worth * (_Z / quantile) ** 2)


def below_rest(values: Values, inside: NDArray[np.bool_], sources: Names, *, shares: bool) -> float:
    """The one-sided p-value of the mean of the items inside a part not being below that of the others.

    `values`, `inside` and `sources` are of all N items; `shares` says that each value is 0 or 1. Items that stand alone
    then have Fisher's exact test. Else it is the score test of a regression on `inside` with a variance that is robust
    to sources; with few sources inside it finds little.

    Source: Fisher, "The logic of inductive inference", 1935; Guo, Pan, Connett, Hannan and French, "Small-sample
    performance of the robust score test and its modifications", Statistics in Medicine 24, 2005.
    """
    import numpy as np
    from scipy import special

    numbers, chosen = np.asarray(values, np.float64), np.asarray(inside, bool)
    count = int(chosen.sum())
    weights = np.where(chosen, 1 / count, -1 / (len(chosen) - count))
    totals, _ = _by_source((numbers - numbers.mean()) * weights, sources)
    if shares and len(totals) == len(numbers):
        from scipy import stats

        return float(stats.hypergeom.cdf(int(numbers[chosen].sum()), len(numbers), int(numbers.sum()), count))
    spread = math.sqrt(float((totals**2).sum()))
    if len(totals) < 2 or not spread > 0:
        return 1.0
    return float(special.stdtr(len(totals) - 1, float(totals.sum()) / spread))


class Jackknife(NamedTuple):
    """A score of all items, judged by its values without each of G blocks of them."""

    interval: Interval
    p_value: float
    """That the score is 0, two-sided: of use where it is a difference. NaN where the interval is unknown."""


def jackknife(value: float, without: Sequence[float]) -> Jackknife:
    """`without` are the score's values without each of G blocks of sources, of about the same size.

    Source: the delete-a-group jackknife with Student's t of G - 1 degrees of freedom; Kott, "The delete-a-group
    jackknife", Journal of Official Statistics 17, 2001.
    """
    from scipy import special

    count = len(without)
    if count < 2 or not all(map(math.isfinite, (value, *without))):
        return Jackknife(UNKNOWN, math.nan)
    mean = math.fsum(without) / count
    error = math.sqrt((count - 1) / count * math.fsum((one - mean) ** 2 for one in without))
    half = error * float(special.stdtrit(count - 1, 1 - SIGNIFICANT / 2))
    p_value = 2 * float(special.stdtr(count - 1, -abs(value) / error)) if error else float(value == 0)
    return Jackknife(Interval(value - half, value + half), p_value)


def over_runs(values: Sequence[float]) -> Interval:
    """Student's interval of the mean of repeated runs; unknown of one run."""
    from scipy import special

    if len(values) < 2 or not all(map(math.isfinite, values)):
        return UNKNOWN
    mean, error = math.fsum(values) / len(values), statistics.stdev(values) / math.sqrt(len(values))
    half = error * float(special.stdtrit(len(values) - 1, 1 - SIGNIFICANT / 2))
    return Interval(mean - half, mean + half)


class Welch(NamedTuple):
    """Two sets of repeated runs compared."""

    p_value: float
    interval: Interval
    """Of the difference of their means, second less first."""


def welch(first: Sequence[float], second: Sequence[float]) -> Welch:
    """Welch's t-test of two sets of at least two runs each, whose spreads may differ.

    Source: Welch, "The generalization of Student's problem when several different population variances are involved",
    Biometrika 34, 1947.
    """
    from scipy import stats

    if len({*first, *second}) == 1:
        return Welch(1.0, Interval(0.0, 0.0))
    if len({*first}) == len({*second}) == 1:  # no spread at all: scipy warns and divides by 0
        gap = second[0] - first[0]
        return Welch(0.0, Interval(gap, gap))
    found = stats.ttest_ind(second, first, equal_var=False)
    interval = found.confidence_interval(CONFIDENCE)
    return Welch(float(found.pvalue), Interval(float(interval.low), float(interval.high)))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several tests, corrected so that one of them is below `SIGNIFICANT` by chance in 5 % of cases.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.
    """
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return corrected


def _by_source(values: Values, sources: Names) -> tuple[Numbers, Numbers]:
    """The sum of each source's values, and how many there are: float64 `[S]` both."""
    import numpy as np

    _, places = np.unique(np.asarray(sources), return_inverse=True)
    totals: Numbers = np.bincount(places, np.asarray(values, np.float64)).astype(np.float64)
    return totals, np.bincount(places).astype(np.float64)
