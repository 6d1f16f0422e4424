"""Windows of what happens now: of a camera, a stream, or a file that is played at its own speed.

A thread reads frames into a ring of the newest ones, and what asks for windows gets the newest that is complete.
Neither waits for the other, so memory and delay stay bounded: where answers come more slowly than windows, windows are
dropped.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeAlias, TypeVar

from toolkit.api.clips import duration
from toolkit.serving.predict.clock import Clock
from toolkit.serving.predict.damages import Damages
from toolkit.serving.predict.inputs import Moment, Source
from toolkit.serving.predict.reconnecting import Reconnecting, live_frames
from toolkit.serving.predict.sources import read_frames, timeline
from toolkit.serving.predict.windows import Windows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from toolkit.data.timeline import Timeline

T = TypeVar("T")
MakePixels: TypeAlias = "Callable[[], NDArray[np.uint8]]"
"""Makes a frame, uint8 `[H, W, 3]`, upright."""

LATE = 0.5
"""Seconds that the reading of a file may be late before it leaps to a later keyframe."""
HELD = 0.1
"""Seconds that a complete window of a file waits at most for the next frame to come on show."""
FASTEST = 240
"""Frames a second that are kept at most: of a source that claims more the oldest are dropped."""

ENDING_SECONDS = 2.0
"""How long the end waits for the thread, which may itself wait for a source that is silent."""

_ROUNDING = 1e-6
"""Seconds by which sums of times may err; a window that is as good as complete need not wait for one more frame."""


class ShownFrame(NamedTuple):
    """A frame as it is shown."""

    seconds: float
    """Since the first frame of the source."""
    shown: float
    """The clock's time when it was, or should have been, on show."""
    pixels: MakePixels
    leapt: bool = False
    """Whether frames before it were skipped, since reading them took too long."""
    begins: bool = False
    """Whether it begins a part: a gap of the source is before it."""


@dataclass(frozen=True)
class Window(Generic[T]):
    """A clip of a live source, ready to be answered."""

    moment: Moment
    frames: Sequence[T]
    """T frames, as they were kept."""
    shown: float
    """The clock's time when its last frame was on show."""
    part: int = 0
    """The part of its source, between two gaps, that all its frames are of."""


