"""Answers to what happens now, smoothed over time, with how late they come."""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Any

from toolkit.api.errors import EXIT_DATA, EXIT_DONE, DataError, counted
from toolkit.serving.predict.inputs import printable
from toolkit.serving.predict.job import PredictionJob
from toolkit.serving.predict.summary import Summary
from toolkit.system.signals import Signalled, Signals

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from toolkit.serving.predict.live import Clock, MakePixels, Ring
    from toolkit.serving.predict.rows import Rows
    from toolkit.serving.predict.windows import Windows

REMEMBERED = 10_000
"""Delays that the median is taken of: the newest ones."""


class Smoothing:
    """An exponential mean of answers, in which one counts the less the longer it is ago: after `seconds` 37 %. 0 leaves
    answers as they are."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._mean: NDArray[np.float32] | None = None
        self._end = 0.0

    def add(self, probabilities: NDArray[np.float32], end: float) -> NDArray[np.float32]:
        """The mean `[C]` after the answer `[C]` to a window that ends at `end`."""
        if self._mean is None or not self._seconds:
            self._mean = probabilities
        else:
            kept = math.exp(-max(end - self._end, 0) / self._seconds)
            self._mean = kept * self._mean + (1 - kept) * probabilities
        self._end = end
        return self._mean


class Delays:
    """Seconds from when a window's last frame was shown to its answer, and how many windows were dropped."""

    def __init__(self) -> None:
        self.count, self.largest, self.dropped = 0, 0.0, 0
        self._newest: deque[float] = deque(maxlen=REMEMBERED)

    def add(self, seconds: float) -> None:
        self.count += 1
        self.largest = max(self.largest, seconds)
        self._newest.append(seconds)

    def __str__(self) -> str:
        return f"latency {median(self._newest):.3f} s in the median, {self.largest:.3f} s at most"


def follow(job: PredictionJob, clock: Clock) -> int:
    """Answer a camera, a stream or a played file until it ends or a signal comes; the exit code. Raises DataError when
    it is lost before anything was answered."""
    from toolkit.serving.predict.live import followed

    (source,) = job.sources
    print(f"{printable(source.name)}: Ctrl-C ends it", file=sys.stderr)
    delays, summary, code = Delays(), Summary(job.bundle), EXIT_DONE
    with job.rows() as rows:
        try:
            with Signals(), followed(source, _rule(job), _keep(job), clock, job.damages) as ring:
                _answer_into(rows, ring, job, (delays, summary), clock)
        except Signalled:
            pass  # how a camera ends
        except DataError as error:
            if not delays.count:
                raise
            print(error.message, file=sys.stderr)
            code = EXIT_DATA
    dropped = f", {delays.dropped:,} dropped" if delays.dropped else ""
    late = f", {delays}" if delays.count else ""
    for line in (*(summary.lines() if delays.count else ()), *job.damages.lines()):
        print(line, file=sys.stderr)
    print(f"{printable(source.name)}: {counted(delays.count, 'answer')}{dropped}{late}", file=sys.stderr)
    return code


def _rule(job: PredictionJob) -> Windows:
    """The windows that are asked about: as often as asked for, else clips that overlap by half, or every frame."""
    from toolkit.serving.predict.windows import windows

    rule = windows(job.bundle.manifest.sampling, job.every or 0.0)
    return replace(rule, every=rule.span / 2) if job.every is None and job.bundle.manifest.clip else rule


def _keep(job: PredictionJob) -> Callable[[MakePixels], Any]:
    """What is kept of a frame: its squares, since most frames of a clip are seen by several windows; a model of images
    sees few frames, of which those alone are converted."""
    if job.bundle.manifest.clip is None:
        return lambda pixels: pixels
    return lambda pixels: job.bundle.squares(pixels(), job.crops)


def _answer_into(rows: Rows, ring: Ring[Any], job: PredictionJob, counts: tuple[Delays, Summary], clock: Clock) -> None:
    from toolkit.serving.bundle.views import inputs

    clips = job.bundle.manifest.clip is not None
    smoothing = Smoothing(_rule(job).span if clips else 0.0)
    (source,), (delays, summary) = job.sources, counts
    while (window := ring.take()) is not None:
        views = inputs(window.frames, clips=True) if clips else [job.bundle.square(window.frames[0]())]
        probabilities = job.average(job.predict(views))
        delays.add(clock.now() - window.shown)
        delays.dropped = ring.dropped
        smooth = smoothing.add(probabilities, window.moment[1])
        summary.add(smooth, first=not summary.answers)
        job.add(rows, replace(source, moment=window.moment), smooth)
