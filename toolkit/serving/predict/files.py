"""Answers to files: one for each image and video, or one for each moment of a video."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from toolkit.api.errors import EXIT_DATA, EXIT_DONE, DataError, counted
from toolkit.serving.predict.answers import AHEAD, Answer, Decoded, ModelInput, answer_all, read_sources
from toolkit.serving.predict.inputs import Source, printable
from toolkit.serving.predict.job import PredictionJob
from toolkit.serving.predict.plot import Timelines
from toolkit.serving.predict.progress import Notes, shown_progress
from toolkit.serving.predict.rows import Rows
from toolkit.system.background import in_background
from toolkit.system.machine import allowed_cores
from toolkit.system.signals import Signalled, Signals, exit_code

if TYPE_CHECKING:
    from toolkit.data.decoding import Timeline


@dataclass
class _Tally:
    """How far it is, in sources."""

    answered: int = 0
    unreadable: int = 0
    rows: int = 0

    @property
    def done(self) -> int:
        return self.answered + self.unreadable

    def add(self, answer: Answer) -> bool:
        """Whether this is the first answer to its source: that of a whole, or of the beginning of a timeline."""
        first = answer.source.moment is None or answer.source.moment[0] == 0
        self.unreadable += answer.probabilities is None
        self.answered += first and answer.probabilities is not None
        self.rows += answer.probabilities is not None
        return first


def answer_files(job: PredictionJob) -> int:
    """Answer all sources, in their order; the exit code. Raises DataError when none can be read."""
    tally, started, total = _Tally(), time.perf_counter(), counted(len(job.sources), "input")
    rows_on_screen = job.output is None and sys.stdout.isatty()
    progress = shown_progress(len(job.sources), rows_on_screen=rows_on_screen, console=job.console)
    try:
        with Signals(), job.rows() as rows, progress as notes:
            timelines = _answer_into(rows, notes, job, tally)
            if not tally.answered:
                raise DataError(f"none of the {total} could be read", next_step="see the lines above")
    except Signalled as signal:
        unwritten = f"; {job.output} is not written" if job.output else ""
        print(f"interrupted after {tally.done:,} of {total}{unwritten}", file=sys.stderr)
        return exit_code(signal.number)
    if job.output is not None:
        rate = tally.answered / max(time.perf_counter() - started, 1e-9)
        print(f"{job.output}: {counted(tally.rows, 'row')} ({rate:,.1f} inputs/s)", file=sys.stderr)
    if job.plot is not None and tally.rows:
        timelines.draw(job.plot, sample=job.bundle.manifest.sample)
    if tally.unreadable:
        print(f"{tally.unreadable:,} of {total} could not be read", file=sys.stderr)
    return EXIT_DATA if tally.unreadable else EXIT_DONE


def _answer_into(rows: Rows, notes: Notes, job: PredictionJob, tally: _Tally) -> Timelines:
    """Answer all sources; the timelines that are to be drawn, once the rows are in place."""
    manifest = job.bundle.manifest
    timelines = Timelines(manifest.classes, manifest.thresholds, numbers=manifest.form == "number")
    if job.every is None:
        threads = len(allowed_cores())
        decoded = read_sources(job.sources, _reader(job, threads), threads=threads, batch=job.batch)
    else:
        decoded = _timelines(job, job.every)
    with _pillow_quiet(job.sources), closing(decoded):
        for answer in answer_all(decoded, job.predict, job.average, batch=job.batch):
            if tally.add(answer):
                notes.advance()
            if answer.probabilities is None:
                notes.say(answer.problem)
                continue
            job.add(rows, answer.source, answer.probabilities)
            if job.plot is not None:
                timelines.add(answer.source, answer.probabilities)
    return timelines


def _reader(job: PredictionJob, threads: int) -> Callable[[Source, threading.Event], Sequence[ModelInput]]:
    """What turns a source into views, in one of `threads` threads."""
    videos = sum(source.kind == "video" for source in job.sources)
    each = max(threads // max(videos, 1), 1)

    def read(source: Source, stop: threading.Event) -> Sequence[ModelInput]:
        match source.kind:
            case "unusable":
                raise DataError(f"{printable(source.name)}: {source.problem}")
            case "video":
                return list(_views(job, source, threads=each, stop=stop))
            case _:
                return [_picture(job, source)]

    return read


def _picture(job: PredictionJob, source: Source) -> ModelInput:
    from toolkit.serving.predict.pictures import read_picture

    if job.bundle.manifest.clip is not None:
        raise DataError(f"{printable(source.name)}: no video by its name, and this bundle takes clips of video")
    return job.bundle.square(read_picture(source.place))


def _views(job: PredictionJob, source: Source, *, threads: int, stop: threading.Event) -> Iterator[ModelInput]:
    """What the answer to a whole video is made of."""
    from toolkit.serving.bundle.views import views
    from toolkit.serving.predict.sources import timeline

    line = timeline(source)
    wanted = views(job.bundle.manifest.sampling, line.times)
    for parts in _gathered(job, source, line, wanted, threads=threads, stop=stop):
        yield from parts


def _timelines(job: PredictionJob, every: float) -> Generator[Decoded, None, None]:
    """The windows of each source, one after the other."""

    def read(stop: threading.Event) -> Iterator[Decoded]:
        for source in job.sources:
            try:
                yield from _windows(job, source, every, stop)
            except DataError as error:
                yield source, error

    return in_background(read, room=AHEAD * job.batch)


def _windows(job: PredictionJob, source: Source, every: float, stop: threading.Event) -> Iterator[Decoded]:
    from toolkit.api.clips import duration
    from toolkit.serving.predict.sources import timeline
    from toolkit.serving.predict.windows import windows

    if source.kind != "video":
        raise DataError(f"{printable(source.name)}: {source.problem or 'an image, which has no timeline'}")
    line, rule = timeline(source), windows(job.bundle.manifest.sampling, every)
    starts = list(rule.starts(duration(line.times)))
    wanted = [rule.numbers(line.times, start) for start in starts]
    gathered = _gathered(job, source, line, wanted, threads=len(allowed_cores()), stop=stop)
    for start, parts in zip(starts, gathered, strict=False):  # reading that is stopped ends early
        yield replace(source, moment=rule.moment(start)), parts


def _gathered(
    job: PredictionJob,
    source: Source,
    line: Timeline,
    wanted: Sequence[Sequence[int]],
    *,
    threads: int,
    stop: threading.Event,
) -> Iterator[list[ModelInput]]:
    """The views of each list of frame numbers in `wanted`: one for each crop."""
    from toolkit.serving.bundle.views import gathered, inputs, needed
    from toolkit.serving.predict.sources import read_frames

    numbers = needed(wanted)
    decoded = read_frames(source, line, numbers, threads=threads, stop=stop)
    squares = (job.bundle.squares(frame, job.crops) for frame in decoded)
    for frames in gathered(wanted, zip(numbers, squares, strict=False)):
        yield inputs(frames, clips=job.bundle.manifest.clip is not None)


def _pillow_quiet(sources: Sequence[Source]) -> AbstractContextManager[None]:
    if all(source.kind == "video" for source in sources):
        return nullcontext()
    from toolkit.serving.predict.pictures import quiet

    return quiet()
