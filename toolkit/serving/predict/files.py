"""Answers to files: one for each image and video, or one for each moment of a video."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from toolkit.api.errors import EXIT_DATA, EXIT_DONE, DataError, counted, printable
from toolkit.data.kinds import may_hold_several
from toolkit.serving.predict.answers import Answer, answer_all, read_sources
from toolkit.serving.predict.inputs import Source
from toolkit.serving.predict.job import PredictionJob
from toolkit.serving.predict.plot import Timelines
from toolkit.serving.predict.progress import Notes, shown_progress
from toolkit.serving.predict.reading import read_timelines, reader
from toolkit.serving.predict.rows import Rows
from toolkit.serving.predict.saving import Saving
from toolkit.serving.predict.summary import Summary
from toolkit.system.machine import allowed_cores
from toolkit.system.notices import show
from toolkit.system.signals import Signalled, Signals, exit_code


def answer_files(job: PredictionJob) -> int:
    """Answer all sources, in their order; the exit code. Raises DataError when none can be read."""
    total = counted(len(job.sources), "input")
    rows_on_screen = job.output is None and sys.stdout.isatty()
    progress = shown_progress(len(job.sources), rows_on_screen=rows_on_screen, console=job.console)
    sinks = _Sinks.of(job)
    try:
        with Signals(), job.rows() as rows, progress as notes:
            _answer_into(sinks, rows, notes, job)
            if job.sources and not sinks.summary.answers:
                raise DataError(f"none of the {total} could be answered", next_step="see the lines above")
    except Signalled as signal:
        show(f"interrupted after {sinks.summary.done:,} of {total}{_left(job, sinks)}", file=sys.stderr)
        return exit_code(signal.number)
    show(*sinks.summary.lines(), *job.damages.lines(), file=sys.stderr)
    if job.output is not None:
        show(f"{job.output}: {counted(sinks.summary.answers, 'row')}", file=sys.stderr)
    if sinks.saving is not None:
        show(f"{job.save}: {counted(sinks.saving.saved, 'annotated file')}", file=sys.stderr)
    if job.plot is not None and sinks.summary.answers:
        sinks.timelines.draw(job.plot, sample=job.bundle.manifest.sample)
        show(f"{job.plot}: timeline", file=sys.stderr)
    return EXIT_DATA if sinks.summary.skipped or sinks.summary.parts_skipped else EXIT_DONE


@dataclass(frozen=True)
class _Sinks:
    """Where answers go besides rows."""

    summary: Summary
    timelines: Timelines
    """What is drawn once the rows are in place."""
    saving: Saving | None

    @classmethod
    def of(cls, job: PredictionJob) -> _Sinks:
        manifest = job.bundle.manifest
        timelines = Timelines(manifest.classes, manifest.thresholds, numbers=manifest.form == "number")
        return cls(Summary(job.bundle), timelines, None if job.save is None else Saving(job, job.save))


def _left(job: PredictionJob, sinks: _Sinks) -> str:
    """What an interruption leaves of the files."""
    unwritten = f"; {job.output} is not written" if job.output else ""
    saved = f"; {job.save} has {counted(sinks.saving.saved, 'annotated file')}" if sinks.saving else ""
    return unwritten + saved


def _answer_into(sinks: _Sinks, rows: Rows, notes: Notes, job: PredictionJob) -> None:
    if job.every is None:
        threads = len(allowed_cores())
        decoded = read_sources(job.sources, reader(job, threads), threads=threads, batch=job.batch)
    else:
        decoded = read_timelines(job, job.every)
    with closing(decoded):
        for answer in answer_all(decoded, job.predict, job.average, batch=job.batch):
            _take_in(answer, sinks, rows, notes, job)
        if sinks.saving is not None:
            _save(sinks.saving, None, notes)


def _take_in(answer: Answer, sinks: _Sinks, rows: Rows, notes: Notes, job: PredictionJob) -> None:
    first = answer.source.moment is None or answer.source.moment[0] == 0
    if sinks.saving is not None:
        _save(sinks.saving, answer, notes)
    if answer.probabilities is None:
        sinks.summary.skip(answer.source)
        notes.say(answer.problem)
    else:
        sinks.summary.add(answer.probabilities, first=first)
        for text in _only_first(answer.source):
            notes.say(text)
        job.add(rows, answer.source, answer.probabilities)
        if job.plot is not None:
            sinks.timelines.add(answer.source, answer.probabilities)
    if first:
        notes.advance()


def _only_first(source: Source) -> Iterator[str]:
    """What is said of an image file that holds more pictures than the one that is answered."""
    if source.kind == "image" and may_hold_several(source.place):
        from toolkit.data.pixels import count_pictures

        if (count := count_pictures(Path(source.place))) > 1:
            yield f"{printable(source.name)}: holds {count:,} pictures; the first is answered"


def _save(saving: Saving, answer: Answer | None, notes: Notes) -> None:
    """Save the copy of an answer, or with None of the last timeline."""
    try:
        if answer is None:
            saving.finish()
        else:
            saving.add(answer)
    except DataError as error:
        notes.say(f"not saved: {error.message}")
