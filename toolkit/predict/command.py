"""`python -m toolkit predict`: the words of the command in, answers and an exit code out."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.errors import EXIT_DATA, EXIT_DONE, BundleError, DataError, UsageError
from toolkit.predict.inputs import Source, find_sources, printable
from toolkit.predict.progress import Notes, shown_progress, warn
from toolkit.predict.rows import Rows, Table, check_output, table_width, written
from toolkit.signals import Signalled, Signals, exit_code

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

    from toolkit.bundle import Bundle

BATCH = {"cpu": 16, "cuda": 128, "tensorrt": 128}
"""Squares a call of the session, by device: more are no faster on a CPU, and are held longer."""


def predict_files(
    bundle: Path,
    inputs: Sequence[str],
    *,
    device: str = "auto",
    precision: str | None = None,
    output: Path | None = None,
    top: int = 3,
    batch: int | None = None,
    console: Console | None = None,
) -> int:
    """Answer `inputs` with the bundle at `bundle`: as a table on standard output, or in the file `output`.

    inputs: image and video files, folders, patterns, `-` for a list on standard input, a camera's number, a URL of a
    video. top: classes told for each. batch: images a call of the session (None: what suits the device). console:
    where a progress bar goes (None: standard error, where it is a terminal). Everything else that is said goes to
    standard error.

    Returns 0 when all was answered, 3 when some inputs could not be read (each is told as it is met, the others are
    answered), 130 or 75 when a signal ended it, in which case no file is written. A camera or stream, which has no
    other end, ends with 0 on a signal. Raises UsageError, BundleError, and DataError when nothing can be answered.
    """
    _check_options(top, batch)
    if output is not None:
        check_output(output)
    sources = find_sources(inputs, sys.stdin.buffer if "-" in inputs else ())
    from toolkit.bundle import Bundle

    opened = Bundle.load(bundle, device=device, precision=precision)
    _refuse_clips(opened)
    _introduce(opened)
    told = min(top, len(opened.manifest.classes))
    job = _Job(opened, sources, output, told, batch or BATCH[opened.device], console)
    return _follow(job) if sources[0].endless else _answer_files(job)


@dataclass(frozen=True)
class _Job:
    """What is to be done, all checked."""

    bundle: Bundle
    sources: Sequence[Source]
    output: Path | None
    top: int
    batch: int
    console: Console | None

    def rows(self) -> AbstractContextManager[Rows]:
        if self.output is not None:
            return written(self.output, self.top)
        names = [f"{source.name}{_moment(0) if source.endless else ''}" for source in self.sources]
        classes = self.bundle.manifest.classes
        return nullcontext(Table(width=table_width(names), classes=classes, top=self.top))

    def best(self, probabilities: NDArray[np.float32]) -> list[tuple[str, float]]:
        """The likeliest classes for one row `[C]`."""
        from toolkit.bundle import Answers

        return Answers(probabilities[None], self.bundle.manifest.classes).top(self.top)[0]

    def predict(self, squares: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        return self.bundle.predict(squares).probabilities


@dataclass
class _Tally:
    """How far it is."""

    answered: int = 0
    unreadable: int = 0

    @property
    def done(self) -> int:
        return self.answered + self.unreadable


def _answer_files(job: _Job) -> int:
    tally, started, total = _Tally(), time.perf_counter(), len(job.sources)
    try:
        with Signals(), job.rows() as rows, _progress(job) as notes:
            _answer_into(rows, notes, job, tally)
            if not tally.answered:
                raise DataError(f"none of the {_inputs(total)} could be read", next_step="see the lines above")
    except Signalled as signal:
        unwritten = f"; {job.output} is not written" if job.output else ""
        print(f"interrupted after {tally.done:,} of {_inputs(total)}{unwritten}", file=sys.stderr)
        return exit_code(signal.number)
    if job.output is not None:
        rate = tally.answered / max(time.perf_counter() - started, 1e-9)
        print(f"{job.output}: {tally.answered:,} rows ({rate:,.1f} inputs/s)", file=sys.stderr)
    if tally.unreadable:
        print(f"{tally.unreadable:,} of {_inputs(total)} could not be read", file=sys.stderr)
    return EXIT_DATA if tally.unreadable else EXIT_DONE


def _answer_into(rows: Rows, notes: Notes, job: _Job, tally: _Tally) -> None:
    from toolkit.predict.answers import answer_all

    threads, views = _cores(), job.bundle.manifest.sampling.views
    answers = answer_all(
        job.sources,
        _reader(job, threads),
        job.predict,
        batch=job.batch,
        threads=threads,
        squares=lambda source: views if source.kind == "video" else 1,
    )
    with _pillow_quiet(job.sources), closing(answers):
        for answer in answers:
            if answer.probabilities is None:
                tally.unreadable += 1
                notes.say(answer.problem)
            else:
                tally.answered += 1
                rows.add(answer.source.name, job.best(answer.probabilities))
            notes.advance()


def _reader(job: _Job, threads: int) -> Callable[[Source, threading.Event], list[NDArray[np.uint8]]]:
    """What turns a source into squares, in one of `threads` threads."""
    square, views = job.bundle.square, job.bundle.manifest.sampling.views
    videos = sum(source.kind == "video" for source in job.sources)
    each = max(threads // max(videos, 1), 1)

    def read(source: Source, stop: threading.Event) -> list[NDArray[np.uint8]]:
        match source.kind:
            case "unusable":
                raise DataError(f"{printable(source.name)}: {source.problem}")
            case "video":
                from toolkit.predict.videos import sample_frames

                return [square(frame) for frame in sample_frames(source, views, threads=each, stop=stop)]
            case _:
                from toolkit.predict.pictures import read_picture

                return [square(read_picture(source.place))]

    return read


def _follow(job: _Job) -> int:
    """Answer a camera's or stream's newest frame, again and again."""
    from toolkit.predict.videos import live_frames

    (source,) = job.sources
    print(f"{printable(source.name)}: Ctrl-C ends it", file=sys.stderr)
    answered, code = 0, EXIT_DONE
    with job.rows() as rows:
        try:
            with Signals(), closing(live_frames(source)) as frames:
                for frame in frames:
                    (probabilities,) = job.predict([job.bundle.square(frame.pixels)])
                    rows.add(f"{source.name}{_moment(frame.seconds)}", job.best(probabilities))
                    answered += 1
        except Signalled:
            pass  # how a camera ends
        except DataError as error:
            if not answered:
                raise
            print(error.message, file=sys.stderr)
            code = EXIT_DATA
    print(f"{printable(source.name)}: {answered:,} frames answered", file=sys.stderr)
    return code


def _moment(seconds: float) -> str:
    """A place in time behind the name of a video, as URLs write it."""
    return f"#t={seconds:.3f}"


def _progress(job: _Job) -> AbstractContextManager[Notes]:
    on_screen = job.output is None and sys.stdout.isatty()
    return shown_progress(len(job.sources), rows_on_screen=on_screen, console=job.console)


def _pillow_quiet(sources: Sequence[Source]) -> AbstractContextManager[None]:
    if all(source.kind == "video" for source in sources):
        return nullcontext()
    from toolkit.predict.pictures import quiet

    return quiet()


def _check_options(top: int, batch: int | None) -> None:
    if top < 1:
        raise UsageError(f"--top: must be at least 1, got {top}", next_step="--top 1 tells the likeliest class alone")
    if batch is not None and batch < 1:
        raise UsageError(f"--batch: must be at least 1, got {batch}", next_step="leave it out to have it chosen")


def _refuse_clips(bundle: Bundle) -> None:
    frames = bundle.manifest.input.frames
    if frames is not None:
        raise BundleError(
            f"{bundle.path}: takes clips of {frames} frames, and predict answers single frames only",
            next_step="give clips to toolkit.bundle.Bundle.predict yourself, or use a bundle of an image model",
        )


def _introduce(bundle: Bundle) -> None:
    print(f"{bundle.manifest.name}: {bundle.precision} on {bundle.device} ({bundle.reason})", file=sys.stderr)
    if bundle.manifest.sample:
        warn("trained on SAMPLE data: its answers say nothing about real pictures")


def _inputs(count: int) -> str:
    return f"{count:,} input{'s' if count != 1 else ''}"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
