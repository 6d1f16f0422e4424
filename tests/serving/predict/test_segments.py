"""Events from answers over time."""

from __future__ import annotations

import math

import numpy as np
import pytest

from toolkit.serving.predict.segment_scores import iou, mean_average_precision
from toolkit.serving.predict.segments import Segment, Segments
from toolkit.system.segmentation import Segmentation

PLAIN = Segmentation(smooth=0, high=0.6, low=0.4, shortest=0)


def found(rule: Segmentation, values: list[float], every: float = 1.0, **how: object) -> list[tuple[float, ...]]:
    """Start, end and score of the events of one class whose answers, in the middle of each second, are `values`."""
    segments = Segments(rule, ["a"], every, **how)  # type: ignore[arg-type]
    events: list[Segment] = []
    for place, value in enumerate(values):
        events += segments.add((place + 0.5) * every, np.array([value], np.float32))
    events += segments.finish(len(values) * every)
    return [(one.start, one.end, round(one.score, 3)) for one in events]


def test_an_event_begins_and_ends_at_the_low_probability_and_reaches_the_high_one() -> None:
    assert found(PLAIN, [0, 0.5, 0.7, 0.5, 0.1]) == [(1, 4, 0.567)]
    assert found(PLAIN, [0, 0.5, 0.5, 0.5, 0.1]) == []


def test_a_short_fall_does_not_end_an_event_that_stays_above_the_low_probability() -> None:
    assert found(PLAIN, [0.9, 0.45, 0.9]) == [(0, 3, 0.75)]
    assert found(PLAIN, [0.9, 0.3, 0.9]) == [(0, 1, 0.9), (2, 3, 0.9)]


def test_an_event_reaches_to_the_ends_of_the_video() -> None:
    assert found(PLAIN, [0.9, 0.9]) == [(0, 2, 0.9)]
    assert found(PLAIN, []) == []


def test_smoothing_passes_over_a_single_answer() -> None:
    rule = Segmentation(smooth=3, high=0.6, low=0.4, shortest=0)
    assert found(rule, [1, 1, 0, 1, 1]) == [(0, 5, pytest.approx(0.8, abs=0.06))]
    assert found(rule, [0, 0, 1, 0, 0]) == []


def test_short_events_are_dropped() -> None:
    rule = Segmentation(smooth=0, high=0.6, low=0.4, shortest=2)
    assert found(rule, [0, 0.9, 0, 0.9, 0.9, 0]) == [(3, 5, 0.9)]


def test_the_time_between_answers_counts() -> None:
    assert found(PLAIN, [0, 0.9, 0.9, 0], every=0.5) == [(0.5, 1.5, 0.9)]


def test_thresholds_of_classes_stand_in_place_of_the_high_probability() -> None:
    assert found(PLAIN, [0, 0.25, 0.15, 0], thresholds=[0.2]) == [(1, 3, 0.2)]


def test_classes_have_events_of_their_own() -> None:
    segments = Segments(PLAIN, ["a", "b"], 1.0)
    events: list[Segment] = []
    for place, row in enumerate([[0.9, 0.1], [0.9, 0.7], [0.1, 0.7]]):
        events += segments.add(place + 0.5, np.array(row, np.float32))
    events += segments.finish(3)
    assert [(one.label, one.start, one.end) for one in events] == [("a", 0, 2), ("b", 1, 3)]


def test_what_is_held_does_not_grow_with_the_video() -> None:
    segments = Segments(Segmentation(smooth=9), ["a"], 1.0)
    for place in range(1000):
        for _ in segments.add(place + 0.5, np.array([place // 10 % 2], np.float32)):
            pass
        assert len(segments._near) <= 10


def test_overlap_is_what_both_have_of_what_either_has() -> None:
    assert iou(Segment("a", 0, 4, 1), Segment("a", 2, 6, 1)) == pytest.approx(1 / 3)
    assert iou(Segment("a", 0, 1, 1), Segment("a", 2, 3, 1)) == 0


def test_mean_average_precision_of_known_cases() -> None:
    truth = {"v": [Segment("a", 0, 10, 1), Segment("a", 20, 30, 1)], "w": [Segment("b", 0, 10, 1)]}

    def score(overlap: float, **segments: list[Segment]) -> float:
        return mean_average_precision(segments, truth, overlap)

    right = {"v": truth["v"], "w": truth["w"]}
    assert score(0.7, **right) == 1
    assert score(0.5) == 0
    assert score(0.5, v=truth["v"]) == 0.5  # one of two classes
    half = [Segment("a", 0, 10, 0.9)]
    assert score(0.5, v=half) == 0.25
    wrong_first = [Segment("a", 50, 60, 0.9), Segment("a", 0, 10, 0.8), Segment("a", 20, 30, 0.7)]
    assert score(0.5, v=wrong_first) == pytest.approx(0.5 * 2 / 3)
    twice = [Segment("a", 0, 10, 0.9), Segment("a", 0, 9, 0.8), Segment("a", 20, 30, 0.7)]
    assert score(0.5, v=twice) == pytest.approx(0.5 * (0.5 + 0.5 * 2 / 3))  # the second finds nothing more
    loose = [Segment("a", 0, 16, 0.9), Segment("a", 20, 30, 0.8)]
    assert score(0.7, v=loose) == pytest.approx(0.5 * 0.5 * 0.5)
    assert math.isnan(mean_average_precision({}, {"v": []}, 0.5))
