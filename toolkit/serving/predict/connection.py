"""What a camera or stream sends from when it is opened until it ends or is lost."""

from __future__ import annotations

import errno
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import av
from av.error import FFmpegError, InvalidDataError
from av.format import Flags

from toolkit.api.errors import DataError, printable
from toolkit.data.display import shown_size, upright
from toolkit.serving.predict.inputs import Source
from toolkit.serving.predict.sources import READING_SECONDS, Remote, in_words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DAMAGED_IN_A_ROW = 1000
"""Packets that cannot be decoded, one after the other, before a source counts as broken: many more than a stream sends
from where it was joined to its next keyframe."""
ON_AND_REACHABLE = "see that it is on and reachable, then run the same command again"
PLAYLISTS = ("dash", "hls")
"""Formats, as FFmpeg names them, whose size is that of a list of parts."""


class LostError(DataError):
    """A source that has no end sends nothing more; `ended` where it was closed as one that has an end."""

    def __init__(self, message: str, *, ended: bool = False) -> None:
        super().__init__(message, next_step=ON_AND_REACHABLE)
        self.ended = ended


@dataclass
class Tally:
    """Of frames that should have come."""

    failed: int = 0
    total: int = 0


class ReceivedFrame(NamedTuple):
    """A frame of a live source."""

    stamp: float | None
    """Its time in seconds by the clock of the source; None where it has none."""
    pixels: Callable[[], NDArray[np.uint8]]
    """Makes uint8 `[H, W, 3]`, upright."""


def received(source: Source, now: Callable[[], float], tally: Tally) -> Generator[ReceivedFrame, None, None]:
    """The frames that a camera or stream sends, as they come. Those that cannot be decoded are passed over, and counted
    in `tally`.

    What states its length, in bytes or in seconds, is a recording, and ends. Any other source raises LostError once it
    ends, is lost, or sends no picture for `READING_SECONDS` by the clock `now`. Raises DataError when it cannot be
    opened, a recording is lost, or none of its frames can be decoded.
    """
    with Remote(source).opened() as (container, stream):
        recorded, came = _states_length(container), False
        counted = bool(container.format.flags & Flags.no_timestamps.value)  # 25 frames a second, however many come
        try:
            for frame in _decoded(container, stream, now, tally):
                came = True
                size = shown_size(frame.width, frame.height, stream.sample_aspect_ratio)
                yield ReceivedFrame(None if counted else frame.time, partial(upright, frame, size))
            if not came:
                raise DataError(f"{printable(source.name)}: none of its frames can be decoded")
            if not recorded:
                raise _lost(source, "it ended", ended=True)
        except (FFmpegError, OSError) as error:
            if recorded:
                raise
            raise _lost(source, in_words(error)) from error
        except _SilentError as error:
            raise _lost(source, f"no picture came for {READING_SECONDS:g} s") from error


class _SilentError(Exception):
    """Something comes, but no picture."""


def _lost(source: Source, reason: str, *, ended: bool = False) -> LostError:
    return LostError(f"{printable(source.name)}: {reason}", ended=ended)


def is_live(source: Source) -> bool:
    """Whether what is behind a URL states no length. Raises DataError where it cannot be opened."""
    with Remote(source).opened() as (container, _):
        return not _states_length(container)


def _states_length(container: Any) -> bool:
    sized = container.size > 0 and container.format.name not in PLAYLISTS
    return bool(container.duration) or sized


def _decoded(container: Any, stream: Any, now: Callable[[], float], tally: Tally) -> Iterator[Any]:
    """The frames of a stream, from its start on."""
    damaged = 0
    for packet in _packets(container, stream, now):
        try:
            frames = packet.decode()
        except InvalidDataError:
            damaged, tally.failed, tally.total = damaged + 1, tally.failed + 1, tally.total + 1
            if damaged > DAMAGED_IN_A_ROW:
                raise
        else:
            damaged = 0 if frames else damaged
            tally.failed += sum(frame.is_corrupt for frame in frames)
            tally.total += len(frames)
            yield from frames


def _packets(container: Any, stream: Any, now: Callable[[], float]) -> Iterator[Any]:
    """Those of the stream, and at its end an empty one. All are read, since sound may go on where pictures stall."""
    latest = now()
    try:
        for packet in container.demux():
            if packet.stream.index == stream.index:
                yield packet
                latest = now()
            elif now() - latest > READING_SECONDS:
                raise _SilentError
    except OSError as error:
        if error.errno != errno.EIO or container.size >= 0 or "://" not in container.name:
            raise
        # What has no length ended, of which FFmpeg expects more.
        end = av.Packet()
        end.stream = stream
        yield end
