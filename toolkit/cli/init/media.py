"""What some of the files show: sizes, durations, frame rates, and which files are damaged."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from toolkit.api.errors import DataError

MOST = 200
"""Files that are looked at."""
SECONDS = 8.0
"""After this time no further file is looked at: a network drive is slow."""


@dataclass(frozen=True)
class Seen:
    """What one file shows."""

    short: int
    """Pixels of its shorter side."""
    seconds: float = 0.0
    rate: float = 0.0
    """Frames a second."""


@dataclass(frozen=True)
class Media:
    """What the files that were looked at show."""

    seen: tuple[Seen, ...]
    damaged: tuple[tuple[str, str], ...]
    """Names and reasons."""

    @property
    def looked(self) -> int:
        return len(self.seen) + len(self.damaged)

    @property
    def short(self) -> int:
        """The usual length of the shorter side in pixels."""
        return round(median(one.short for one in self.seen))

    @property
    def seconds(self) -> float:
        """The usual duration of a video."""
        return median(one.seconds for one in self.seen)

    @property
    def rate(self) -> float:
        """The usual number of frames a second."""
        return median(one.rate for one in self.seen)


def look_at(root: Path, items: Sequence[str], *, videos: bool) -> Media:
    """Open some of the files, evenly spaced. Raises DataError where none of them can be read."""
    look: Callable[[Path], Seen] = _video if videos else _image
    step = max(1, len(items) // MOST)
    until = time.monotonic() + SECONDS
    seen: list[Seen] = []
    damaged: list[tuple[str, str]] = []
    for item in items[::step][:MOST]:
        try:
            seen.append(look(root / item))
        except DataError as error:
            damaged.append((item, error.message.removeprefix(f"{root / item}: ")))
        if time.monotonic() > until and seen:
            break
    if not seen:
        item, reason = damaged[0]
        raise DataError(
            f"none of {len(damaged)} files can be read; {item}: {reason}",
            path=root,
            next_step="Open some of these files in a viewer, and copy them again.",
        )
    return Media(tuple(seen), tuple(damaged))


def _image(path: Path) -> Seen:
    from toolkit.data.pixels import read_pixels

    return Seen(min(read_pixels(path).shape[:2]))


def _video(path: Path) -> Seen:
    from toolkit.api.clips import duration
    from toolkit.data.decoding import read_frames, timeline

    line = timeline(path)
    times = line.times
    shown = next(read_frames(path, line, [0]))
    rate = (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0
    return Seen(min(shown.shape[:2]), duration(times), rate)
