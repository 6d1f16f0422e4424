"""Frames of videos, cameras and streams, by PyAV. Audio is never decoded."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from av.error import FFmpegError

from toolkit.errors import DataError, ToolkitError
from toolkit.predict.inputs import Source, printable

if TYPE_CHECKING:
    from numpy.typing import NDArray

OPENING_SECONDS, READING_SECONDS = 10.0, 10.0
"""How long a URL may stay silent before it counts as gone."""


@dataclass(frozen=True)
class LiveFrame:
    """A frame of a camera or stream."""

    pixels: NDArray[np.uint8]
    """uint8 `[H, W, 3]`."""
    seconds: float
    """Since the first frame, by the source's clock where it has one."""


def sample_frames(source: Source, frames: int, *, threads: int, stop: threading.Event) -> Iterator[NDArray[np.uint8]]:
    """`frames` frames, uint8 `[H, W, 3]`, from the middles of as many equal parts of a video, turned upright.

    A shorter video gives all its frames. Ends early once `stop` is set. Raises DataError naming the video when it
    cannot be decoded or has no frames.
    """
    try:
        total = _count_frames(source, stop)
        if not total and not stop.is_set():
            raise DataError(f"{printable(source.name)}: has no frames")
        yield from _frames_at(source, middles(total, frames), threads, stop)
    except (FFmpegError, OSError) as error:
        raise _undecodable(source, error) from error


def middles(total: int, wanted: int) -> list[int]:
    """Numbers of the frames in the middle of `wanted` equal parts of `total` frames; all when there are fewer."""
    if total <= wanted:
        return list(range(total))
    return [(2 * part + 1) * total // (2 * wanted) for part in range(wanted)]


def live_frames(source: Source) -> Generator[LiveFrame, None, None]:
    """The frames of a camera or stream as they come: always the newest, those that come while one is in use are lost.

    Holds one frame at a time. Raises DataError when the source cannot be opened, or is lost.
    """
    with _opened(source) as container:
        stream = _video_stream(container, source)
        newest = _Newest()
        reader = threading.Thread(target=_read_into, args=(newest, container, stream), name="frames", daemon=True)
        reader.start()
        try:
            while (arrived := newest.take()) is not None:
                frame, seconds = arrived
                yield LiveFrame(_upright(frame), seconds)
        except (FFmpegError, OSError) as error:
            raise _undecodable(source, error) from error
        finally:
            newest.close()
            reader.join(READING_SECONDS + 1)


class _Newest:
    """Room for one frame, between the thread that reads and the one that takes."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frame: tuple[Any, float] | None = None
        self._error: BaseException | None = None
        self._start: float | None = None
        self.closed = False

    def put(self, frame: Any) -> None:
        now = time.monotonic() if frame.time is None else frame.time
        with self._changed:
            self._start = now if self._start is None else self._start
            self._frame = (frame, now - self._start)
            self._changed.notify()

    def close(self, error: BaseException | None = None) -> None:
        with self._changed:
            self.closed, self._error = True, error
            self._changed.notify()

    def take(self) -> tuple[Any, float] | None:
        """Wait for the newest frame and its seconds since the first; None after the last. Raises the reader's error."""
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None or self.closed)
            frame, self._frame = self._frame, None
        if frame is None and self._error is not None:
            raise self._error
        return frame


def _read_into(newest: _Newest, container: Any, stream: Any) -> None:
    try:
        for frame in container.decode(stream):
            newest.put(frame)
            if newest.closed:
                return
    except BaseException as error:
        newest.close(error)
    else:
        newest.close()


def _count_frames(source: Source, stop: threading.Event) -> int:
    """By reading packets, not decoding them: what a container claims of itself is often wrong or absent."""
    with _opened(source) as container:
        total = 0
        for packet in container.demux(_video_stream(container, source)):
            if stop.is_set():
                break
            total += packet.size > 0
        return total


def _frames_at(
    source: Source, numbers: Sequence[int], threads: int, stop: threading.Event
) -> Iterator[NDArray[np.uint8]]:
    wanted = iter(numbers)
    following = next(wanted, None)
    with _opened(source) as container:
        stream = _video_stream(container, source)
        stream.codec_context.thread_count = threads
        for number, frame in enumerate(container.decode(stream)):
            if following is None or stop.is_set():
                return
            if number == following:
                yield _upright(frame)
                following = next(wanted, None)


def _upright(frame: Any) -> NDArray[np.uint8]:
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))


def _video_stream(container: Any, source: Source) -> Any:
    if not container.streams.video:
        raise DataError(f"{printable(source.name)}: has no video stream")
    return container.streams.video[0]


@contextmanager
def _opened(source: Source) -> Iterator[Any]:
    """A container of PyAV."""
    try:
        container = _open(source)
    except (FFmpegError, OSError) as error:
        raise _unopened(source, error) from error
    with container:
        yield container


def _open(source: Source) -> Any:
    if source.kind == "camera":
        return av.open(_camera(source), format="v4l2")
    if "://" in source.place and not Path(source.place).exists():
        options = {"rtsp_transport": "tcp"} if source.place.lower().startswith("rtsp") else {}
        return av.open(source.place, options=options, timeout=(OPENING_SECONDS, READING_SECONDS))
    return av.open(f"file:{source.place}")  # so that a name with a colon is no protocol to FFmpeg


def _camera(source: Source) -> str:
    """The device file of a camera. Raises DataError naming what is missing."""
    if sys.platform != "linux":
        raise DataError(
            f"{source.name}: cameras are read through Video4Linux, which {sys.platform} does not have",
            next_step="give the camera's rtsp or http URL",
        )
    device = Path(f"/dev/video{source.place}")
    if not device.exists():
        there = sorted(path.name.removeprefix("video") for path in device.parent.glob("video[0-9]*"))
        raise DataError(
            f"{source.name}: there is no {device}",
            next_step=f"use one that is there: {', '.join(there)}"
            if there
            else "connect a camera, or give a file or URL",
        )
    return str(device)


def _unopened(source: Source, error: OSError | FFmpegError) -> ToolkitError:
    if source.kind == "camera":
        return DataError(
            f"{source.name}: cannot be opened: {error.strerror}",
            next_step=f"end what else uses it, and see that you may read /dev/video{source.place}",
        )
    if source.kind == "stream":
        return DataError(
            f"{printable(source.name)}: cannot be opened: {error.strerror}",
            next_step="see that the address is right and reachable",
        )
    return _undecodable(source, error)


def _undecodable(source: Source, error: OSError | FFmpegError) -> DataError:
    return DataError(f"{printable(source.name)}: cannot be decoded: {error.strerror or error}")
