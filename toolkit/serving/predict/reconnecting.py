"""Cameras and streams that last: one that is lost is opened again, and its time goes on.

What is shown between two gaps is a part. A part begins where a source was opened again, where its clock goes back by
more than `BACK_SECONDS` or ahead by more than `LEAP_SECONDS`, and after a pause of at least `PAUSE_SECONDS` that is
`PAUSE_FRAMES` times as long as its frames are usually apart. No clip has frames of two parts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.api.errors import DataError, counted, printable
from toolkit.data.damage import Damage, notice
from toolkit.serving.predict.connection import ON_AND_REACHABLE, LostError, Tally, received
from toolkit.serving.predict.inputs import Source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from toolkit.serving.predict.clock import Clock

BACK_SECONDS, LEAP_SECONDS = 1.0, 60.0
"""By which a source's clock may go back or ahead from one frame to the next; more is a jump of the clock."""
PAUSE_SECONDS, PAUSE_FRAMES = 1.0, 10
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds before a lost source is opened again. Each try waits twice as long as the one before it."""


@dataclass(frozen=True)
class LiveFrame:
    """A frame of a camera or stream."""

    seconds: float
    """Since the first frame."""
    pixels: Callable[[], NDArray[np.uint8]]
    """Makes uint8 `[H, W, 3]`, upright."""
    begins: bool
    """Whether it is the first of its part."""


class Reconnecting:
    """How often a source that is lost is opened again, and what was lost."""

    def __init__(self, attempts: float, say: Callable[[str], None]) -> None:
        """`attempts` in a row that may fail, infinite for no end; `say` reports."""
        self.attempts, self.say = attempts, say
        self.losses, self.seconds = 0, 0.0
        """How many times the source was lost, and for how long in all until it was open again."""


def live_frames(
    source: Source, clock: Clock, stop: threading.Event, reconnecting: Reconnecting
) -> Generator[LiveFrame, None, None]:
    """The frames of a camera or stream, until it ends, `stop` is set, or it cannot be opened again.

    Raises DataError when it cannot be opened or shows nothing at first, and when it is lost for good. What states no
    length has no end where it may be opened again, since an end and a lost connection look the same. Frames that
    cannot be decoded are noticed at the end."""
    tally = Tally()
    try:
        yield from _frames(source, clock, stop, reconnecting, tally)
    finally:
        notice(Damage(tally.failed, tally.total))


def _frames(
    source: Source, clock: Clock, stop: threading.Event, reconnecting: Reconnecting, tally: Tally
) -> Generator[LiveFrame, None, None]:
    time = LiveTime(clock.now)
    outage: _Outage | None = None
    while True:
        try:
            with closing(received(source, clock.now, tally)) as frames:
                for stamp, pixels in frames:
                    before = time.seconds
                    seconds, begins = time.of(stamp)
                    if outage is not None:
                        outage.over(seconds - before)
                        outage = None
                    yield LiveFrame(seconds, pixels, begins)
            return
        except DataError as error:
            if stop.is_set():  # nobody waits for it any more
                return
            if outage is None:
                if not (isinstance(error, LostError) and time.runs):
                    raise
                if error.ended and not reconnecting.attempts:
                    return
                outage = _Outage(source, reconnecting)
            wait = outage.next_wait(error)
        clock.wait_until(clock.now() + wait, stop)
        if stop.is_set():
            return
        time.cut()


class LiveTime:
    """Seconds since the first frame: by the source's clock within a part, by ours from one part to the next."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._began = 0.0
        """When the first frame was on show, by our clock."""
        self.seconds = 0.0
        """The time of the last frame."""
        self._ahead: float | None = None
        """Of the source's clock."""
        self._apart, self._frames = 0.0, 0
        """Seconds between two frames of this part in the mean, and their number."""
        self.runs = False
        """Whether there was a frame."""

    def cut(self) -> None:
        """What comes next begins a part."""
        self._ahead = None

    def of(self, stamp: float | None) -> tuple[float, bool]:
        """The time of a frame that comes now, and whether it begins a part. `stamp` is its time by the source's clock;
        None where it has none."""
        now = self._now()
        if not self.runs:
            self._began, self.runs = now, True
        time = now if stamp is None else stamp
        step = 0.0 if self._ahead is None else time + self._ahead - self.seconds
        leaps = not -BACK_SECONDS <= step <= LEAP_SECONDS
        begins = self._ahead is None or leaps or self._pauses(step)
        if self._ahead is None or leaps:
            self._ahead = max(self.seconds, now - self._began) - time
        elif step < 0:
            self._ahead -= step
        self.seconds = time + self._ahead
        self._count(step, begins=begins)
        return self.seconds, begins

    def _pauses(self, step: float) -> bool:
        return self._frames >= PAUSE_FRAMES and step >= max(PAUSE_SECONDS, PAUSE_FRAMES * self._apart)

    def _count(self, step: float, *, begins: bool) -> None:
        self._frames = 0 if begins else self._frames + 1
        self._apart = 0.0 if begins else self._apart + (max(step, 0) - self._apart) / min(self._frames, 100)


class _Outage:
    """From when a source is lost until it is open again."""

    def __init__(self, source: Source, reconnecting: Reconnecting) -> None:
        self._name, self._of = printable(source.name), reconnecting
        self._attempts, self._said = 0, ""
        reconnecting.losses += 1

    def next_wait(self, error: DataError) -> float:
        """Seconds until the next attempt, after this error of the last one. Raises DataError where that was the last
        of all. What happens again is not reported again."""
        if self._attempts >= self._of.attempts:
            failed = f"; {counted(self._attempts, 'attempt')} to open it again failed" if self._attempts else ""
            raise DataError(f"{error.message}{failed}", next_step=ON_AND_REACHABLE) from error
        if error.message != self._said:
            self._of.say(f"{error.message}; {'trying' if self._attempts else 'opening it'} again")
            self._said = error.message
        self._attempts += 1
        return min(FIRST_WAIT * 2.0 ** min(self._attempts - 1, 30), LONGEST_WAIT)

    def over(self, seconds: float) -> None:
        """`seconds`: from the last frame before it to the first one after it."""
        self._of.seconds += seconds
        self._of.say(f"{self._name}: open again, after {seconds:.0f} s without a picture")
