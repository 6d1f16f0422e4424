"""Copies of pictures and videos with the answers drawn on them."""

from __future__ import annotations

import os
import re
import shlex
import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from toolkit.api.errors import DataError, UsageError, printable
from toolkit.api.files import free_name, replaced
from toolkit.serving.predict.inputs import Moment, Source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from toolkit.serving.predict.answers import Answer
    from toolkit.serving.predict.captions import Line
    from toolkit.serving.predict.job import PredictionJob

JPEG = (".jpg", ".jpeg")
QUALITY = 92
CODERS = ("libx264", "mpeg4")
"""Of videos, best first."""
OPTIONS = {"libx264": {"crf": "20", "preset": "veryfast"}}
TICKS = 90_000
"""Parts of a second in which a video counts time."""
EVERY = 1.0
"""Seconds between the answers that are drawn on a video, for a model of images."""
LONGEST = 150
"""Bytes of a file's name, without its suffix."""


class Shown(NamedTuple):
    """An answer `[C]` to a part of a video."""

    moment: Moment
    probabilities: NDArray[np.float32]


def check_save(folder: Path, sources: Sequence[Source], *, stream: bool) -> None:
    """Raise UsageError unless annotated copies of `sources` can be saved in `folder`, without replacing anything."""
    live = next((source for source in sources if source.endless), None)
    if stream or live is not None:
        what = "a video that is followed with --stream" if live is None else printable(live.name)
        raise UsageError(
            f"--save {folder}: saves pictures and videos from files, not {what}",
            next_step="remove --stream" if live is None else "write the answers with --output answers.csv",
        )
    if os.path.lexists(folder) and not folder.is_dir():
        raise UsageError(f"--save {folder}: not a folder", next_step=f"--save {shlex.quote(str(free_name(folder)))}")
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(
            f"--save {folder}: the folder is not empty, and nothing in it is replaced",
            next_step=f"save to a new folder: --save {shlex.quote(str(free_name(folder)))}",
        )


class Saving:
    """Saves what is answered, one file for each source."""

    def __init__(self, job: PredictionJob, folder: Path) -> None:
        self._job, self._folder = job, folder
        self._names = Names(job.sources)
        self._source: Source | None = None
        self._timeline: list[Shown] = []
        self.saved = 0

    def add(self, answer: Answer) -> None:
        """Save the picture or the video of an answer. Of a timeline, whose answers come one by one, the video is saved
        before the next source. Raises DataError where it can no longer be read."""
        if answer.probabilities is None:
            self.finish()
        elif answer.source.moment is not None:
            self._collect(answer.source, Shown(answer.source.moment, answer.probabilities))
        elif answer.source.kind == "video":
            self._save_video(answer.source, _timeline(self._job, answer.source))
        else:
            self._save_picture(answer.source, answer.probabilities)

    def finish(self) -> None:
        """Save the video whose timeline is collected, if there is one."""
        source, timeline = self._source, self._timeline
        self._source, self._timeline = None, []
        if source is not None:
            self._save_video(source, timeline)

    def _collect(self, source: Source, shown: Shown) -> None:
        whole = replace(source, moment=None)
        if whole != self._source or shown.moment[0] == 0:
            self.finish()
        self._source = whole
        self._timeline.append(shown)

    def _save_picture(self, source: Source, probabilities: NDArray[np.float32]) -> None:
        from PIL import Image

        from toolkit.data.pixels import read_pixels
        from toolkit.serving.predict.captions import Layout, caption

        picture = Image.fromarray(read_pixels(Path(source.place)))
        lines = caption(self._job.bundle.manifest, probabilities, self._job.top)
        result = Layout.of(picture.size, [lines]).draw(picture, lines)
        is_jpeg = Path(source.name).suffix.lower() in JPEG
        with replaced(self._folder / self._names.take(source, ".jpg" if is_jpeg else ".png")) as path:
            result.save(path, quality=QUALITY) if is_jpeg else result.save(path)
        self.saved += 1

    def _save_video(self, source: Source, timeline: Sequence[Shown]) -> None:
        from toolkit.serving.predict.captions import caption

        manifest, top = self._job.bundle.manifest, self._job.top
        captions = [caption(manifest, shown.probabilities, top) for shown in timeline]
        middles = [sum(shown.moment) / 2 for shown in timeline]
        with replaced(self._folder / self._names.take(source, ".mp4")) as path:
            write_video(path, _captioned(source, middles, captions))
        self.saved += 1


