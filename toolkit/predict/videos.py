"""Frames of videos, cameras and streams, by PyAV. Audio is never decoded.

Files are read by `toolkit.frames`; here is what lies behind a URL or a camera.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from av.error import FFmpegError

from toolkit import frames
from toolkit.errors import DataError, ToolkitError
from toolkit.frames import Timeline
from toolkit.predict.inputs import Source, printable

if TYPE_CHECKING:
    from numpy.typing import NDArray

OPENING_SECONDS, READING_SECONDS = 10.0, 10.0
"""How long a URL may stay silent before it counts as gone."""
LEAP_SECONDS = 60.0
"""From one frame of a source to the next, by its clock: more is no time that has passed."""


@dataclass(frozen=True)
class LiveFrame:
    """A frame of a camera or stream."""

    seconds: float
    """Since the first frame, by the source's clock where it has one."""
    pixels: Callable[[], NDArray[np.uint8]]
    """Makes uint8 `[H, W, 3]`, upright."""


def timeline(source: Source) -> Timeline:
    """When the frames of a video are shown. Raises DataError naming it when it cannot be opened or has no frames."""
    if not is_remote(source):
        return frames.timeline(Path(source.place))
    with opened(source) as (container, stream):
        stamps = sorted(packet.pts for packet in container.demux(stream) if packet.size and packet.pts is not None)
        if not stamps:
            raise DataError(f"{printable(source.name)}: has no frames that say when they are shown")
        return Timeline(tuple(float((stamp - stamps[0]) * stream.time_base) for stamp in stamps), (0,))


def read_frames(
    source: Source, line: Timeline, numbers: Sequence[int], *, threads: int, stop: threading.Event
) -> Iterator[NDArray[np.uint8]]:
    """The frames with these numbers (ascending, each once), uint8 `[H, W, 3]`, upright. Ends early once `stop` is set.
    Raises DataError naming the video when it cannot be decoded."""
    if is_remote(source):
        return _read_remote(source, numbers, threads, stop)
    return frames.read_frames(Path(source.place), line, numbers, threads=threads, stop=stop)


def live_frames(source: Source, now: Callable[[], float]) -> Generator[LiveFrame, None, None]:
    """The frames of a camera or stream as they come. A source without a clock is timed by `now`; where its clock goes
    back, or leaps by more than `LEAP_SECONDS`, time goes on. Raises DataError when the source cannot be opened or is
    lost."""
    with opened(source) as (container, stream):
        ahead = latest = 0.0
        for number, frame in enumerate(container.decode(stream)):
            time = now() if frame.time is None else frame.time
            if number == 0 or not 0 <= time + ahead - latest <= LEAP_SECONDS:
                ahead = latest - time
            latest = time + ahead
            yield LiveFrame(latest, lambda frame=frame: upright(frame))  # type: ignore[misc]


def upright(frame: Any) -> NDArray[np.uint8]:
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))


def is_remote(source: Source) -> bool:
    return "://" in source.place and not Path(source.place).exists()


@contextmanager
def opened(source: Source) -> Iterator[tuple[Any, Any]]:
    """A container of PyAV and its video stream. Raises DataError naming the source for all that goes wrong inside."""
    try:
        container = _open(source)
    except (FFmpegError, OSError) as error:
        raise _unopened(source, error) from error
    with container:
        if not container.streams.video:
            raise DataError(f"{printable(source.name)}: has no video stream")
        try:
            yield container, container.streams.video[0]
        except (FFmpegError, OSError) as error:
            raise _undecodable(source, error) from error


def _read_remote(
    source: Source, numbers: Sequence[int], threads: int, stop: threading.Event
) -> Iterator[NDArray[np.uint8]]:
    wanted = iter(numbers)
    following = next(wanted, None)
    with opened(source) as (container, stream):
        stream.codec_context.thread_count = threads
        for number, frame in enumerate(container.decode(stream)):
            if following is None or stop.is_set():
                return
            if number == following:
                yield upright(frame)
                following = next(wanted, None)


def _open(source: Source) -> Any:
    if source.kind == "camera":
        return av.open(_camera(source), format="v4l2")
    if is_remote(source):
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
