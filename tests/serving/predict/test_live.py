"""Windows of what happens now: the same as those of the file read as a whole, and never more than there is room for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests import video_files
from tests.plugins.data_files import write_video
from toolkit.api.clips import Clip, duration
from toolkit.api.errors import DataError
from toolkit.data.timeline import Timeline
from toolkit.serving.predict import live
from toolkit.serving.predict.clock import Clock
from toolkit.serving.predict.damages import Damages
from toolkit.serving.predict.inputs import Source
from toolkit.serving.predict.live import FASTEST, MakePixels, Ring, ShownFrame, followed
from toolkit.serving.predict.reconnecting import LiveFrame, Reconnecting
from toolkit.serving.predict.windows import STILL, Windows

STRIDED = Clip(frames=4, rate=3, fps=30)
NEVER = Reconnecting(0, lambda _: None)


def offline(windows: Windows, times: Sequence[float]) -> list[tuple[float, list[int]]]:
    """The start and the frame numbers of each window of a file."""
    return [(start, windows.numbers(times, start)) for start in windows.starts(duration(times))]


def streamed(windows: Windows, times: Sequence[float]) -> list[tuple[float, list[int]]]:
    """The same, of frames that come one by one."""
    ring: Ring[int] = Ring(windows, duration(times))
    found = []

    def take() -> None:
        if ring._ready is not None:
            window = ring.take()
            assert window is not None
            found.append((window.moment[0], list(window.frames)))

    for number, seconds in enumerate(times):
        ring.put(seconds, number, seconds)
        take()
    ring.close()
    take()
    assert ring.take() is None
    assert not ring.dropped
    return found


@settings(max_examples=300)
@given(
    gaps=st.lists(st.integers(10, 70) | st.integers(10, 500), min_size=0, max_size=120),
    frames=st.integers(1, 9),
    rate=st.integers(1, 12),
    rest=st.integers(10, 900),
    sampling=st.sampled_from(["strided", "segments"]),
    short=st.sampled_from(["loop", "hold"]),
)
def test_a_file_streamed_gives_the_windows_of_the_file_read_whole(gaps, frames, rate, rest, sampling, short) -> None:
    """At any frame rate, constant or not. Windows are `rest` milliseconds farther apart than the widest of `gaps`."""
    times = [sum(gaps[:place]) / 1000 for place in range(len(gaps) + 1)]
    clip = Clip(frames=frames, rate=rate, sampling=sampling, short=short)
    windows = Windows(clip, clip.span, (max(gaps, default=0) + rest) / 1000)
    assert streamed(windows, times) == offline(windows, times)


def test_the_last_window_holds_the_last_frame_where_the_rate_has_risen() -> None:
    times = [*(number / 2 for number in range(20)), *(10 + number / 20 for number in range(4))]
    windows = Windows(Clip(frames=4, rate=3, fps=30, short="loop"), 0.4, 1.0)
    found = streamed(windows, times)
    assert found == offline(windows, times)
    assert found[-1] == (10, [20, 22, 23, 23])


def test_a_still_is_the_frame_on_show() -> None:
    windows = Windows(STILL, STILL.span, 0.25)
    times = [number / 10 for number in range(11)]
    assert (
        streamed(windows, times)
        == offline(windows, times)
        == [(0, [0]), (0.25, [2]), (0.5, [5]), (0.75, [7]), (1, [10])]
    )


def test_a_window_comes_with_its_last_frame() -> None:
    ring: Ring[int] = Ring(Windows(STRIDED, STRIDED.span, 0.1))
    for number in range(9):
        ring.put(number / 30, number, number / 30)
        assert ring._ready is None
    ring.put(9 / 30, 9, 77.0)
    window = ring.take()
    assert window is not None
    assert (list(window.frames), window.shown) == ([0, 3, 6, 9], 77.0)
    assert window.moment == pytest.approx((0, 0.4))


def test_memory_is_that_of_one_window() -> None:
    windows = Windows(STRIDED, STRIDED.span, 0.2)
    ring: Ring[int] = Ring(windows)
    for number in range(10_000):
        ring.put(number / 30, number, 0)
        assert len(ring) <= 30 * STRIDED.span + 1
    assert ring.dropped > 1000


@pytest.mark.parametrize("every", [0.0, 5.0])
def test_a_source_with_too_many_frames_or_a_standing_clock_fills_no_memory(every: float) -> None:
    windows = Windows(STRIDED, STRIDED.span, every)
    ring: Ring[int] = Ring(windows)
    for number in range(5000):
        ring.put(0.01, number, 0)
    assert len(ring) <= FASTEST * windows.span + 3


def test_of_windows_that_nobody_takes_the_newest_is_left() -> None:
    ring: Ring[int] = Ring(Windows(STRIDED, STRIDED.span, 0.1))
    for number in range(30):
        ring.put(number / 30, number, 0)
    window = ring.take()
    assert window is not None
    assert list(window.frames)[-1] == 27
    assert ring.dropped == 6


def test_a_window_that_misses_frames_is_never_made() -> None:
    ring: Ring[int] = Ring(Windows(STRIDED, STRIDED.span, 0.1))
    for number in (0, 1, 2, 40):
        ring.put(number / 30, number, 0, leapt=number == 40)
    assert ring._ready is None
    for number in range(41, 52):
        ring.put(number / 30, number, 0)
    window = ring.take()
    assert window is not None
    assert list(window.frames) == [42, 45, 48, 51]
    assert ring.dropped == 14


def taken(ring: Ring[int]) -> list[tuple[int, float, list[int]]]:
    """The part, the start and the frames of the window that is ready."""
    if ring._ready is None:
        return []
    window = ring.take()
    assert window is not None
    return [(window.part, round(window.moment[0], 3), list(window.frames))]


@settings(max_examples=200)
@example(parts=[27, 1], gap=2.220446049250313e-16, every=0.1)
@given(
    parts=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    gap=st.floats(0, 100),
    every=st.sampled_from([0.1, 0.2, 0.35, 3.0]),
)
def test_no_window_has_frames_of_two_parts(parts: list[int], gap: float, every: float) -> None:
    ring: Ring[int] = Ring(Windows(STRIDED, STRIDED.span, every))
    found: list[tuple[int, float, list[int]]] = []
    seconds, shown, first = 0.0, list[float](), list[int]()
    for length in parts:
        first.append(len(shown))
        for number in range(length):
            ring.put(seconds, len(shown), seconds, begins=number == 0)
            shown.append(seconds)
            found += taken(ring)
            seconds += 1 / 30
        seconds += gap
    ring.close()
    found += taken(ring)
    for part, start, frames in found:
        after = first[part] if part < len(first) else len(shown)
        assert all(first[part - 1] <= number < after for number in frames)
        assert start >= shown[first[part - 1]] - 1e-3
    assert ring.dropped == 0
    whole = [part for part, length in enumerate(parts, 1) if (length - 1) / 30 >= every + STRIDED.span + 0.1]
    assert {part for part, _, _ in found} >= set(whole)


def test_the_rhythm_goes_on_after_a_gap_of_days_at_once() -> None:
    ring: Ring[int] = Ring(Windows(STRIDED, STRIDED.span, 0.001))
    ring.put(0, 0, 0, begins=True)
    ring.put(1e7, 1, 0, begins=True)
    for number in range(2, 20):
        ring.put(1e7 + (number - 1) / 30, number, 0)
    ((part, start, frames),) = taken(ring)
    assert (part, frames) == (2, [10, 13, 16, 19])
    assert start == pytest.approx(1e7 + 0.3, abs=0.05)


def test_a_file_that_is_read_too_slowly_drops_windows_and_a_source_with_a_gap_does_not() -> None:
    for leapt in (True, False):
        ring: Ring[int] = Ring(Windows(STRIDED, STRIDED.span, 0.1))
        ring.put(0, 0, 0, begins=True)
        ring.put(2, 1, 2, leapt=leapt, begins=not leapt)
        assert ring.dropped == (20 if leapt else 0)


def test_without_a_rhythm_every_frame_is_a_window() -> None:
    ring: Ring[str] = Ring(Windows(STILL, STILL.span, 0))
    for number, name in enumerate("abc"):
        ring.put(number / 10, name, 5.0)
    window = ring.take()
    assert window is not None
    assert (window.moment, window.frames, window.shown) == ((0.2, 0.2), ["c"], 5.0)
    ring.close()
    assert ring.take() is None
    assert len(ring) == 1


def test_no_window_is_made_twice_where_a_part_begins_as_the_one_before_ends() -> None:
    """As of a server that sends ahead of time, and drops the connection."""
    ring: Ring[int] = Ring(Windows(STILL, STILL.span, 0.5))
    starts = []
    for seconds, begins in ((0.0, True), (0.5, False), (1.0, False), (1.0, True), (1.5, False)):
        ring.put(seconds, 0, seconds, begins=begins)
        ring.close()
        while (window := ring.take()) is not None:
            starts.append(window.moment[0])
    assert starts == [0, 0.5, 1, 1.5]


def test_a_stream_that_ends_before_one_window_is_answered_once() -> None:
    ring: Ring[int] = Ring(Windows(STRIDED, STRIDED.span, 0.2))
    for number in range(4):
        ring.put(number / 30, number, 0)
    ring.close()
    window = ring.take()
    assert window is not None
    assert list(window.frames) == [0, 3, 2, 1]
    assert ring.take() is None


def test_a_stream_without_a_frame_has_no_window() -> None:
    ring: Ring[int] = Ring(Windows(STRIDED, STRIDED.span, 0.2))
    ring.close()
    assert ring.take() is None


def test_what_ended_a_source_is_raised_after_the_last_window() -> None:
    ring: Ring[int] = Ring(Windows(STILL, STILL.span, 0))
    ring.put(0, 1, 0)
    ring.close(DataError("lost"))
    assert ring.take() is not None
    with pytest.raises(DataError, match="lost"):
        ring.take()


# Files that are played


class Lockstep(Clock):
    """A clock that stands still until it learns how late it is, and shows no frame before `ready` says so."""

    def __init__(self, ready: Callable[[float], bool] = lambda seconds: True) -> None:
        self.time = 0.0
        self._ready = ready
        self.changed = threading.Condition()

    def now(self) -> float:
        return self.time

    def wait_until(self, moment: float, stop: threading.Event) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: stop.is_set() or self._ready(moment), timeout=30)
            self.time = max(self.time, moment)


EACH = Windows(STILL, STILL.span, 0)
"""Of every frame."""


def video(path: Path, frames: int = 15) -> Source:
    write_video(path, frames=frames)
    return Source(str(path), "video", str(path))


def level(pixels: MakePixels) -> int:
    return round(float(pixels().mean()) / 16)


def barred(pixels: MakePixels) -> int:
    return video_files.number_in(pixels())


def frames_thread() -> bool:
    return any(thread.name == "frames" for thread in threading.enumerate())


def test_a_file_is_played_at_its_own_speed(tmp_path: Path) -> None:
    source, clock, shown = video(tmp_path / "a.mp4"), Lockstep(), []
    line = live.timeline(source)
    for frame in live._played(source, line, EACH, clock, threading.Event()):
        assert clock.time == frame.shown
        assert not frame.leapt
        shown.append((frame.seconds, level(frame.pixels)))
    assert shown == [(pytest.approx(number / 10), number) for number in range(15)]
    assert clock.time == pytest.approx(1.5)


def test_a_played_file_is_followed_to_its_end(tmp_path: Path) -> None:
    windows = Windows(Clip(frames=3, rate=2, fps=10), 0.6, 0.3)
    source = video(tmp_path / "a.mp4")
    wanted = offline(windows, live.timeline(source).times)
    taken: list[tuple[float, list[int]]] = []

    def ready(seconds: float) -> bool:
        return len(taken) >= sum(start + windows.reach < seconds - 0.05 for start, _ in wanted)

    clock = Lockstep(ready)
    with followed(source, windows, level, clock, NEVER, Damages()) as ring:
        while (window := ring.take()) is not None:
            with clock.changed:
                taken.append((window.moment[0], list(window.frames)))
                clock.changed.notify_all()
    assert taken == wanted
    assert len(taken) == 4
    assert not frames_thread()


@pytest.mark.parametrize("windows", [Windows(STILL, STILL.span, 1), Windows(Clip(frames=3, rate=2, fps=10), 0.6, 0.5)])
def test_windows_within_a_frame_that_is_held_come_in_time(tmp_path: Path, windows: Windows) -> None:
    path = video_files.write_video(tmp_path / "a.mp4", 4, times=[0, 0.1, 0.2, 5.0], last=2.5)
    source, taken = Source(str(path), "video", str(path)), list[tuple[float, list[int]]]()
    wanted = offline(windows, live.timeline(source).times)
    clock = Lockstep(lambda seconds: len(taken) >= sum(start + windows.reach < seconds - 0.2 for start, _ in wanted))
    late = list[float]()
    with followed(source, windows, barred, clock, NEVER, Damages()) as ring:
        while (window := ring.take()) is not None:
            with clock.changed:
                late.append(clock.time - window.moment[0] - windows.reach)
                taken.append((window.moment[0], list(window.frames)))
                clock.changed.notify_all()
    assert taken == wanted
    assert len(taken) > 7
    assert max(late) < 0.25


def test_leaving_a_file_ends_its_thread(tmp_path: Path) -> None:
    with followed(video(tmp_path / "a.mp4"), Windows(STILL, STILL.span, 0), level, Clock(), NEVER, Damages()) as ring:
        assert ring.take() is not None
    assert not frames_thread()


def test_a_file_that_cannot_be_opened_is_reported(tmp_path: Path) -> None:
    source = Source("a.mp4", "video", str(tmp_path / "a.mp4"))
    with (
        pytest.raises(DataError, match="does not exist"),
        followed(source, Windows(STILL, STILL.span, 0), level, Clock(), NEVER, Damages()),
    ):
        pass


def test_what_reading_raises_comes_through_the_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*arguments: object) -> Iterator[LiveFrame]:
        yield LiveFrame(0.0, lambda: np.zeros((1, 1, 3), np.uint8), begins=True)
        raise DataError("lost")

    monkeypatch.setattr(live, "live_frames", lost)
    with followed(Source("x", "stream", "x"), Windows(STILL, STILL.span, 0), level, Clock(), NEVER, Damages()) as ring:
        assert ring.take() is not None
        with pytest.raises(DataError, match="lost"):
            ring.take()


LINE = Timeline(tuple(number / 10 for number in range(100)), (0, 20, 50, 80))


@pytest.mark.parametrize(
    ("number", "seconds", "leads_to"),
    [
        (10, 1.0, None),  # in time
        (19, 2.3, None),  # late, but not by much
        (10, 2.5, 20),
        (10, 6.0, 50),  # the last that is due
        (21, 4.0, None),  # no keyframe until what is due
        (50, 70.0, 80),
        (81, 70.0, None),
    ],
)
def test_reading_that_is_late_leaps_to_a_keyframe(number: int, seconds: float, leads_to: int | None) -> None:
    assert live._leap(LINE, number, seconds) == leads_to


def test_a_file_without_known_keyframes_is_never_leapt_in() -> None:
    assert live._leap(Timeline(LINE.times, ()), 3, 50.0) is None


def test_the_frame_after_a_leap_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(source: Source, line: Timeline, numbers: Sequence[int], **options: object) -> Iterator[np.ndarray]:
        for number in numbers:
            if number == 5:
                clock.time += 3.0  # a frame that took long to decode
            yield np.full((1, 1, 3), number, np.uint8)

    monkeypatch.setattr(live, "read_frames", read)
    clock = Lockstep()
    found: list[ShownFrame] = list(live._played(Source("x", "video", "x"), LINE, EACH, clock, threading.Event()))
    numbers = [int(frame.pixels()[0, 0, 0]) for frame in found]
    assert numbers == [*range(5), *range(20, 100)]
    assert [number for number, frame in zip(numbers, found, strict=True) if frame.leapt] == [20]


def test_the_clock_of_this_machine_waits_no_longer_than_it_has_to() -> None:
    clock, stop = Clock(), threading.Event()
    before = clock.now()
    clock.wait_until(before - 5, stop)
    clock.wait_until(before + 0.01, stop)
    assert clock.now() >= before + 0.01
    stop.set()
    clock.wait_until(before + 1e6, stop)