class Names:
    """File names for copies of sources: like the sources' own, of harmless characters, each given once."""

    def __init__(self, sources: Iterable[Source]) -> None:
        folders = {Path(source.place).absolute().parent for source in sources if _is_file(source)}
        self._common = Path(os.path.commonpath(folders)) if folders else None
        self._taken: set[str] = set()

    def take(self, source: Source, suffix: str) -> str:
        stem = self._stem(source)
        name, number = f"{stem}{suffix}", 1
        while name.casefold() in self._taken:
            number += 1
            name = f"{stem}-{number}{suffix}"
        self._taken.add(name.casefold())
        return name

    def _stem(self, source: Source) -> str:
        """The path below what all sources share, as one name."""
        if _is_file(source) and self._common is not None:
            path = Path(source.place).absolute().relative_to(self._common).with_suffix("")
            stem = "__".join(path.parts)
        else:
            stem = source.name.partition("://")[2].partition("?")[0] or source.name
        safe = re.sub(r"[^\w.\-]+", "_", stem.encode("utf-8", "replace").decode()).strip("._-") or source.kind
        return safe.encode()[:LONGEST].decode(errors="ignore")


def write_video(path: Path, frames: Iterable[tuple[float, Image.Image]]) -> None:
    """Write frames of one size, each with the second from which it is shown, as an MP4 file without sound."""
    import av
    import numpy as np

    coder = next(name for name in CODERS if name in av.codecs_available)
    with av.open(str(path), "w", format="mp4") as file:
        stream: Any = None
        for seconds, picture in frames:
            if stream is None:
                stream = file.add_stream(coder, rate=30, options=OPTIONS.get(coder, {}))
                stream.width, stream.height = picture.size
                stream.pix_fmt = "yuv420p"
                stream.codec_context.time_base = Fraction(1, TICKS)
            frame = av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")
            frame.pts, frame.time_base = round(seconds * TICKS), Fraction(1, TICKS)
            file.mux(stream.encode(frame))
        if stream is not None:
            file.mux(stream.encode())


def _captioned(
    source: Source, middles: Sequence[float], captions: Sequence[Sequence[Line]]
) -> Iterator[tuple[float, Image.Image]]:
    """Every frame of a video with the answer that is nearest in time."""
    from PIL import Image

    from toolkit.serving.predict.captions import Layout
    from toolkit.serving.predict.sources import read_frames, timeline
    from toolkit.system.machine import allowed_cores

    line, stop = timeline(source), threading.Event()
    frames = read_frames(source, line, range(len(line.times)), threads=len(allowed_cores()), stop=stop)
    layout: Layout | None = None
    for seconds, pixels in zip(line.times, frames, strict=False):
        picture = Image.fromarray(pixels)
        layout = layout or Layout.of(picture.size, captions, even=True)
        yield seconds, layout.draw(picture, captions[_nearest(middles, seconds)])


def _nearest(middles: Sequence[float], seconds: float) -> int:
    place = bisect_left(middles, seconds)
    around = [number for number in (place - 1, place) if 0 <= number < len(middles)]
    return min(around, key=lambda number: abs(middles[number] - seconds))


def _timeline(job: PredictionJob, source: Source) -> list[Shown]:
    """The answers over time to a video that has one answer as a whole."""
    from toolkit.serving.predict.answers import answer_all
    from toolkit.serving.predict.reading import read_windows

    clip = job.bundle.manifest.sampling
    every = getattr(clip, "span", 2 * EVERY) / 2
    windows = read_windows(job, source, every, threading.Event())
    found = answer_all(windows, job.predict, job.average, batch=job.batch)
    shown = [
        Shown(answer.source.moment, answer.probabilities)
        for answer in found
        if answer.source.moment is not None and answer.probabilities is not None
    ]
    if not shown:
        raise DataError(f"{printable(source.name)}: too short to draw answers on")
    return shown


def _is_file(source: Source) -> bool:
    return source.kind in ("image", "video") and not source.remote
