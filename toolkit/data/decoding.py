"""The frames of a video that are wanted, by PyAV, as they are shown. No torch here, and no audio."""

from __future__ import annotations

import math
import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from av.error import FFmpegError, InvalidDataError

from toolkit.api.errors import DataError
from toolkit.data.damage import Damage, is_heard, notice
from toolkit.data.display import shown_size, upright
from toolkit.data.kinds import image_format
from toolkit.data.opening import FILE, Video, moving_pictures, open_video, packets
from toolkit.data.timeline import Clock, Timeline, read_timeline

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WORTH_A_SEEK = 8
"""Frames that a seek must leap over: fewer take as long to decode as a decoder takes to restart."""
_EXAMINED = 256
"""Damaged videos whose damage is remembered: to count it again takes as long as decoding them."""


class _MissedError(Exception):
    """A seek led behind the frame that was wanted, or nowhere."""


def timeline(video: Path | Video) -> Timeline:
    """Read when the frames of a video are shown, as `read_timeline` does. Raises DataError naming the video when it
    cannot be opened, or has no video stream or no frames."""
    video = _File(video) if isinstance(video, Path) else video
    with video.opened() as (container, stream):
        found = read_timeline(container, stream)
        if found is None:
            raise video.broken("has no frames")
        return found


def read_frames(
    video: Path | Video,
    timeline: Timeline,
    numbers: Sequence[int],
    *,
    threads: int = 1,
    stop: threading.Event | None = None,
) -> Iterator[NDArray[np.uint8]]:
    """The frames with these numbers (ascending, each once), uint8 `[H, W, 3]`, as they are shown: turned and mirrored
    upright, with square pixels. Each comes when it is decoded.

    All have the size that the stream says it has at its start; a frame of another size is scaled. In place of a frame
    that cannot be decoded comes the last one before it that can, or at the start the first one. Where a keyframe lies
    between what is wanted, decoding leaps to it. Ends early once `stop` is set. Damage that decoding meets is counted
    in the whole video, and noticed, if anyone hears of it. Raises DataError naming the video when it cannot be opened
    or none of its frames can be decoded.

    threads: how many convert a frame to RGB. One decodes: what several make of damage depends on which of them is
    ahead.
    """
    video = _File(video) if isinstance(video, Path) else video
    stop = stop or threading.Event()
    given = 0
    try:
        for pixels in _read(video, timeline, numbers, threads, stop, seeking=True):
            yield pixels
            given += 1
    except _MissedError:
        yield from _read(video, timeline, numbers[given:], threads, stop, seeking=False)


@lru_cache(_EXAMINED)
def examined(video: Video, timeline: Timeline) -> Damage:
    """How many frames of a video cannot be decoded without errors: all of it is decoded."""
    with video.opened() as (container, stream):
        stream.codec_context.thread_count = 1
        decoded = _decoded(container, stream, timeline, threading.Event())
        return _damage(timeline, sum(picture is None or picture.is_corrupt for picture in decoded))


def _damage(timeline: Timeline, failed: int) -> Damage:
    total = len(timeline.times) + timeline.lost
    return Damage(min(failed + timeline.lost, total), total)


def _read(
    video: Video, timeline: Timeline, numbers: Sequence[int], threads: int, stop: threading.Event, *, seeking: bool
) -> Iterator[NDArray[np.uint8]]:
    if not numbers:
        return
    with video.opened() as (container, stream):
        context = stream.codec_context
        context.thread_count = 1
        size = shown_size(context.width, context.height, stream.sample_aspect_ratio)
        decoding = _Decoding(container, stream, timeline, stop, seeking=seeking)
        for number in numbers:
            frame = decoding.frame_at(number)
            if stop.is_set():
                return
            if frame is None:
                raise video.broken("none of its frames can be decoded")
            if number == numbers[-1] and is_heard() and (decoding.failed or timeline.lost):  # few ask beyond the last
                whole = len(numbers) == len(timeline.times)
                notice(_damage(timeline, decoding.failed) if whole else examined(video, timeline))
            yield upright(frame, size, threads=threads)


class _Numbered(NamedTuple):
    number: float
    """Infinite for what comes after the last."""
    picture: Any


_END = _Numbered(math.inf, None)


