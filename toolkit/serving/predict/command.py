"""`python -m toolkit predict`: the words of the command in, answers and an exit code out."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.api.errors import UsageError
from toolkit.serving.predict.inputs import Source, find_sources
from toolkit.serving.predict.job import BATCH, PredictionJob
from toolkit.serving.predict.plot import check_plot
from toolkit.serving.predict.rows import check_output
from toolkit.system.notices import warn

if TYPE_CHECKING:
    from rich.console import Console

    from toolkit.serving.predict.live import Clock


LEAST_SECONDS = 0.001
"""Shortest time between two rows of a timeline: no camera is faster, and all rows of a video are listed at once."""


def predict_files(  # noqa: PLR0913 - its arguments are the command's flags
    bundle: Path,
    inputs: Sequence[str],
    *,
    device: str = "auto",
    precision: str | None = None,
    output: Path | None = None,
    top: int = 3,
    batch: int | None = None,
    every: float | None = None,
    stream: bool = False,
    plot: Path | None = None,
    console: Console | None = None,
    clock: Clock | None = None,
) -> int:
    """Answer `inputs` with the bundle at `bundle`: as a table on standard output, or in the file `output`.

    inputs: image and video files, folders, patterns, `-` for a list on standard input, a camera's number, a URL of a
    video. top: classes told for each. batch: images or clips a call of the session (None: what suits the device).
    every: a row for every so many seconds of a video instead of one for all of it. stream: answer one video file as it
    is played at its own speed, as a camera is. plot: a .png or .svg file that shows one video's timeline. console:
    where a progress bar goes (None: standard error, where it is a terminal). clock: what a stream is timed by (None:
    this machine's). Everything else that is said goes to standard error.

    Returns 0 when all was answered, 3 when some inputs could not be read (each is told as it is met, the others are
    answered), 130 or 75 when a signal ended it, in which case no file is written. A camera or stream, which has no
    other end, ends with 0 on a signal. Raises UsageError, BundleError, and DataError when nothing can be answered.
    """
    _check_options(top, batch, every)
    if output is not None:
        check_output(output)
    sources = find_sources(inputs, _standard_input() if "-" in inputs else ())
    if stream:
        _check_stream(sources)
    if plot is not None:
        check_plot(plot)
        _check_timeline(sources, every, stream=stream)
    from toolkit.serving.bundle import Bundle

    opened = Bundle.load(bundle, device=device, precision=precision)
    print(f"{opened.manifest.name}: {opened.precision} on {opened.device} ({opened.reason})", file=sys.stderr)
    if opened.manifest.sample:
        warn("trained on SAMPLE data: its answers say nothing about real pictures")
    told = min(top, len(opened.manifest.classes))
    frames = opened.manifest.input.frames or 1
    size = batch or max(BATCH[opened.device] // frames, 1)
    job = PredictionJob(opened, sources, every, stream, output, plot, told, size, console)
    if job.follows:
        from toolkit.serving.predict.following import follow
        from toolkit.serving.predict.live import Clock

        return follow(job, clock or Clock())
    from toolkit.serving.predict.files import answer_files

    return answer_files(job)


def _standard_input() -> Iterable[bytes]:
    """Its lines; none where it is closed."""
    return sys.stdin.buffer if sys.stdin else ()


def _check_options(top: int, batch: int | None, every: float | None) -> None:
    if top < 1:
        raise UsageError(f"--top: must be at least 1, got {top}", next_step="--top 1 tells the likeliest class alone")
    if batch is not None and batch < 1:
        raise UsageError(f"--batch: must be at least 1, got {batch}", next_step="leave it out to have it chosen")
    if every is not None and not (every >= LEAST_SECONDS and math.isfinite(every)):
        told = f"--every: must be at least {LEAST_SECONDS:g} seconds, got {every:g}"
        raise UsageError(told, next_step="--every 1 gives a row a second")


def _check_stream(sources: Sequence[Source]) -> None:
    if len(sources) > 1:
        raise UsageError(
            f"--stream: follows one source, and {len(sources):,} are given", next_step="give one video file"
        )
    if sources[0].kind == "image":
        raise UsageError(f"--stream: {sources[0].name} is an image", next_step="give a video file, or leave it out")


def _check_timeline(sources: Sequence[Source], every: float | None, *, stream: bool) -> None:
    if every is None or stream or len(sources) != 1 or sources[0].kind != "video":
        raise UsageError(
            "--plot: draws the timeline of one video that is read as a whole",
            next_step="python -m toolkit predict BUNDLE film.mp4 --every 1 --plot timeline.png",
        )
