"""Files that a request brings, as what a model sees: pictures, and the views and moments of videos."""

from __future__ import annotations

import asyncio
import base64
import io
import math
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from toolkit.api.clips import duration
from toolkit.api.errors import DataError, counted, printable
from toolkit.data.kinds import LOOKED_AT, VIDEO_SUFFIXES, format_of, kind_of, suffix_of
from toolkit.data.pixels import UndecodableError, decode_pixels
from toolkit.serving.bundle.views import average_views
from toolkit.serving.predict.inputs import Source, settled
from toolkit.serving.predict.job import PredictionJob
from toolkit.serving.server.listing import MOST_FILES
from toolkit.serving.server.models import Served
from toolkit.serving.server.refusals import TOO_LARGE, UNREADABLE, Refused
from toolkit.serving.server.settings import Limits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")
MOST_MOMENTS = 1000
"""Moments of one video."""
THUMBNAIL = 96
"""Side, in pixels, of the small pictures of an answer."""
_QUALITY = 80


@dataclass(frozen=True)
class Upload:
    """One file of a request."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Answering:
    """How the files of one request are answered."""

    served: Served
    limits: Limits
    pool: Executor
    """Threads that decode."""
    top: int = 3
    """Classes of each answer."""
    every: float | None = None
    """Seconds between the moments of a video; None: none are wanted, only the answer to the whole."""
    pictures: bool = False
    """Whether answers have small pictures."""
    maps: bool = False
    """Whether answers to images have heat maps."""

    async def answer(self, upload: Upload) -> dict[str, Any]:
        """The answer to one file, as the response has it. Raises Refused for a file that cannot be answered, DataError
        where the model's answers have no meaning."""
        if _is_still(upload.data):
            return await self._image(upload)
        with await self._in_pool(_kept, upload) as path:
            return await self._file(upload, path)

    async def _image(self, upload: Upload) -> dict[str, Any]:
        if self.served.bundle.manifest.clip is not None:
            raise Refused(UNREADABLE, "an image, but this model takes video clips")
        square, size = await self._in_pool(self._square, upload.data)
        row = await self.served.batcher.ask([square])
        found = self._described(row)
        maps = {"maps": await self._in_pool(self._maps, square, size, row[0])} if self.maps else {}
        return {"kind": "image", **found, **self._picture(square), **maps}

    def _square(self, data: bytes) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        """What the model gets of a picture, and the height and width of that."""
        try:
            pixels = decode_pixels(data, largest=self.limits.pixels)
        except UndecodableError as error:
            raise Refused(UNREADABLE, f"cannot be decoded: {error}") from error
        return self.served.bundle.square(pixels), pixels.shape[:2]

    def _maps(self, square: NDArray[np.uint8], size: tuple[int, int], row: NDArray[np.float32]) -> dict[str, Any]:
        """Heat maps of the `top` likeliest classes, or of all numbers, and the part of the picture that they cover."""
        bundle = self.served.bundle
        manifest, maps = bundle.manifest, bundle.maps(square[None])[0].astype(float).round(3).tolist()
        count = len(manifest.classes)
        order = (
            range(count) if manifest.form == "number" else (-row[:count]).argsort(kind="stable")[: self.top].tolist()
        )
        places = dict(zip(("left", "top", "width", "height"), bundle.seen(*size), strict=True))
        about = manifest.maps
        return {
            "method": "" if about is None else about.method,
            **places,
            "of": [{"name": manifest.classes[number], "values": maps[number]} for number in order],
        }

    async def _file(self, upload: Upload, path: Path) -> dict[str, Any]:
        try:
            kind = kind_of(path) or "image"
            (source,) = settled([Source(printable(upload.name), kind, str(path))], moving=self._takes_clips)
            if source.kind == "image":
                return await self._image(upload)
            return await self._video(source)
        except DataError as error:
            raise Refused(UNREADABLE, error.message.replace(str(path), printable(upload.name))) from error

    @property
    def _takes_clips(self) -> bool:
        return self.served.bundle.manifest.clip is not None

    async def _video(self, source: Source) -> dict[str, Any]:
        from toolkit.serving.predict.reading import reader

        length = await self._in_pool(self._length, source)
        job = PredictionJob(
            self.served.bundle, [source], None, False, None, None, None, self.top, self.served.batcher.batch, None
        )
        views = await self._in_pool(reader(job, 1), source, threading.Event())
        answers = await self.served.batcher.ask(views)
        found = {"kind": "video", "seconds": round(length, 3), **self._described(answers), **self._picture(views[0])}
        if self.every is not None:
            found["moments"] = [moment async for moment in self._moments(job, source, length, self.every)]
        if notes := [*job.damages.lines()]:
            found["notes"] = notes
        return found

    def _length(self, source: Source) -> float:
        """Seconds of a video. Raises Refused where these, its frames or its moments are too many."""
        from toolkit.serving.predict.sources import read_frames, timeline

        line = timeline(source)
        height, width, _ = next(read_frames(source, line, [0], threads=1, stop=threading.Event())).shape
        if width * height > self.limits.pixels:
            raise Refused(TOO_LARGE, f"frames of {width} x {height} pixels; the limit is {self.limits.pixels:,} pixels")
        length = duration(line.times)
        if length > self.limits.seconds:
            raise Refused(TOO_LARGE, f"a video of {length:,.0f} s; the limit is {self.limits.seconds:g} s")
        if self.every is not None and length / self.every > MOST_MOMENTS:
            least = math.ceil(10 * length / MOST_MOMENTS) / 10
            raise Refused(TOO_LARGE, f"every: at least {least:g} for this video, got {self.every:g}")
        return length

    async def _moments(
        self, job: PredictionJob, source: Source, length: float, every: float
    ) -> AsyncIterator[dict[str, Any]]:
        """The answers over time; no more windows are held than make one batch."""
        from toolkit.serving.predict.reading import read_windows

        windows = read_windows(job, source, every, threading.Event())
        while chunk := await self._in_pool(lambda: [*islice(windows, self.served.batcher.batch)]):
            for moment, parts in chunk:
                if isinstance(parts, DataError) or moment.moment is None:
                    continue
                start, end = moment.moment
                shown = {"start": round(start, 3), "end": round(min(end, length), 3)}
                yield {**shown, **self._described(await self.served.batcher.ask(parts)), **self._picture(parts[0])}

    def _described(self, answers: NDArray[np.float32]) -> dict[str, Any]:
        return described(self.served, answers, self.top)

    def _picture(self, view: NDArray[np.uint8]) -> dict[str, str]:
        """What the model saw, in its middle, small."""
        if not self.pictures:
            return {}
        from PIL import Image

        frame = view if view.ndim == 3 else view[len(view) // 2]
        picture = Image.fromarray(frame)
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=_QUALITY)
        return {"picture": f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"}

    async def _in_pool(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.pool, work, *arguments)


def described(served: Served, answers: NDArray[np.float32], top: int) -> dict[str, Any]:
    """The answer that the rows of several views are together, as `predict` averages them. Raises DataError where
    they have no meaning."""
    served.layout.check(answers)
    manifest = served.bundle.manifest
    clip = manifest.clip
    average = "probabilities" if clip is None else clip.average
    row = average_views(answers, average, manifest.form, scores=manifest.trust.score_columns)
    return described_row(served, row, top)


def described_row(served: Served, row: NDArray[np.float32], top: int) -> dict[str, Any]:
    """One answer, `[C]` with the score behind it where there is one, as a response has it."""
    bundle, manifest = served.bundle, served.bundle.manifest
    if manifest.form == "number":
        named = zip(manifest.classes, row.tolist(), strict=True)
        return {"values": [{"output": name, "value": value} for name, value in named]}
    answer = bundle.answers(row[None])
    likeliest = [{"class": name, "probability": value} for name, value in answer.top(top)[0]]
    declined = {} if manifest.trust.reject is None else {"declined": answer.declined[0]}
    plausible = {} if answer.plausible is None else {"plausible": [*answer.plausible[0]]}
    return {"prediction": [*answer.sets[0]], "classes": likeliest, **declined, **plausible}


async def answer_all(answering: Answering, uploads: Sequence[Upload]) -> list[dict[str, Any]]:
    """An answer or an error for each file, in their order. Raises Refused where none can be answered, with the reason
    of the first, and where the server is busy."""
    if not 0 < len(uploads) <= MOST_FILES:
        raise Refused(UNREADABLE, f"expected 1 to {MOST_FILES} files, got {len(uploads)}")
    with answering.served.batcher.admit(len(uploads)):
        found = await _each(answering, uploads)
    refusals = [Refused(one.status, f"{name}: {one.message}") for name, one in found if isinstance(one, Refused)]
    if len(refusals) == len(found):
        first, others = refusals[0], len(refusals) - 1
        more = f" (and {counted(others, 'more file')})" if others else ""
        raise Refused(first.status, first.message + more)
    return [{"name": name, **({"error": one.message} if isinstance(one, Refused) else one)} for name, one in found]


async def _each(answering: Answering, uploads: Sequence[Upload]) -> list[tuple[str, dict[str, Any] | Refused]]:
    """The name of each file, with its answer or the reason why not. Pictures share batches; videos, of which each may
    need much memory, are answered one after the other."""

    async def tried(upload: Upload) -> dict[str, Any] | Refused:
        try:
            return await answering.answer(upload)
        except Refused as refused:
            return refused

    pictures = iter(await asyncio.gather(*(tried(one) for one in uploads if _is_still(one.data))))
    return [(printable(one.name), next(pictures) if _is_still(one.data) else await tried(one)) for one in uploads]


def _is_still(data: bytes) -> bool:
    """Whether a file can only be one picture, or nothing that is known. A GIF may move."""
    form = format_of(data[:LOOKED_AT])
    return form is None or (form.kind != "video" and form.name != "GIF")


def _kept(upload: Upload) -> _Kept:
    suffix = suffix_of(upload.name)
    return _Kept(upload.data, suffix if suffix in VIDEO_SUFFIXES else "")


class _Kept:
    """A file of the system's temporary folder with these bytes, which FFmpeg can seek in; gone after the block."""

    def __init__(self, data: bytes, suffix: str) -> None:
        self._file = tempfile.NamedTemporaryFile(prefix="toolkit-", suffix=suffix)  # noqa: SIM115 (its block ends it)
        self._file.write(data)
        self._file.flush()

    def __enter__(self) -> Path:
        return Path(self._file.name)

    def __exit__(self, *error: object) -> None:
        self._file.close()
