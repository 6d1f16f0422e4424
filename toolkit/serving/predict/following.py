"""Answers to what happens now, smoothed over time, with how late they come."""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

from toolkit.api.errors import EXIT_DATA, EXIT_DONE, DataError, ToolkitError, counted
from toolkit.serving.predict.job import PredictionJob
from toolkit.serving.predict.reconnecting import Reconnecting
from toolkit.serving.predict.summary import Summary
from toolkit.system.notices import show
from toolkit.system.signals import Signalled, Signals

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from toolkit.serving.predict.clock import Clock
    from toolkit.serving.predict.damages import Damages
    from toolkit.serving.predict.inputs import Source
    from toolkit.serving.predict.live import MakePixels, Ring
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
        self._end, self._part = 0.0, 0

    def add(self, probabilities: NDArray[np.float32], end: float, part: int = 0) -> NDArray[np.float32]:
        """The mean `[C]` after the answer `[C]` to a window that ends at `end`. Each part of a source has its own."""
        if self._mean is None or not self._seconds or part != self._part:
            self._mean = probabilities
        else:
            kept = math.exp(-max(end - self._end, 0) / self._seconds)
            self._mean = kept * self._mean + (1 - kept) * probabilities
        self._end, self._part = end, part
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
    """Answer a camera, a stream or a played file until it ends or a signal comes; the exit code. What is raised where
    it is lost comes after the summary of what was answered."""
    from toolkit.serving.predict.live import followed

    (source,) = job.sources
    name = source.name
    _say(f"{name}: Ctrl-C ends it")
    course = _Course(Summary(job.bundle), Delays(), Reconnecting(job.attempts, _say), job.damages)
    with Signals():
        try:
            given = source, usual_windows(job), keeping(job), clock, course.reconnecting, job.damages
            with job.rows() as rows, followed(*given) as ring:
                _answer_into(rows, ring, job, course, clock)
        except Signalled:
            pass  # how a camera ends
        except ToolkitError as error:
            if course.delays.count:
                course.report(name)
            if isinstance(error, DataError) and source.kind == "video" and not source.remote:
                # What the reader proposes is for datasets: to skip the file, by a key of a recipe.
                raise DataError(error.message, next_step="give another video file") from error
            raise
        course.report(name)
        if job.output is not None:
            _say(f"{job.output}: {counted(course.delays.count, 'new row')}")
    return EXIT_DATA if course.flawed else EXIT_DONE


@dataclass
class _Course:
    """What became of it."""

    summary: Summary
    delays: Delays
    reconnecting: Reconnecting
    damages: Damages
    flawed: int = 0
    """Answers without meaning."""

    def refuse(self, shown: Source, error: DataError) -> None:
        """Count an answer without meaning; the first one is reported, since others will follow."""
        if not self.flawed:
            _say(f"{shown.title}: {error.message}")
        self.flawed += 1

    def report(self, name: str) -> None:
        for line in (*(self.summary.lines() if self.delays.count else ()), *self.damages.lines()):
            _say(line)
        dropped = f", {self.delays.dropped:,} dropped" if self.delays.dropped else ""
        flawed = f", {self.flawed:,} without meaning" if self.flawed else ""
        lost = self.reconnecting
        gaps = f", lost {counted(lost.losses, 'time')}, {lost.seconds:.0f} s without a picture" if lost.losses else ""
        late = f", {self.delays}" if self.delays.count else ""
        _say(f"{name}: {counted(self.delays.count, 'answer')}{dropped}{flawed}{gaps}{late}")


def _say(text: str) -> None:
    show(text, file=sys.stderr)


def usual_windows(job: PredictionJob) -> Windows:
    """The windows that are asked about: as often as asked for, else clips that overlap by half, or every frame."""
    from toolkit.serving.predict.windows import windows

    rule = windows(job.bundle.manifest.sampling, job.every or 0.0)
    return replace(rule, every=rule.span / 2) if job.every is None and job.bundle.manifest.clip else rule


def keeping(job: PredictionJob) -> Callable[[MakePixels], Any]:
    """What is kept of a frame: its squares, since most frames of a clip are seen by several windows; a model of images
    sees few frames, of which those alone are converted."""
    if job.bundle.manifest.clip is None:
        return lambda pixels: pixels
    return lambda pixels: job.bundle.squares(pixels(), job.crops)


def _answer_into(rows: Rows, ring: Ring[Any], job: PredictionJob, course: _Course, clock: Clock) -> None:
    from toolkit.serving.bundle.views import inputs

    clips = job.bundle.manifest.clip is not None
    smoothing = Smoothing(usual_windows(job).span if clips else 0.0)
    (source,) = job.sources
    while (window := ring.take()) is not None:
        views = inputs(window.frames, clips=True) if clips else [job.bundle.square(window.frames[0]())]
        shown = replace(source, moment=window.moment, shown=clock.date(window.shown))
        try:
            answer = job.average(job.predict(views))
        except DataError as error:
            course.refuse(shown, error)
            continue
        smooth = smoothing.add(answer, window.moment[1], window.part)
        job.add(rows, shown, smooth)
        course.summary.add(smooth, first=not course.summary.answers)
        course.delays.add(clock.now() - window.shown)
        course.delays.dropped = ring.dropped
