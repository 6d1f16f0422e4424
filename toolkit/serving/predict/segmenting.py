"""`predict --segments`: what happens when in long videos, as a table, a file, a page, and files of the parts."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.api.answers import percent
from toolkit.api.clips import duration
from toolkit.api.errors import EXIT_DATA, EXIT_DONE, DataError, UsageError, counted, printable
from toolkit.api.files import free_name, replaced
from toolkit.serving.bundle.manifest import export_command
from toolkit.serving.predict.answers import Answer, answer_all
from toolkit.serving.predict.choosing import Answered
from toolkit.serving.predict.inputs import Source
from toolkit.serving.predict.job import PredictionJob
from toolkit.serving.predict.reading import read_timelines
from toolkit.serving.predict.saving import Names
from toolkit.serving.predict.segment_files import OF_ONE, WRITERS, Video, lines
from toolkit.serving.predict.segments import Segment, segments_of
from toolkit.system.notices import show, warn
from toolkit.system.signals import Signalled, Signals, exit_code

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EVERY = 0.5
"""Seconds between the answers that segments are made of, for a model of images; a model of clips takes half a clip."""


@dataclass(frozen=True)
class Segmenting:
    """What `--segments` does besides its table."""

    output: Path | None = None
    cut: Path | None = None
    """The folder of the parts as files."""
    truth: Path | None = None
    """Annotations to score the segments with."""
    choose: bool = False
    """Whether the rule that scores best with these annotations is shown."""


def check_segments(segmenting: Segmenting, sources: Sequence[Source], *, other: str) -> None:
    """Raise UsageError unless segments can be made of these sources; `other` is a flag that cannot go with them."""
    if other:
        raise UsageError(f"--segments: cannot go with {other}", next_step=f"remove {other}")
    wrong = next((source for source in sources if source.kind not in ("video", "unusable")), None)
    if wrong is not None:
        raise UsageError(
            f"--segments: {printable(wrong.name)} is not a video file", next_step="give videos, or remove --segments"
        )
    output, cut = segmenting.output, segmenting.cut
    if output is not None and output.suffix.lower() not in WRITERS:
        *others, last = WRITERS
        raise UsageError(
            f'--output {output}: unknown format of segments "{output.suffix}"',
            next_step=f"end the name with {', '.join(others)} or {last}",
        )
    if output is not None and output.suffix.lower() in OF_ONE and len(sources) != 1:
        raise UsageError(
            f"--output {output}: a {output.suffix} file is about one video, got {len(sources):,}",
            next_step="write a .csv or .json file",
        )
    remote = next((source for source in sources if source.remote), None)
    if cut is not None and remote is not None:
        raise UsageError(
            f"--cut: {printable(remote.name)} is not a file of this machine", next_step="download it, and give the file"
        )
    if cut is not None and os.path.lexists(cut) and not (cut.is_dir() and not any(cut.iterdir())):
        raise UsageError(
            f"--cut {cut}: exists and is not an empty folder",
            next_step=f"use a new folder: --cut {shlex.quote(str(free_name(cut if cut.name else cut.absolute())))}",
        )


def segment_files(job: PredictionJob, segmenting: Segmenting) -> int:
    """Find the segments of all sources, in their order; the exit code. Raises DataError where none can be read, and
    UsageError for annotations that cannot be read or name other classes than the model."""
    truth = None if segmenting.truth is None else _truth(segmenting.truth, job.bundle.manifest.classes)
    found: list[Video] = []
    names, failed = Names(job.sources), 0
    kept: dict[str, Answered] | None = {} if segmenting.choose else None
    try:
        with Signals():
            for video in _videos(job, kept):
                if isinstance(video, str):
                    warn(video)
                    failed += 1
                    continue
                found.append(video)
                show(*lines(video))
                if segmenting.cut is not None:
                    _cut(video, segmenting.cut, names)
    except Signalled as signal:
        show(f"interrupted after {counted(len(found), 'video')}", file=sys.stderr)
        return exit_code(signal.number)
    if not found:
        raise DataError("none of the videos could be answered", next_step="see the lines above")
    if segmenting.output is not None:
        with replaced(segmenting.output) as path:
            write = WRITERS[segmenting.output.suffix.lower()]
            path.write_text(write(found, segmenting.output), encoding="utf-8")
    total = counted(sum(len(video.segments) for video in found), "segment")
    show(f"{total} in {counted(len(found), 'video')}", *job.damages.lines(), file=sys.stderr)
    if truth is not None:
        show(*_scores(found, truth), file=sys.stderr)
        if kept is not None:
            show(*_choice(job, kept, truth), file=sys.stderr)
    return EXIT_DATA if failed else EXIT_DONE


def _videos(job: PredictionJob, kept: dict[str, Answered] | None) -> Iterator[Video | str]:
    """Each video with its segments, or why it has none to show."""
    for source in job.sources:
        try:
            yield _segmented(replace(job, sources=[source]), source, kept)
        except DataError as error:
            yield error.message


def _segmented(job: PredictionJob, source: Source, kept: dict[str, Answered] | None) -> Video:
    """The segments of a video, whose answers are `kept` where another rule is to be chosen."""
    from toolkit.serving.predict.sources import timeline

    manifest, every = job.bundle.manifest, job.every or default_every(job)
    if source.kind == "unusable":
        raise DataError(f"{printable(source.name)}: {source.problem}")
    length = duration(timeline(source).times)
    with closing(read_timelines(job, every)) as decoded:
        answers = ((_middle(one), _row(one)) for one in answer_all(decoded, job.predict, job.average, batch=job.batch))
        timed: Iterable[tuple[float, NDArray[np.float32]]] = (
            (middle, manifest.parted(row)[0]) for middle, row in answers
        )
        if kept is not None:
            timed = [*timed]
            kept[Path(source.place).stem] = Answered(every, timed, length)
        found = segments_of(timed, manifest.segments, manifest.classes, every, manifest.thresholds, length)
    return Video(source, length, found)


def default_every(job: PredictionJob) -> float:
    """Seconds between two answers: half of what a clip sees."""
    span = getattr(job.bundle.manifest.sampling, "span", None)
    return EVERY if span is None else span / 2


def _middle(answer: Answer) -> float:
    start, end = answer.source.moment or (0.0, 0.0)
    return (start + end) / 2


def _row(answer: Answer) -> NDArray[np.float32]:
    if answer.probabilities is None:
        raise DataError(answer.problem)
    return answer.probabilities


def _cut(video: Video, folder: Path, names: Names) -> None:
    from toolkit.serving.predict.cutting import cut

    folder.mkdir(parents=True, exist_ok=True)
    path = Path(video.source.place)
    for one in video.segments:
        part = replace(video.source, name=f"{path.stem} {one.start:.1f}-{one.end:.1f} {one.label}", kind="camera")
        cut(path, one.start, one.end, folder / names.take(part, path.suffix or ".mp4"))


def _truth(path: Path, classes: Sequence[str]) -> Mapping[str, Sequence[Segment]]:
    from toolkit.serving.predict.segment_scores import read_annotations

    truth = read_annotations(path)
    unknown = sorted({one.label for segments in truth.values() for one in segments} - {*classes})
    if unknown:
        raise UsageError(
            f'--truth {path}: the model has no class "{unknown[0]}"',
            next_step=f"rename the labels; its classes are {', '.join(classes)}",
        )
    return truth


def _choice(job: PredictionJob, kept: Mapping[str, Answered], truth: Mapping[str, Sequence[Segment]]) -> Iterator[str]:
    """The rule that scores best, and the command that exports with it. Raises DataError without annotated videos."""
    from toolkit.serving.predict.choosing import chosen, keys

    manifest = job.bundle.manifest
    if not any(truth.get(name) for name in kept):
        raise DataError(
            "--choose: none of the videos has an annotated segment",
            next_step="name the videos of the annotations as their files, without suffix",
        )
    choice = chosen(kept, truth, manifest.classes, manifest.segments, manifest.thresholds)
    yield from choice.lines()
    given = " ".join(f"--set export.segments.{key}={value:g}" for key, value in keys(choice.rule).items())
    if choice.rule == manifest.segments:
        yield "the bundle has this rule already"
    else:
        yield f"next:  {export_command(job.bundle.path, manifest)} {given}"


def _scores(videos: Sequence[Video], truth: Mapping[str, Sequence[Segment]]) -> Iterator[str]:
    from toolkit.serving.predict.segment_scores import OVERLAPS, mean_average_precision

    found = {Path(video.source.place).stem: video.segments for video in videos}
    known = {name: segments for name, segments in truth.items() if name in found}
    yield f"annotated: {counted(len(known), 'video')} of {len(found):,}"
    for overlap in OVERLAPS if known else ():
        score = mean_average_precision({name: found[name] for name in known}, known, overlap)
        yield f"mAP at IoU {overlap:g}: {percent(score)}"
