"""Segments as files: tables, subtitles, edit lists, and a page that plays them."""

from __future__ import annotations

import html
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from toolkit.api.answers import percent
from toolkit.api.errors import printable
from toolkit.api.files import csv_text
from toolkit.serving.predict.inputs import Source
from toolkit.serving.predict.segments import Segment

FRAME_RATE = 30
"""Frames a second of the time codes in an edit list."""
COLOURS = ("#3d7bc8", "#c77b22", "#3a9a6b", "#a54fae", "#b8484c", "#7d8a2e", "#5a6ad0", "#8d6748")


class Video(NamedTuple):
    """A video with its segments, in their order."""

    source: Source
    length: float
    """Seconds."""
    segments: Sequence[Segment]


def clock(seconds: float) -> str:
    """`1:02:03.456`."""
    whole, thousandths = divmod(round(1000 * seconds), 1000)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}.{thousandths:03}"


def as_csv(videos: Sequence[Video], output: Path) -> str:  # noqa: ARG001 - all writers take the same
    """A row a segment."""
    rows = [
        [video.source.name, one.label, f"{one.start:.3f}", f"{one.end:.3f}", f"{one.score:.4f}"]
        for video in videos
        for one in video.segments
    ]
    return csv_text([["file", "class", "start", "end", "score"], *rows])


def as_json(videos: Sequence[Video], output: Path) -> str:  # noqa: ARG001
    """As ActivityNet takes detections: by the name of a video's file without its suffix."""
    results = {
        Path(video.source.name).stem: [
            {"label": one.label, "score": round(one.score, 4), "segment": [round(one.start, 3), round(one.end, 3)]}
            for one in video.segments
        ]
        for video in videos
    }
    return json.dumps({"version": "VERSION 1.3", "results": results, "external_data": {}}, indent=2) + "\n"


def as_vtt(videos: Sequence[Video], output: Path) -> str:  # noqa: ARG001
    """Subtitles of one video (WebVTT)."""
    (video,) = videos
    cues = [
        f"{_vtt_time(one.start)} --> {_vtt_time(one.end)}\n{html.escape(_label(one), quote=False)} {one.score:.0%}\n"
        for one in video.segments
    ]
    return "\n".join(["WEBVTT\n", *cues])


def as_edl(videos: Sequence[Video], output: Path) -> str:  # noqa: ARG001
    """An edit list of one video (CMX 3600), which places its segments one after the other."""
    (video,) = videos
    lines, place = [f"TITLE: {Path(video.source.name).stem}", "FCM: NON-DROP FRAME", ""], 0.0
    for number, one in enumerate(video.segments, 1):
        length = one.end - one.start
        codes = " ".join(map(_time_code, (one.start, one.end, place, place + length)))
        lines += [f"{number:03}  AX       V     C        {codes}", f"* FROM CLIP NAME: {Path(video.source.name).name}"]
        lines += [f"* COMMENT: {_label(one)} {one.score:.2f}", ""]
        place += length
    return "\n".join(lines)


def as_page(videos: Sequence[Video], output: Path) -> str:
    """A page with a timeline of each video, which it plays from its URL, or from where it lies next to the page."""
    import jinja2

    folder = Path(__file__).parent
    # Jinja's own rule goes by the name of a template, which ends in .j2 here.
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(folder), autoescape=True, trim_blocks=True)
    shown = [_on_page(video, output) for video in videos]
    return environment.get_template("segments.html.j2").render(videos=shown, clock=clock)


def _on_page(video: Video, output: Path) -> Mapping[str, Any]:
    labels = sorted({one.label for one in video.segments})
    return {
        "name": printable(video.source.name),
        "address": _address(video.source, output),
        "length": video.length,
        "segments": video.segments,
        "lanes": [
            (label, COLOURS[place % len(COLOURS)], [one for one in video.segments if one.label == label])
            for place, label in enumerate(labels)
        ],
    }


def _address(source: Source, output: Path) -> str:
    """Where the page finds the video: its URL, as it is shown, so that no password gets into the page."""
    if source.remote:
        return source.name
    return quote(Path(os.path.relpath(Path(source.place).absolute(), output.absolute().parent)).as_posix())


def _label(one: Segment) -> str:
    return " ".join(printable(one.label).split())


def _vtt_time(seconds: float) -> str:
    return clock(seconds).rjust(12, "0")


def _time_code(seconds: float) -> str:
    whole, frames = divmod(math.floor(seconds * FRAME_RATE + 0.5), FRAME_RATE)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}:{frames:02}"


def lines(video: Video) -> Iterator[str]:
    """What the screen shows of a video."""
    name = printable(video.source.name)
    for one in video.segments:
        yield f"{name}  {clock(one.start)}  {clock(one.end)}  {percent(one.score, 2):>8}  {printable(one.label)}"
    if not video.segments:
        yield f"{name}  (no segment)"


WRITERS: Mapping[str, Callable[[Sequence[Video], Path], str]] = {
    ".csv": as_csv,
    ".json": as_json,
    ".html": as_page,
    ".vtt": as_vtt,
    ".edl": as_edl,
}
"""By the suffix of the file."""
OF_ONE = (".vtt", ".edl")
"""Suffixes of files that are about one video."""