class Ring(Generic[T]):
    """The newest frames, from the first one of the next window on, and the newest window that was not taken.

    `length` is that of the source in seconds, where it is known: only windows that end before it are made, as when a
    file is read as a whole. `windows.every` of 0 makes a window of every frame.
    """

    def __init__(self, windows: Windows, length: float = math.inf) -> None:
        self._windows, self._length = windows, length
        self._starts = windows.starts(length)
        self._next: float | None = next(self._starts)
        self._made = -math.inf
        """When the newest window begins: a part may begin at the very time at which the one before it ended."""
        self._part = 0
        self._changed = threading.Condition()
        most = 2 + math.ceil(windows.span * FASTEST)
        self._times: deque[float] = deque(maxlen=most)
        self._frames: deque[tuple[T, float]] = deque(maxlen=most)
        self._ready: Window[T] | None = None
        self._closed = False
        self._error: BaseException | None = None
        self.dropped = 0
        """Windows that nobody took in time, or whose frames were skipped."""

    def __len__(self) -> int:
        return len(self._times)

    def put(self, seconds: float, frame: T, shown: float, *, leapt: bool = False, begins: bool = False) -> None:
        """Take in the frame that is shown from `seconds` on; `leapt` if not all between it and the last one came, since
        they were skipped; `begins` if the source sent nothing between the two."""
        with self._changed:
            if leapt or begins:
                self._times.clear()
                self._frames.clear()
            if begins and self._windows.every:
                self._starts = self._windows.starts(self._length, after=seconds)
                # a start may be before this frame by what sums of times err
                self._next = next((max(start, seconds) for start in self._starts if start > self._made), None)
            self._part += begins
            self._times.append(seconds)
            self._frames.append((frame, shown))
            if self._windows.every:
                self._pass_over()
                self._make(seconds - self._windows.reach + _ROUNDING)
            else:
                self._offer(Window((seconds, seconds), [frame], shown, self._part))
            # What no window to come begins with is dropped.
            begin = math.inf if self._next is None or not self._windows.every else self._next
            while len(self._times) > 1 and self._times[1] <= begin:
                self._times.popleft()
                self._frames.popleft()

    def close(self, error: BaseException | None = None) -> None:
        """No frame follows, since the source has ended or `error` has ended it."""
        with self._changed:
            if error is None and self._times and self._windows.every:
                self._pass_over()
                self._make(math.inf if self._length < math.inf else 0.0)  # one in any case, as of a file
            self._closed, self._error = True, error
            self._changed.notify()

    def take(self) -> Window[T] | None:
        """Wait for a window; None after the last. Raises the error that has ended the source."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready is not None or self._closed)
            window, self._ready = self._ready, None
        if window is None and self._error is not None:
            raise self._error
        return window

    def _pass_over(self) -> None:
        """Give up the windows that begin before the first frame that is here."""
        while self._next is not None and self._next < self._times[0]:
            self._next = next(self._starts, None)
            self.dropped += 1

    def _make(self, latest: float) -> None:
        """The windows that begin at `latest` or before and were not made yet."""
        while self._next is not None and self._next <= latest:
            later = self._next > 0  # only the first window can be longer than its source, and loop
            numbers = self._windows.numbers(self._times, self._next - self._times[0], hold=later)
            shown = max(self._frames[number][1] for number in numbers)
            frames = [self._frames[number][0] for number in numbers]
            self._offer(Window(self._windows.moment(self._next), frames, shown, self._part))
            self._made = self._next
            self._next = next(self._starts, None)

    def _offer(self, window: Window[T]) -> None:
        self.dropped += self._ready is not None
        self._ready = window
        self._changed.notify()


@contextmanager
def followed(
    source: Source,
    windows: Windows,
    keep: Callable[[MakePixels], T],
    clock: Clock,
    reconnecting: Reconnecting,
    damages: Damages,
) -> Iterator[Ring[T]]:
    """The windows of a camera, a stream or a file, which a thread fills with what `keep` makes of each frame. A file is
    played at its own speed. Leaving ends the thread. What opens or reads the source raises from `Ring.take`, but a file
    that cannot be opened raises DataError here. Damage goes to `damages`."""
    line = timeline(source) if source.kind == "video" else None
    ring: Ring[T] = Ring(windows, math.inf if line is None else duration(line.times))
    stop = threading.Event()
    frames = _live(source, clock, stop, reconnecting) if line is None else _played(source, line, windows, clock, stop)

    def fill() -> None:
        try:
            with damages.of(source), closing(frames):
                for frame in frames:
                    if stop.is_set():
                        return
                    ring.put(frame.seconds, keep(frame.pixels), frame.shown, leapt=frame.leapt, begins=frame.begins)
        except BaseException as error:
            ring.close(error)
        else:
            ring.close()

    thread = threading.Thread(target=fill, name="frames", daemon=True)
    thread.start()
    try:
        yield ring
    finally:
        stop.set()
        thread.join(ENDING_SECONDS)


def _live(
    source: Source, clock: Clock, stop: threading.Event, reconnecting: Reconnecting
) -> Generator[ShownFrame, None, None]:
    with closing(live_frames(source, clock, stop, reconnecting)) as frames:
        for frame in frames:
            yield ShownFrame(frame.seconds, clock.now(), frame.pixels, begins=frame.begins)


def _played(
    source: Source, line: Timeline, windows: Windows, clock: Clock, stop: threading.Event
) -> Generator[ShownFrame, None, None]:
    """The frames of a file, each at its time; one that is held for long comes again where it completes a window. Where
    reading is too slow for that, it leaps to keyframes."""
    begin = clock.now()
    onward: int | None = 0
    while onward is not None:
        start, onward = onward, None
        numbers = range(start, len(line.times))
        for number, pixels in zip(numbers, read_frames(source, line, numbers, threads=1, stop=stop), strict=False):
            onward = _leap(line, number, clock.now() - begin)
            if onward is not None:
                break
            for seconds in (line.times[number], *_completions(windows, line.times, number)):
                clock.wait_until(begin + seconds, stop)
                leapt = 0 < start == number and seconds == line.times[number]
                yield ShownFrame(seconds, begin + seconds, lambda pixels=pixels: pixels, leapt=leapt)  # type: ignore[misc]
    clock.wait_until(begin + duration(line.times), stop)


def _completions(windows: Windows, times: Sequence[float], number: int) -> Iterator[float]:
    """When this frame completes windows, long before the next one."""
    length, shown = duration(times), times[number]
    latest = (times[number + 1] if number + 1 < len(times) else length) - HELD
    if windows.every and shown < latest:
        for start in windows.starts(length, after=max(shown - windows.reach, 0)):
            if start + windows.reach > latest:
                return
            if start + windows.reach > shown:
                yield start + windows.reach


def _leap(line: Timeline, number: int, seconds: float) -> int | None:
    """The keyframe behind `number` to go on from at this time, where that is too late for `number` itself."""
    if seconds - line.times[number] < LATE:
        return None
    place = bisect_right(line.keyframes, bisect_right(line.times, seconds)) - 1
    keyframe = line.keyframes[place] if place >= 0 else 0
    return keyframe if keyframe > number else None
