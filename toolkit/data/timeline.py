"""When the frames of a video are shown, from its packets alone: nothing is decoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from av.error import InvalidDataError

from toolkit.api.clips import Times, duration
from toolkit.data.opening import packets

_FPS_UNSAID = 30.0
"""Frames per second of a file that has neither times nor durations."""

_LEAP_BACK = 1.0
"""Seconds by which time must go back between keyframes for a new part to begin there: less is a slip of the writer."""

_STILL = 3600.0
"""Seconds for which one frame may be on show: longer is damage, of which a flipped bit makes years."""

_SAYS_ITS_LENGTH = ("matroska", "flv", "asf", "avi")
"""Containers, by the start of their names, that are read up to where they are cut, and say how long they were."""
_SHORT = 0.05
"""Share of the length that may be missing, and seconds besides: writers round, and count the last frame or not."""

_MICROSECONDS = 1_000_000

_WRITES_PRESENTATION_TIMES = ("mov", "matroska", "mpegts", "flv")
"""Containers, by the start of their names in FFmpeg, that say of each frame when it is shown. For others the demuxer
derives it from the order of decoding, and guesses wrong where frames are reordered (AVI with packed B-frames)."""


@dataclass(frozen=True)
class Timeline:
    """When the F >= 1 frames of a video are shown, in that order."""

    times: Sequence[float]
    """F moments in seconds from the first frame, ascending. `Times` say when the last frame ends too."""
    keyframes: tuple[int, ...]
    """Numbers of the frames at which decoding can start."""
    stamps: tuple[int, ...] = ()
    """The moments as the file writes them, in the time base of its stream: by these a frame is found after a seek.
    Empty where they cannot be relied on: such a file is decoded from its start, and its frames are counted."""
    shifts: tuple[int, ...] = (0,)
    """What the stamps of each part are ahead of what the file writes, where it is several recordings in a row."""
    lost: int = 0
    """Frames that the file should have and does not, since it is cut short or damaged between frames."""


class Packet(NamedTuple):
    """A packet of one frame."""

    pts: int | None
    dts: int | None
    duration: int
    key: bool
    shows: bool = True
    """Whether its frame is shown."""

    def shifted(self, ticks: int) -> Packet:
        pts, dts = (None if time is None else time + ticks for time in (self.pts, self.dts))
        return self._replace(pts=pts, dts=dts)

    @property
    def shown(self) -> int | None:
        """When its frame is shown, as far as that is known."""
        return self.dts if self.pts is None else self.pts


class Clock:
    """Finds where a new recording begins: there the order of decoding goes back in time."""

    def __init__(self, stream: Any) -> None:
        self._least = _LEAP_BACK / float(stream.time_base)
        self._newest: int | None = None
        self.part = 0
        """The number of the recording that the last packet belongs to."""

    def take(self, dts: int | None, *, key: bool) -> None:
        """Go on to the next packet in the order of decoding; `key`: whether its frame is a keyframe."""
        if dts is None:
            return
        newest = dts if self._newest is None else self._newest
        if dts < newest - (0 if key else self._least):
            self.part += 1
            newest = dts
        self._newest = max(newest, dts)


def read_timeline(container: Any, stream: Any) -> Timeline | None:
    """The timeline of an opened video; None where it has no frames.

    Only packets count, not what a container claims of itself: a file cut short has the frames that are left.
    Where their times do not ascend, their durations are summed; where those are missing too, it is 30 frames a second.
    """
    unit = float(stream.time_base)
    parts, lost = _recordings(container, stream)
    shifts = tuple(_shifts(parts, unit))
    shifted = [packet.shifted(shift) for part, shift in zip(parts, shifts, strict=True) for packet in part]
    if not shifted:
        return None
    stored = container.format.name.startswith(_WRITES_PRESENTATION_TIMES)
    found = _timeline(shifted, unit, stored=stored)
    keyframes = found.keyframes if len(parts) == 1 else (0,)  # by a stamp a later part cannot be sought
    if len(parts) == 1 and not lost:
        lost = _missing(container, min(one.shown or 0 for one in shifted) * unit, found.times)
    return Timeline(found.times, keyframes, found.stamps, shifts, lost)


def _recordings(container: Any, stream: Any) -> tuple[list[list[Packet]], int]:
    """The packets of each recording, in the order of decoding, up to where the file is damaged; and how many frames
    are lost."""
    found, broken = list[Packet](), False
    try:
        for one in packets(container, stream):
            shows = bool(one.size) and not one.is_discard
            found.append(Packet(one.pts, one.dts, one.duration or 0, one.is_keyframe, shows))
    except InvalidDataError:
        broken = True
    count = sum(one.shows or one.dts is not None for one in found)  # without the empty packet at the end
    # An index lists all packets (MP4, AVI), or some of them (Matroska): more than there are is a sign of a cut.
    lost = max(len(stream.index_entries) - count, int(broken))
    parts = [found] if _forwards(found) else _parted(found, Clock(stream))
    shown = ([one for one in part if one.shows] for part in parts)
    return list(shown), lost


def _missing(container: Any, start: float, times: Sequence[float]) -> int:
    """About how many frames the end of a file lacks that begins at `start` seconds, by the length that it claims. That
    of a file with sound may be the length of its sound."""
    if not container.format.name.startswith(_SAYS_ITS_LENGTH) or len(container.streams) > 1:
        return 0
    claimed, found = (container.duration or 0) / _MICROSECONDS, duration(times)
    missing = claimed - max(start, 0) - found
    return round(len(times) * missing / found) if missing > claimed * _SHORT + _SHORT else 0


def _forwards(found: Sequence[Packet]) -> bool:
    """Whether time never goes back, as in nearly all files."""
    known = [one.dts for one in found if one.dts is not None]
    return known == sorted(known)


def _parted(found: Iterable[Packet], clock: Clock) -> list[list[Packet]]:
    parts: dict[int, list[Packet]] = {}
    for one in found:
        clock.take(one.dts, key=one.key)
        parts.setdefault(clock.part, []).append(one)
    return list(parts.values())


def _shifts(parts: Sequence[Sequence[Packet]], unit: float) -> Iterator[int]:
    """Ticks by which the times of each recording are moved, so that it begins where the one before ends."""
    end: int | None = None
    for part in parts:
        shown = sorted(time for packet in part if (time := packet.shown) is not None)
        if not shown:
            yield 0
            continue
        shift = 0 if end is None else end - shown[0]
        yield shift
        end = shift + shown[-1] + _last_lasts(part, shown, unit)


def _last_lasts(part: Iterable[Packet], shown: Sequence[int], unit: float) -> int:
    """Ticks for which the frame is on show that is shown last: as its packet says, else as the others on average."""
    said = max((packet.duration for packet in part if packet.shown == shown[-1]), default=0)
    if 0 < said <= _STILL / unit:
        return said
    return round((shown[-1] - shown[0]) / (len(shown) - 1) if len(shown) > 1 else 1 / (_FPS_UNSAID * unit))


def _timeline(frames: Sequence[Packet], unit: float, *, stored: bool) -> Timeline:
    """`unit`: seconds of a tick; `stored`: whether the container writes when a frame is shown."""
    both = zip(*((one.pts, one.dts) for one in frames), strict=True)
    shown, read = (_ascending(times, unit) for times in both)
    if shown and (stored or all(one.pts == one.dts for one in frames)):
        keys = {one.pts for one in frames if one.key}
        keyframes = tuple(number for number, stamp in enumerate(shown) if stamp in keys)
        return Timeline(_seconds(shown, _last_lasts(frames, shown, unit), unit), keyframes, tuple(shown))
    if (counted := shown or read) is not None:
        return Timeline(_seconds(counted, _last_lasts(frames, counted, unit), unit), (0,))
    if all(0 < one.duration <= _STILL / unit for one in frames):
        ticks = [0, *accumulate(one.duration for one in frames[:-1])]
        return Timeline(_seconds(ticks, frames[-1].duration, unit), (0,))
    return Timeline(_seconds(range(len(frames)), 1, 1 / _FPS_UNSAID), (0,))


def _ascending(times: Sequence[int | None], unit: float) -> list[int] | None:
    """The times in order; None where one is missing, stands twice, or is too far from the next to be true."""
    known = sorted(time for time in set(times) if time is not None)
    if len(known) < len(times) or any(late - soon > _STILL / unit for soon, late in pairwise(known)):
        return None
    return known


def _seconds(ticks: Sequence[int], last: int, unit: float) -> Times:
    return Times(((tick - ticks[0]) * unit for tick in ticks), (ticks[-1] + last - ticks[0]) * unit)
