"""The frames of a video, by PyAV: when they are shown, and those that are wanted. No torch here, and no audio."""

from __future__ import annotations

import math
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from av.error import FFmpegError, InvalidDataError

from toolkit.api.errors import DataError
from toolkit.data.kinds import image_format
from toolkit.data.opening import FILE, Video, moving_pictures, open_video

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FPS_UNSAID = 30.0
"""Frames per second of a file that has neither times nor durations."""

_WORTH_A_SEEK = 8
"""Frames that a seek must leap over: fewer take as long to decode as a decoder takes to restart."""

_WRITES_PRESENTATION_TIMES = ("mov", "matroska", "mpegts", "flv")
"""Containers, by the start of their names in FFmpeg, that say of each frame when it is shown. For others the demuxer
derives it from the order of decoding, and guesses wrong where frames are reordered (AVI with packed B-frames)."""


@dataclass(frozen=True)
class Timeline:
    """When the F >= 1 frames of a video are shown, in that order."""

    times: tuple[float, ...]
    """F moments in seconds from the first frame, ascending."""
    keyframes: tuple[int, ...]
    """Numbers of the frames at which decoding can start."""
    stamps: tuple[int, ...] = ()
    """The moments as the file writes them, in the time base of its stream: by these a frame is found after a seek.
    Empty where they cannot be relied on: such a file is decoded from its start, and its frames are counted."""


class _Packet(NamedTuple):
    pts: int | None
    dts: int | None
    duration: int
    key: bool


class _MissedError(Exception):
    """A seek led behind the frame that was wanted, or nowhere."""


def timeline(video: Path | Video) -> Timeline:
    """Read when the frames of a video are shown, without decoding them.

    What a container claims of itself is not asked, only its packets: a file cut short has the frames that are left.
    Where their times do not ascend, their durations are summed; where those are missing too, it is 30 frames a second.
    Raises DataError naming the video when it cannot be opened, or has no video stream or no frames.
    """
    video = _File(video) if isinstance(video, Path) else video
    with video.opened() as (container, stream):
        packets = list(_packets(container, stream))
        if not packets:
            raise video.broken("has no frames")
        stored = container.format.name.startswith(_WRITES_PRESENTATION_TIMES)
        return _timeline(packets, float(stream.time_base), stored=stored)


def read_frames(
    video: Path | Video,
    timeline: Timeline,
    numbers: Sequence[int],
    *,
    threads: int = 1,
    stop: threading.Event | None = None,
) -> Iterator[NDArray[np.uint8]]:
    """The frames with these numbers (ascending, each once), uint8 `[H, W, 3]`, turned upright, each when it is decoded.

    All have the size that the stream says it has at its start; a frame of another size is scaled. In place of a frame
    that cannot be decoded comes the last one before it that can, or at the start the first one. Where a keyframe lies
    between what is wanted, decoding leaps to it. Ends early once `stop` is set. Raises DataError naming the video
    when it cannot be opened or none of its frames can be decoded.
    """
    video = _File(video) if isinstance(video, Path) else video
    given = 0
    try:
        for pixels in _read(video, timeline, numbers, threads, stop, seeking=True):
            yield pixels
            given += 1
    except _MissedError:
        yield from _read(video, timeline, numbers[given:], threads, stop, seeking=False)


def _timeline(packets: Sequence[_Packet], unit: float, *, stored: bool) -> Timeline:
    """`unit`: seconds of a tick; `stored`: whether the container writes when a frame is shown."""
    shown, read = (_ascending(times) for times in zip(*((one.pts, one.dts) for one in packets), strict=True))
    if shown and (stored or all(one.pts == one.dts for one in packets)):
        keys = {one.pts for one in packets if one.key}
        keyframes = tuple(number for number, stamp in enumerate(shown) if stamp in keys)
        return Timeline(_seconds(shown, unit), keyframes, tuple(shown))
    if (counted := shown or read) is not None:
        return Timeline(_seconds(counted, unit), (0,))
    if all(one.duration > 0 for one in packets):
        return Timeline(_seconds([0, *accumulate(one.duration for one in packets[:-1])], unit), (0,))
    return Timeline(_seconds(range(len(packets)), 1 / _FPS_UNSAID), (0,))


def _ascending(times: Sequence[int | None]) -> list[int] | None:
    """The times in order; None where one is missing or stands twice."""
    known = sorted(time for time in set(times) if time is not None)
    return known if len(known) == len(times) else None


def _seconds(ticks: Sequence[int], unit: float) -> tuple[float, ...]:
    return tuple((tick - ticks[0]) * unit for tick in ticks)


def _packets(container: Any, stream: Any) -> Iterator[_Packet]:
    """The packets of the frames that are shown, in the order of decoding, up to where the file is damaged."""
    try:
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                yield _Packet(packet.pts, packet.dts, packet.duration or 0, packet.is_keyframe)
    except InvalidDataError:
        return


def _read(
    video: Video,
    timeline: Timeline,
    numbers: Sequence[int],
    threads: int,
    stop: threading.Event | None,
    *,
    seeking: bool,
) -> Iterator[NDArray[np.uint8]]:
    if not numbers:
        return
    with video.opened() as (container, stream):
        stream.codec_context.thread_count = threads
        stream.codec_context.thread_type = "AUTO"
        width, height = stream.codec_context.width, stream.codec_context.height
        stop = stop or threading.Event()
        decoding = _Decoding(container, stream, timeline, stop, seeking=seeking)
        for number in numbers:
            frame = decoding.frame_at(number)
            if stop.is_set():
                return
            if frame is None:
                raise video.broken("none of its frames can be decoded")
            yield upright(frame, width=width, height=height, threads=threads)


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
        self._stamps = timeline.stamps
        self._keyframes = timeline.keyframes if seeking and timeline.stamps else ()
        self._held: _Numbered | None = None
        self._coming: _Numbered | None = None
        self._leapt = False
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
        for picture in _decoded(self._container, self._stream, self._stop):
            stamp = picture.pts if picture is not None and self._stamps else None
            self._reached = self._reached + 1 if stamp is None else bisect_right(self._stamps, stamp) - 1
            if picture is not None:
                yield _Numbered(self._reached, picture)


def _decoded(container: Any, stream: Any, stop: threading.Event) -> Iterator[Any]:
    """The frames of a stream from where it stands; None for a packet that cannot be decoded."""
    try:
        for packet in container.demux(stream):
            if stop.is_set():
                return
            try:
                yield from packet.decode()
            except FFmpegError:
                yield None
    except InvalidDataError:
        return


def upright(frame: Any, **options: int) -> NDArray[np.uint8]:
    """A frame of PyAV as uint8 `[H, W, 3]`, turned as its metadata says; `options` are those of its `to_ndarray`."""
    import numpy as np

    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24", **options), round(frame.rotation / 90)))


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
