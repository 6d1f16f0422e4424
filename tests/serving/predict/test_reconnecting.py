"""A source that is lost is opened again: when, how often, what is reported, and how its time goes on."""

from __future__ import annotations

import math
import threading
from collections.abc import Generator, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, TypeAlias

import pytest

from toolkit.api.errors import DataError
from toolkit.serving.predict import reconnecting
from toolkit.serving.predict.clock import Clock
from toolkit.serving.predict.connection import LostError
from toolkit.serving.predict.inputs import Source
from toolkit.serving.predict.reconnecting import LiveTime, Reconnecting, live_frames

YARD = Source("rtsp://yard/1", "stream", "rtsp://me:secret@yard/1")
LOST = LostError("rtsp://yard/1: nothing came for 10 s")
ENDED = LostError("rtsp://yard/1: it ended", ended=True)
REFUSED = DataError("rtsp://yard/1: cannot be opened: Connection refused")

Connection: TypeAlias = "tuple[Sequence[float | None], DataError | None]"
"""The stamps of the frames of one connection, and how it ends."""


class Standing(Clock):
    """A clock that only waiting moves, and each frame by a tenth of a second."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.waits: list[float] = []

    def now(self) -> float:
        return self.time

    def wait_until(self, moment: float, stop: threading.Event) -> None:
        self.waits.append(moment - self.time)
        self.time = moment


class Script:
    """Stands in for `received`: each call is the next connection. After the last, a source that ends for good."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, connections: Sequence[Connection]) -> None:
        self.clock, self.said, self.stop = Standing(), list[str](), threading.Event()
        self._connections: Iterator[Connection] = iter(connections)
        self.opened = 0
        monkeypatch.setattr(reconnecting, "received", self._received)

    def _received(self, *arguments: object) -> Generator[tuple[float | None, Any], None, None]:
        self.opened += 1
        stamps, error = next(self._connections, ((), None))
        for stamp in stamps:
            self.clock.time += 0.1
            yield stamp, SimpleNamespace()
        if error is not None:
            raise error

    def frames(self, attempts: float = math.inf) -> list[tuple[float, bool]]:
        self.reconnecting = Reconnecting(attempts, self.said.append)
        frames = live_frames(YARD, self.clock, self.stop, self.reconnecting)
        return [(round(frame.seconds, 3), frame.begins) for frame in frames]


def test_a_lost_source_is_opened_again_and_its_time_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(monkeypatch, [([7, 7.1, 7.2], LOST), ([0, 0.1], ENDED), ([50, 50.1], None)])
    assert script.frames() == [
        (0, True), (0.1, False), (0.2, False), (1.3, True), (1.4, False), (2.5, True), (2.6, False)
    ]  # fmt: skip
    assert script.said == [
        "rtsp://yard/1: nothing came for 10 s; opening it again",
        "rtsp://yard/1: open again, after 1 s without a picture",
        "rtsp://yard/1: it ended; opening it again",
        "rtsp://yard/1: open again, after 1 s without a picture",
    ]
    assert (script.reconnecting.losses, round(script.reconnecting.seconds, 3)) == (2, 2.2)


def test_each_attempt_waits_twice_as_long_up_to_a_minute_and_reports_what_is_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = DataError("rtsp://yard/1: cannot be opened: Server returned 404 Not Found")
    failures: list[Connection] = [((), error) for error in (*[REFUSED] * 5, *[other] * 4, REFUSED)]
    script = Script(monkeypatch, [([0], LOST), *failures, ([0], LOST), ([0], None)])
    assert [begins for _, begins in script.frames()] == [True] * 3
    assert [round(wait) for wait in script.clock.waits] == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 1]
    assert [line.partition(": ")[2] for line in script.said] == [
        "nothing came for 10 s; opening it again",
        "cannot be opened: Connection refused; trying again",
        "cannot be opened: Server returned 404 Not Found; trying again",
        "cannot be opened: Connection refused; trying again",
        "open again, after 363 s without a picture",
        "nothing came for 10 s; opening it again",
        "open again, after 1 s without a picture",
    ]


def test_after_so_many_attempts_it_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(monkeypatch, [([0], LOST), *[((), REFUSED)] * 9])
    with pytest.raises(DataError) as caught:
        script.frames(attempts=3)
    assert script.opened == 4
    assert caught.value.message == f"{REFUSED.message}; 3 attempts to open it again failed"
    assert caught.value.next_step == "see that it is on and reachable, then run the same command again"


