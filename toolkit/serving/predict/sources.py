"""Frames of videos, cameras and streams, by PyAV. Audio is never decoded.

Videos are read by `toolkit.data.decoding`, wherever they lie; here is how a URL or a camera is opened, and what has no
end.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from av.error import FFmpegError, InvalidDataError

from toolkit.api.errors import DataError
from toolkit.data import decoding as frames
from toolkit.data.damage import Damage, notice
from toolkit.data.display import shown_size, upright
from toolkit.data.opening import FILE, RTSP, WEB, moving_pictures, open_video, packets
from toolkit.data.timeline import Timeline
from toolkit.serving.predict.inputs import Source, printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OPENING_SECONDS, READING_SECONDS = 10.0, 10.0
"""How long a URL may stay silent before it counts as gone."""
LEAP_SECONDS = 60.0
"""From one frame of a source to the next, by its clock; a longer gap is a jump of the clock."""
DAMAGED_IN_A_ROW = 1000
"""Packets that cannot be decoded, one after the other, before a source counts as broken: many more than a stream sends
from where it was joined to its next keyframe."""


@dataclass(frozen=True)
class LiveFrame:
    """A frame of a camera or stream."""

    seconds: float
    """Since the first frame, by the source's clock where it has one."""
    pixels: Callable[[], NDArray[np.uint8]]
    """Makes uint8 `[H, W, 3]`, upright."""


def timeline(source: Source) -> Timeline:
    """When the frames of a video are shown. Raises DataError naming it when it cannot be opened or has no frames."""
    return frames.timeline(Remote(source) if is_remote(source) else Path(source.place))


def read_frames(
    source: Source, line: Timeline, numbers: Sequence[int], *, threads: int, stop: threading.Event
) -> Iterator[NDArray[np.uint8]]:
    """As `toolkit.data.decoding.read_frames`, which a video behind a URL is read by as a file is."""
    video = Remote(source) if is_remote(source) else Path(source.place)
    return frames.read_frames(video, line, numbers, threads=threads, stop=stop)


def live_frames(source: Source, now: Callable[[], float]) -> Generator[LiveFrame, None, None]:
    """The frames of a camera or stream as they come. A source without a clock is timed by `now`; where its clock goes
    back, or leaps by more than `LEAP_SECONDS`, time goes on. Frames that cannot be decoded are passed over. Raises
    DataError when the source cannot be opened or is lost, or none of its frames can be decoded."""
    with Remote(source).opened() as (container, stream):
        ahead: float | None = None
        latest = 0.0
        for frame in _heard(_decoded(container, stream)):
            if frame is None:
                continue
            time = now() if frame.time is None else frame.time
            if ahead is None or not 0 <= time + ahead - latest <= LEAP_SECONDS:
                ahead = latest - time
            latest = time + ahead
            size = shown_size(frame.width, frame.height, stream.sample_aspect_ratio)
            yield LiveFrame(latest, partial(upright, frame, size))
        if ahead is None:
            raise DataError(f"{printable(source.name)}: none of its frames can be decoded")


@dataclass(frozen=True)
class Remote:
    """A camera, a stream, or a video behind a URL."""

    source: Source

    @contextmanager
    def opened(self) -> Iterator[tuple[Any, Any]]:
        """A container of PyAV and its video stream. Raises DataError naming the source for all that goes wrong."""
        place, timeout = self.source.place, (OPENING_SECONDS, READING_SECONDS)
        try:
            if self.source.kind == "camera":
                container = open_video(_camera(self.source), FILE, format="v4l2")
            elif place.lower().startswith("rtsp"):
                container = open_video(place, RTSP, {"rtsp_transport": "tcp"}, timeout=timeout)
            else:
                container = open_video(place, WEB, timeout=timeout)
        except (FFmpegError, OSError) as error:
            raise self._unopened(error) from error
        with container:
            try:
                yield container, moving_pictures(container, self)
            except (FFmpegError, OSError) as error:
                raise self.broken(f"cannot be decoded: {error.strerror or error}") from error

    def broken(self, message: str) -> DataError:
        """The error of a source that can be opened and gives no pictures."""
        if self.source.kind == "camera":
            next_step = "connect the camera again, or give another"
        elif self.source.place.lower().startswith("rtsp"):
            next_step = "see whether another player shows it"
        else:
            next_step = "download it, and give the file"
        return DataError(f"{printable(self.source.name)}: {message}", next_step=next_step)

    def _unopened(self, error: OSError | FFmpegError) -> DataError:
        if self.source.kind == "camera":
            next_step = f"end what else uses it, and see that you may read /dev/video{self.source.place}"
        elif self.source.kind == "stream":
            next_step = "see that the address is right and reachable"
        else:
            return self.broken(f"cannot be decoded: {error.strerror or error}")
        return DataError(f"{printable(self.source.name)}: cannot be opened: {error.strerror}", next_step=next_step)


def is_remote(source: Source) -> bool:
    return "://" in source.place and not Path(source.place).exists()


def _heard(frames: Iterator[Any]) -> Iterator[Any]:
    """The frames; once they end, those that could not be decoded are noticed."""
    total = failed = 0
    try:
        for frame in frames:
            total += 1
            failed += frame is None or frame.is_corrupt
            yield frame
    finally:
        notice(Damage(failed, total))


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    """The frames of a stream, from its start on; None for a packet that cannot be decoded."""
    damaged = 0
    for packet in packets(container, stream):
        try:
            pictures = packet.decode()
        except InvalidDataError:
            damaged += 1
            if damaged > DAMAGED_IN_A_ROW:
                raise
            yield None
        else:
            damaged = 0 if pictures else damaged
            yield from pictures
    with suppress(FFmpegError):  # what the decoder holds back, unless the empty packet has fetched it
        yield from stream.decode(None)


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
        next_step = f"use one that is there: {', '.join(there)}" if there else "connect a camera, or give a file or URL"
        raise DataError(f"{source.name}: there is no {device}", next_step=next_step)
    return str(device)
