"""Events in a video from its answers over time: which class, from when to when, and how sure.

Answers are smoothed by a centred mean. An event of a class begins and ends where its smoothed probability passes `low`.
It counts if it reaches `high` in between (hysteresis, as Canny, PAMI 1986, links edges) and lasts `shortest` seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from toolkit.system.segmentation import Segmentation

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Segment(NamedTuple):
    """One event."""

    label: str
    start: float
    """Seconds from the first frame."""
    end: float
    score: float
    """The mean of its smoothed probabilities, 0 to 1."""


@dataclass
class _Open:
    """An event that has not ended."""

    start: float
    total: float = 0.0
    count: int = 0
    reached: bool = False


def segments_of(
    answers: Iterable[tuple[float, NDArray[np.float32]]],
    rule: Segmentation,
    classes: Sequence[str],
    every: float,
    thresholds: Sequence[float] | None,
    length: float,
) -> list[Segment]:
    """All events of a video of so many seconds, in their order, of its answers `[C]` and the middles of their clips."""
    segments = Segments(rule, classes, every, thresholds)
    found = [one for middle, row in answers for one in segments.add(middle, row)]
    return sorted([*found, *segments.finish(length)], key=lambda one: (one.start, one.end))


class Segments:
    """Takes the answers to one video in their order and gives its events as they end. What it holds grows with the
    seconds of smoothing alone."""

    def __init__(
        self, rule: Segmentation, classes: Sequence[str], every: float, thresholds: Sequence[float] | None = None
    ) -> None:
        """every: seconds between two answers. thresholds: of each class, in place of the rule's `high`."""
        self._rule, self._classes, self._every = rule, classes, every
        self._high = np.array(thresholds if thresholds is not None else [rule.high] * len(classes))
        self._low = self._high * (rule.low / rule.high)
        self._half = max(round(rule.smooth / every), 1) // 2
        self._near: deque[tuple[float, NDArray[np.float32]]] = deque()
        self._place = 0
        """Of `_near`, the answer whose turn is next."""
        self._open: dict[int, _Open] = {}
        self._border = 0.0
        """Where the answer whose turn is next begins to count."""

    def add(self, middle: float, probabilities: NDArray[np.float32]) -> Iterator[Segment]:
        """Take the answer `[C]` whose clip has its middle at this second; the events that have ended."""
        self._near.append((middle, probabilities))
        while len(self._near) > self._place + self._half:
            yield from self._step()

    def finish(self, length: float) -> Iterator[Segment]:
        """The remaining events of a video of so many seconds."""
        while len(self._near) > self._place:
            yield from self._step()
        yield from self._ended([*self._open], length)

    def _step(self) -> Iterator[Segment]:
        first = max(self._place - self._half, 0)
        around = [self._near[place][1] for place in range(first, min(self._place + self._half + 1, len(self._near)))]
        smooth = np.mean(around, 0)
        begin, self._border = self._border, self._near[self._place][0] + self._every / 2
        yield from self._ended([number for number in self._open if smooth[number] < self._low[number]], begin)
        for number in np.flatnonzero(smooth >= self._low):
            found = self._open.setdefault(int(number), _Open(begin))
            found.total, found.count = found.total + float(smooth[number]), found.count + 1
            found.reached = found.reached or bool(smooth[number] >= self._high[number])
        if self._place == self._half:
            self._near.popleft()
        else:
            self._place += 1

    def _ended(self, numbers: Sequence[int], end: float) -> Iterator[Segment]:
        for number in sorted(numbers):
            found = self._open.pop(number)
            if found.reached and end - found.start >= self._rule.shortest:
                yield Segment(self._classes[number], found.start, end, found.total / found.count)
