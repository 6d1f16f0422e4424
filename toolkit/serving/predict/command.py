"""`python -m toolkit predict`: the words of the command in, answers and an exit code out."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.api.errors import EXIT_DONE, UsageError, counted, printable
from toolkit.api.files import free_name
from toolkit.data.kinds import IMAGE_SUFFIXES
from toolkit.serving.bundle.providers import usual_batch
from toolkit.serving.predict.inputs import STANDARD_INPUT, Source, find_sources, settled
from toolkit.serving.predict.job import PredictionJob
from toolkit.serving.predict.plot import check_plot
from toolkit.serving.predict.rows import check_output
from toolkit.serving.predict.saving import check_save
from toolkit.serving.predict.segmenting import Segmenting, check_segments, segment_files
from toolkit.serving.predict.summary import labels
from toolkit.system.notices import note, show, warn
from toolkit.system.ranks import Ranks

if TYPE_CHECKING:
    from rich.console import Console

    from toolkit.serving.bundle import Bundle
    from toolkit.serving.predict.clock import Clock

LEAST_SECONDS = 0.001
"""Shortest time between two rows of a timeline: no camera is faster, and all rows of a video are listed at once."""
JOINED = (".flv", ".m2ts", ".mts", ".ts", *IMAGE_SUFFIXES)
"""Suffixes of formats that can be joined at any moment: they are those of recordings and of live streams. Cameras send
JPEG after JPEG."""
INPUTS_REPEATED = 3
"""Inputs in the next command at most, so that it stays short where a shell has made many of a pattern."""


def predict_files(  # noqa: PLR0913 - its arguments are the command's flags
    bundle: Path | Callable[[], Path],
    inputs: Sequence[str],
    *,
    device: str = "auto",
    precision: str | None = None,
    output: Path | None = None,
    save: Path | None = None,
    top: int = 3,
    batch: int | None = None,
    every: float | None = None,
    stream: bool = False,
    reconnect: int | None = None,
    plot: Path | None = None,
    part: tuple[int, int] | None = None,
    segments: Segmenting | None = None,
    signed_by: Path | None = None,
    runtime: str = "onnxruntime",
    console: Console | None = None,
    clock: Clock | None = None,
    words: Sequence[str] = (),
) -> int:
    """Answer `inputs` with the bundle at `bundle`: as a table on standard output, or in the file `output`. Everything
    else, with a summary at the end, goes to standard error. The answers to what is live are appended to `output`, each
    as it is decided.

    bundle: its folder, or a function that makes it, called once everything else is checked.
    inputs: image and video files, folders, patterns, `-` for a list on standard input, a camera's number, a URL of a
        video.
    save: a new or empty folder for copies of the pictures and videos with the answers drawn on them.
    top: number of classes to show per input.
    batch: images or clips a call of the session (None: what suits the device).
    every: a row for every so many seconds of a video instead of one for all of it.
    stream: answer one video file at its own speed, as a camera.
    reconnect: attempts in a row to open a camera or stream again that was lost (None: until it is open again).
    plot: a .png or .svg file that shows one video's timeline.
    segments: find events instead: what to do with them besides showing them. They have files of other formats.
    signed_by: a public key whose owner must have signed the bundle.
    runtime: what computes the bundle, as `Bundle.load` takes it.
    part: (K, N) to answer the K-th of N parts of the inputs, from 1. Parts are of equal size, or one apart, and in the
        order of the inputs.
    console: where a progress bar goes (None: standard error, where it is a terminal).
    clock: what a stream is timed by (None: this machine's).
    words: the command line; where it is given, the next command is printed at the end.

    Returns 0 when all was answered, 3 when some inputs could not be read or the model's answers have no meaning (each
    is named, the others are answered), 130 or 75 when a signal ended it, in which case `output` is not written. A
    camera or stream, which has no other end, ends with 0 on a signal. Raises UsageError, BundleError, DataError when
    nothing can be answered or a stream is lost, and RunFailed when `output` cannot be written.
    """
    _check_options(top, batch, every)
    if segments is None and output is not None:
        check_output(output)
    found = find_sources(inputs, _standard_input() if "-" in inputs else ())
    sources = _live_or_recorded(found.sources)
    if stream or every is not None or segments is not None:
        sources = settled(sources, moving=True)
    if stream:
        _check_stream(sources)
    if reconnect is not None:
        _check_reconnect(reconnect, sources)
    if part is not None:
        sources = _part(sources, *part, stream=stream)
    _check_results(save, plot, segments, sources, every, stream=stream)
    opened = _opened(bundle, device=device, precision=precision, signed_by=signed_by, runtime=runtime)
    sources = settled(sources, moving=opened.manifest.clip is not None)
    for text in found.notes:
        note(text)
    shown = min(top, len(opened.manifest.classes))
    size = batch or usual_batch(opened.device, opened.manifest.input.frames)
    job = PredictionJob(opened, sources, every, stream, output, plot, save, shown, size, console, reconnect)
    code = _answer(job, clock) if segments is None else segment_files(job, segments)
    if code == EXIT_DONE and words and segments is None and (command := next_command(words, inputs, job)):
        show(f"next:  {command}", file=sys.stderr)
    return code


def _check_results(
    save: Path | None,
    plot: Path | None,
    segments: Segmenting | None,
    sources: Sequence[Source],
    every: float | None,
    *,
    stream: bool,
) -> None:
    """Raise UsageError unless all that is to be made besides rows can be made of these sources."""
    if save is not None:
        check_save(save, sources, stream=stream)
    if plot is not None:
        check_plot(plot)
        _check_timeline(sources, every, stream=stream)
    if segments is not None:
        given = {"--stream": stream, "--save": save is not None, "--plot": plot is not None}
        check_segments(segments, sources, other=next((flag for flag, is_given in given.items() if is_given), ""))


def _opened(
    bundle: Path | Callable[[], Path], *, device: str, precision: str | None, signed_by: Path | None, runtime: str
) -> Bundle:
    from toolkit.serving.bundle import Bundle

    path = bundle if isinstance(bundle, Path) else bundle()
    opened = Bundle.load(path, device=device, precision=precision, signed_by=signed_by, runtime=runtime)
    show(f"{opened.manifest.name}: {opened.setting}", file=sys.stderr)
    for label in labels(opened.manifest):
        warn(printable(label))
    return opened


def _answer(job: PredictionJob, clock: Clock | None) -> int:
    if job.follows:
        from toolkit.serving.predict.clock import Clock
        from toolkit.serving.predict.following import follow

        return follow(job, clock or Clock())
    from toolkit.serving.predict.files import answer_files

    return answer_files(job)


def next_command(words: Sequence[str], inputs: Sequence[str], job: PredictionJob) -> str | None:
    """The same command with what it did not do yet: annotated copies, then a file of rows; None where it did both or
    its inputs came from standard input."""
    if STANDARD_INPUT in words:
        return None
    if job.save is None and not job.follows:
        flag = ["--save", str(free_name(Path("annotated")))]
    elif job.output is None:
        flag = ["--output", str(free_name(Path("answers.csv")))]
    else:
        return None
    return f"python -m toolkit {shlex.join([*_repeatable(words, inputs), *flag])}"


def _repeatable(words: Sequence[str], inputs: Sequence[str]) -> list[str]:
    """`words` without `--save`, since a second call may not save to the same folder, and with few inputs."""
    passed_over = set(inputs[INPUTS_REPEATED:])
    kept, skip = [], False
    for word in words:
        if not (skip or word in passed_over or word == "--save" or word.startswith("--save=")):
            kept.append(word)
        skip = word == "--save"
    return kept


def _live_or_recorded(sources: Sequence[Source]) -> Sequence[Source]:
    """The sources; of a format that can be joined at any moment, a URL alone is live or a recording, as it says."""
    (first, *others) = sources
    path = first.place.partition("?")[0].lower()
    if others or "://" not in path or not path.endswith(JOINED) or Path(first.place).exists():
        return sources
    from toolkit.serving.predict.connection import is_live

    return [replace(first, kind="stream" if is_live(first) else "video")]


def _part(sources: Sequence[Source], number: int, parts: int, *, stream: bool) -> Sequence[Source]:
    """The sources of one of several processes. All of them find the same, so all parts together are the whole."""
    if stream or sources[0].endless:
        raise UsageError(
            f"--part: {printable(sources[0].name)} is answered as it is shown, by one process",
            next_step="remove --part",
        )
    share = Ranks(number - 1, parts).share(len(sources))
    if share.stop > share.start:
        note(f"part {number} of {parts}: inputs {share.start + 1:,} to {share.stop:,} of {len(sources):,}")
    else:
        note(f"part {number} of {parts} is empty: {counted(len(sources), 'input')} in all")
    return sources[share]


def _standard_input() -> Iterable[bytes]:
    """Its lines; none where it is closed."""
    return sys.stdin.buffer if sys.stdin else ()


def _check_options(top: int, batch: int | None, every: float | None) -> None:
    if top < 1:
        raise UsageError(f"--top: must be at least 1, got {top}", next_step="use --top 1 for the likeliest class alone")
    if batch is not None and batch < 1:
        message = f"--batch: must be at least 1, got {batch}"
        raise UsageError(message, next_step="remove --batch: the default suits the device")
    if every is not None and not (every >= LEAST_SECONDS and math.isfinite(every)):
        message = f"--every: must be at least {LEAST_SECONDS:g} seconds, got {every:g}"
        raise UsageError(message, next_step="use --every 1 for a row per second")


def _check_stream(sources: Sequence[Source]) -> None:
    if len(sources) > 1:
        raise UsageError(f"--stream: expected one input, got {len(sources):,}", next_step="give one video file")
    if sources[0].kind == "image":
        raise UsageError(f"--stream: {sources[0].name} is an image", next_step="give a video file, or remove --stream")


def _check_reconnect(reconnect: int, sources: Sequence[Source]) -> None:
    if reconnect < 0:
        message = f"--reconnect: must be at least 0, got {reconnect}"
        raise UsageError(message, next_step="remove --reconnect: what is lost is opened again without end")
    if not sources[0].endless:
        raise UsageError(
            f"--reconnect: {printable(sources[0].name)} is a file, which is read once",
            next_step="remove --reconnect, or give a camera's number or the URL of a stream",
        )


def _check_timeline(sources: Sequence[Source], every: float | None, *, stream: bool) -> None:
    if every is None or stream or len(sources) != 1 or sources[0].kind != "video":
        raise UsageError(
            "--plot: needs a single video file, --every, and no --stream",
            next_step="python -m toolkit predict BUNDLE video.mp4 --every 1 --plot timeline.png",
        )