class _Decoding:
    """An opened video, decoded forwards."""

    def __init__(
        self, container: Any, stream: Any, timeline: Timeline, stop: threading.Event, *, seeking: bool
    ) -> None:
        self._container, self._stream, self._stop = container, stream, stop
        self._timeline, self._stamps = timeline, timeline.stamps
        self._keyframes = timeline.keyframes if seeking and timeline.stamps else ()
        self._held: _Numbered | None = None
        self._coming: _Numbered | None = None
        self._leapt = False
        self.failed = 0
        """Frames that could not be decoded so far, or not without errors."""
        self._begin(0)

    def frame_at(self, number: int) -> Any:
        """The frame with this number, or what replaces it; None when nothing does. `number` rises from call to
        call. Raises _MissedError when the last leap went too far."""
        self._leap(number)
        while self._held is None or self._held.number < number:
            coming = self._coming or next(self._frames, _END)
            if coming.number > number:
                self._coming = coming
                break
            self._held, self._coming = coming, None
        if self._held is None and self._leapt:
            raise _MissedError
        return (self._held or self._coming or _END).picture

    def _leap(self, number: int) -> None:
        """Go to the last keyframe up to `number` where that is well ahead."""
        place = bisect_right(self._keyframes, number) - 1
        if place < 0 or self._keyframes[place] - self._reached < _WORTH_A_SEEK:
            return
        self._seek(self._keyframes[place])
        self._leapt = True
        self._begin(self._keyframes[place])

    def _seek(self, keyframe: int) -> None:
        try:
            self._container.seek(self._stamps[keyframe], stream=self._stream)
        except FFmpegError as error:
            raise _MissedError from error

    def _begin(self, number: int) -> None:
        self._reached = number - 1
        self._held = self._coming = None
        self._frames = self._numbered()

    def _numbered(self) -> Iterator[_Numbered]:
        """The frames to come. A stamp gives the number; without one, each is the next, decoded or not."""
        for picture in _decoded(self._container, self._stream, self._timeline, self._stop):
            self.failed += picture is None or picture.is_corrupt
            stamp = picture.pts if picture is not None and self._stamps else None
            self._reached = self._reached + 1 if stamp is None else bisect_right(self._stamps, stamp) - 1
            if picture is not None:
                yield _Numbered(self._reached, picture)


def _decoded(container: Any, stream: Any, timeline: Timeline, stop: threading.Event) -> Iterator[Any]:
    """The frames of a stream from where it stands, with the stamps of `timeline`; None for a packet that cannot be
    decoded."""
    coming, repairs = packets(container, stream), container.format.name == "mpegts"
    if len(timeline.shifts) > 1:
        coming = _shifted(coming, Clock(stream), timeline.shifts)
    try:
        for packet in coming:
            if stop.is_set():
                return
            if packet.is_corrupt and not repairs:  # cut: decoders make a frame of it and of what lies in memory
                yield None
                continue
            try:
                yield from packet.decode()
            except FFmpegError:
                yield None
    except InvalidDataError:
        pass
    with suppress(FFmpegError):  # what the decoder holds back, unless the empty packet has fetched it
        yield from stream.decode(None)


def _shifted(packets: Iterable[Any], clock: Clock, shifts: Sequence[int]) -> Iterator[Any]:
    """The packets, with those of later recordings moved in time."""
    for packet in packets:
        clock.take(packet.dts, key=packet.is_keyframe)
        shift = shifts[min(clock.part, len(shifts) - 1)]
        packet.pts, packet.dts = (None if time is None else time + shift for time in (packet.pts, packet.dts))
        yield packet


@dataclass(frozen=True)
class _File:
    path: Path

    @contextmanager
    def opened(self) -> Iterator[tuple[Any, Any]]:
        if not self.path.is_file():
            raise self.broken("not a file" if self.path.exists() else "does not exist")
        try:
            if name := image_format(self.path):
                raise self.broken(f"cannot be decoded: it is an image ({name}), not a video")
            # "file:", so that a name with a colon is not a protocol; no other, so that a playlist fetches nothing.
            with open_video(f"file:{self.path}", FILE) as container:
                yield container, moving_pictures(container, self)
        except (FFmpegError, OSError) as error:
            raise self.broken(f"cannot be decoded: {error.strerror or error}") from error

    def broken(self, message: str) -> DataError:
        next_step = 'Replace or remove the file, or set input.on_corrupt = "skip".'
        return DataError(message, path=self.path, next_step=next_step)