def test_a_picture_starts_the_count_of_attempts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(monkeypatch, [([0], LOST), ((), REFUSED), ([0], LOST), ((), REFUSED), ([0], None)])
    assert len(script.frames(attempts=2)) == 3


def test_without_attempts_a_loss_is_an_error_and_an_end_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = Script(monkeypatch, [([0], LOST)])
    with pytest.raises(DataError) as caught:
        lost.frames(attempts=0)
    assert (caught.value.message, lost.said) == (LOST.message, [])
    ended = Script(monkeypatch, [([0, 0.1], ENDED)])
    assert len(ended.frames(attempts=0)) == 2
    assert ended.said == []


@pytest.mark.parametrize("error", [REFUSED, LOST, ENDED])
def test_a_source_that_never_showed_anything_is_an_error_at_once(
    monkeypatch: pytest.MonkeyPatch, error: DataError
) -> None:
    script = Script(monkeypatch, [((), error)])
    with pytest.raises(DataError) as caught:
        script.frames()
    assert caught.value is error
    assert script.opened == 1


def test_what_states_its_length_is_not_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(monkeypatch, [([0], DataError("rtsp://yard/1: cannot be read to its end"))])
    with pytest.raises(DataError, match="cannot be read to its end"):
        script.frames()
    assert script.opened == 1


def test_the_end_of_the_command_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(monkeypatch, [([0], LOST), ([0], None)])
    monkeypatch.setattr(script.clock, "wait_until", lambda moment, stop: stop.set())
    assert len(script.frames()) == 1
    assert script.opened == 1


def test_what_is_lost_after_the_end_of_the_command_is_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(monkeypatch, [([0], LOST), ([0], None)])
    script.stop.set()
    assert len(script.frames()) == 1
    assert (script.opened, script.said, script.reconnecting.losses) == (1, [], 0)


# Time


def times(stamps: Sequence[float | None], *, pace: float = 0.0) -> list[tuple[float, bool]]:
    """The times of frames with these stamps, of which one comes every `pace` seconds."""
    now = iter(100 + pace * number for number in range(len(stamps)))
    time = LiveTime(lambda: next(now))
    found = [time.of(stamp) for stamp in stamps]
    return [(round(seconds, 3), begins) for seconds, begins in found]


def begins(stamps: Sequence[float | None], *, pace: float = 0.0) -> list[int]:
    """The numbers of the frames that begin a part."""
    return [number for number, (_, begins) in enumerate(times(stamps, pace=pace)) if begins]


def test_a_source_without_a_clock_is_timed_by_ours() -> None:
    assert times([None] * 3, pace=0.25) == [(0, True), (0.25, False), (0.5, False)]


def test_where_a_clock_goes_back_or_leaps_a_part_begins_and_time_goes_on() -> None:
    stamps = [7, 8, 2, 3, 5_000, 5_001]
    assert times(stamps, pace=1) == [(0, True), (1, False), (2, True), (3, False), (4, True), (5, False)]
    # Faster than in real time, it goes on where it was.
    assert times(stamps) == [(0, True), (1, False), (1, True), (2, False), (2, True), (3, False)]


def test_a_clock_that_trembles_begins_no_part_and_never_goes_back() -> None:
    assert times([0, 0.1, 0.08, 0.18]) == [(0, True), (0.1, False), (0.1, False), (0.2, False)]


STEADY = [number / 10 for number in range(12)]


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        ([*STEADY, 1.9, 2.0], [0]),  # 0.8 s: short
        ([*STEADY, 2.2, 2.3], [0, 12]),  # 1.1 s: eleven frames and over a second
        ([number * 1.5 for number in range(30)], [0]),  # a slow camera
        ([*(number * 0.5 for number in range(12)), 8.5], [0]),  # six frames of it
        ([*(number * 0.5 for number in range(12)), 11.0], [0, 12]),  # eleven
        ([0, 0.1, 20, 20.1], [0]),  # too few to know what is usual
        ([number / 30 for number in range(300)] + [10 + number / 5 for number in range(50)], [0]),  # in the dark
    ],
)
def test_a_pause_that_is_long_for_this_source_begins_a_part(stamps: list[float], expected: list[int]) -> None:
    assert begins(stamps) == expected


def test_what_is_usual_is_that_of_the_part() -> None:
    slow = [STEADY[-1] + 40 + 5 * number for number in range(30)]
    assert begins([*STEADY, *slow]) == [0, 12]
