"""Videos, cameras and streams, by PyAV: how a URL or a camera is opened. Audio is never decoded.

Videos are read by `toolkit.data.decoding`, wherever they lie; what has no end is received by
`toolkit.serving.predict.connection`.
"""

from __future__ import annotations

import errno
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from av.error import ExitError, FFmpegError, InvalidDataError

from toolkit.api.errors import DataError, printable
from toolkit.data import decoding as frames
from toolkit.data.opening import FILE, RTSP, WEB, moving_pictures, open_video
from toolkit.data.timeline import Timeline
from toolkit.serving.predict.inputs import Source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OPENING_SECONDS, READING_SECONDS = 10.0, 10.0
"""How long a URL may stay silent before it counts as gone."""
_IMAGE = "_pipe"
"""Ends the names of FFmpeg's formats of a single image, which it knows by its content."""


def timeline(source: Source) -> Timeline:
    """When the frames of a video are shown. Raises DataError naming it when it cannot be opened or has no frames."""
    return frames.timeline(Remote(source) if source.remote else Path(source.place))


def read_frames(
    source: Source, line: Timeline, numbers: Sequence[int], *, threads: int, stop: threading.Event
) -> Iterator[NDArray[np.uint8]]:
    """As `toolkit.data.decoding.read_frames`, which a video behind a URL is read by as a file is."""
    video = Remote(source) if source.remote else Path(source.place)
    return frames.read_frames(video, line, numbers, threads=threads, stop=stop)


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
                if container.format.name.endswith(_IMAGE):
                    raise self.broken("it is an image, expected a video")
                yield container, moving_pictures(container, self)
            except (FFmpegError, OSError) as error:
                raise self.broken(in_words(error)) from error

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
        elif isinstance(error, InvalidDataError):
            return self.broken(in_words(error))
        else:
            next_step = "see that the address is right and reachable"
        reason = "no video comes from it" if isinstance(error, EOFError) or error.errno == errno.EIO else error.strerror
        reason = in_words(error) if isinstance(error, ExitError) else reason
        return DataError(f"{printable(self.source.name)}: cannot be opened: {reason}", next_step=next_step)


def in_words(error: OSError | FFmpegError) -> str:
    """What happened to a source that was opened and does not lie on this machine."""
    if isinstance(error, ExitError):  # PyAV's own limit of time
        return f"nothing came for {READING_SECONDS:g} s"
    if not isinstance(error, OSError):
        return f"cannot be decoded: {error.strerror or error}"
    # FFmpeg's word for a body that is shorter than was said, and for a part of it that a server does not give
    return "cannot be read to its end" if error.errno == errno.EIO else f"the connection was lost: {error.strerror}"


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
