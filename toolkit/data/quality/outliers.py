"""Which of N numbers are far from the others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FAR = 5.0
"""Modified z-score above which a number is an outlier. Iglewicz and Hoaglin (1993) propose 3.5, for tests of one
number in small samples; of 100,000 normally distributed numbers that would be 47."""
RARE = 0.01
"""Where more than half of the numbers are equal: the share of numbers that may differ as outliers."""


def outliers(values: NDArray[np.float64], least: float = 0.0) -> NDArray[np.float64]:
    """float64 `[N]`: of each number that is an outlier its modified z-score, negative below the median; 0 of all others
    and of NaN. Where more than half of the numbers are equal, the others are outliers (infinite) if they are rare.

    least: distance from the median up to which no number is an outlier, however close the others are

    The modified z-score is 0.6745 (x - median) / MAD, with MAD the median of the absolute distances from the median
    (Iglewicz and Hoaglin, "How to Detect and Handle Outliers", 1993).
    """
    scores = np.zeros(len(values))
    known = np.isfinite(values)
    if not known.any():
        return scores
    distances = values[known] - np.median(values[known])
    spread = np.median(np.abs(distances))
    if spread > 0:
        found = 0.6745 * distances / spread
        scores[known] = np.where((np.abs(found) > FAR) & (np.abs(distances) > least), found, 0)
    elif 0 < np.count_nonzero(distances) <= RARE * len(distances):
        scores[known] = np.where(distances != 0, np.copysign(np.inf, distances), 0)
    return scores
