"""The time left: a mean over all steps of this process without its slow first ones, not the last few seconds' rate."""

from __future__ import annotations

import pytest

from tests.runs.test_screen import record, step
from toolkit.runs.pace import Pace, time_left


def watched(seconds: list[float], epochs: int = 2) -> Pace:
    """After steps of the first epoch that took so long each."""
    pace = Pace(epochs)
    for number in range(1, len(seconds) + 1):
        pace.see(step(number, steps=100, seconds=sum(seconds[:number])))
    return pace


def test_nothing_is_known_before_the_second_step() -> None:
    assert Pace(2).left() is None
    assert watched([60.0]).left() is None


def test_the_first_steps_are_dropped_as_soon_as_there_are_others() -> None:
    """They compile and fill caches: 20 s each, then a second each."""
    assert watched([20.0] * 4 + [1.0] * 6).left() == pytest.approx(190.0)


def test_one_slow_step_moves_the_estimate_by_its_share() -> None:
    steady, disturbed = watched([1.0] * 50), watched([1.0] * 49 + [10.0])
    assert steady.left() == pytest.approx(150.0)
    assert disturbed.left() == pytest.approx(150.0 * (1 + 9 / 46))


def test_a_lasting_change_of_load_is_followed() -> None:
    pace = Pace(100)
    for number in range(1, 3001):
        seconds = float(number if number < 1000 else 1000 + 3 * (number - 1000))
        pace.see(step(number, steps=3000, seconds=seconds))
    assert pace.left() == pytest.approx(99 * 3000 * 3.0, rel=0.01)


def test_validation_counts_once_per_epoch_to_come() -> None:
    pace = Pace(3)
    for epoch in (1, 2):
        for number in range(1, 5):
            pace.see(step(number, epoch=epoch, seconds=1.0 * number))
        if epoch == 1:
            pace.see(record(1, valid_seconds=30.0))
    assert pace.left() == pytest.approx(4 * 1.0 + 2 * 30.0)


def test_a_resumed_epoch_counts_the_steps_of_this_process_alone() -> None:
    pace = Pace(1)
    for number, seconds in ((50, 5000.0), (51, 5001.0), (52, 5002.0)):
        pace.see(step(number, steps=100, seconds=seconds))
    assert pace.left() == pytest.approx(48.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s left"), (45.4, "45 s left"), (60.0, "1 min left"), (494.0, "8 min left"), (7500.0, "2 h 5 min left")],
)
def test_time_is_given_in_words(seconds: float, text: str) -> None:
    assert time_left(seconds) == text
