"""Sources as what the model sees: a picture, the views of a video, or its windows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.api.errors import DataError, printable
from toolkit.serving.predict.answers import AHEAD, Decoded, ModelInput
from toolkit.serving.predict.inputs import Source
from toolkit.serving.predict.job import PredictionJob
from toolkit.system.background import in_background
from toolkit.system.machine import allowed_cores

if TYPE_CHECKING:
    from toolkit.data.timeline import Timeline


def reader(job: PredictionJob, threads: int) -> Callable[[Source, threading.Event], Sequence[ModelInput]]:
    """What turns a source into views, in one of `threads` threads."""
    videos = sum(source.kind == "video" for source in job.sources)
    each = max(threads // max(videos, 1), 1)

    def read(source: Source, stop: threading.Event) -> Sequence[ModelInput]:
        match source.kind:
            case "unusable":
                raise DataError(f"{printable(source.name)}: {source.problem}")
            case "video":
                with job.damages.of(source):
                    return list(_views(job, source, threads=each, stop=stop))
            case _:
                return [_picture(job, source)]

    return read


def _picture(job: PredictionJob, source: Source) -> ModelInput:
    from toolkit.data.pixels import read_pixels

    if job.bundle.manifest.clip is not None:
        raise DataError(f"{printable(source.name)}: an image, but this bundle takes video clips")
    return job.bundle.square(read_pixels(Path(source.place)))


def _views(job: PredictionJob, source: Source, *, threads: int, stop: threading.Event) -> Iterator[ModelInput]:
    """What the answer to a whole video is made of."""
    from toolkit.serving.bundle.views import views
    from toolkit.serving.predict.sources import timeline

    line = timeline(source)
    wanted = views(job.bundle.manifest.sampling, line.times)
    for parts in _gathered(job, source, line, wanted, threads=threads, stop=stop):
        yield from parts


def read_timelines(job: PredictionJob, every: float) -> Generator[Decoded, None, None]:
    """The windows of each source, one after the other."""

    def read(stop: threading.Event) -> Iterator[Decoded]:
        for source in job.sources:
            try:
                with job.damages.of(source):
                    yield from read_windows(job, source, every, stop)
            except DataError as error:
                yield source, error

    return in_background(read, room=AHEAD * job.batch)


def read_windows(job: PredictionJob, source: Source, every: float, stop: threading.Event) -> Iterator[Decoded]:
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
