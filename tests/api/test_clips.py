"""Which frames make a clip: always T of them, within the video, and the same moments at any frame rate."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.api.clips import Clip, duration, evaluation_clips, frames_at, seen, training_clip, window, window_starts

THIRTY = [number / 30 for number in range(90)]
"""Three seconds at 30 frames a second."""


def at(fps: float, seconds: float) -> list[float]:
    return [number / fps for number in range(round(fps * seconds))]


@pytest.mark.parametrize("fps", [15, 25, 29.97, 30, 60, 120])
def test_a_clip_means_the_same_moments_at_any_frame_rate(fps: float) -> None:
    clip = Clip(frames=8, rate=8)
    times = at(fps, 4)
    chosen = [times[number] for number in evaluation_clips(clip, times)[0]]
    start = (duration(times) - clip.span) / 2
    assert chosen == pytest.approx([start + number * clip.step for number in range(8)], abs=1 / fps)


def test_at_the_nominal_rate_a_clip_takes_every_rate_th_frame() -> None:
    assert evaluation_clips(Clip(frames=4, rate=6), THIRTY) == [[33, 39, 45, 51]]
    assert training_clip(Clip(frames=4, rate=6), THIRTY, [0.0] * 4) == [0, 6, 12, 18]


def test_views_in_time_reach_from_the_first_frame_to_the_last() -> None:
    first, middle, last = evaluation_clips(Clip(frames=4, rate=6, clips=3), THIRTY)
    assert (first[0], middle[0], last[0]) == (0, 33, 66)
    assert last[-1] + 6 == len(THIRTY)


def test_segments_take_one_frame_of_each_equal_part() -> None:
    clip = Clip(frames=3, sampling="segments")
    assert evaluation_clips(clip, THIRTY) == [[15, 45, 75]]
    assert training_clip(clip, THIRTY, [0.0, 0.5, 0.99]) == [0, 45, 75]
    assert evaluation_clips(replace(clip, clips=2), THIRTY) == [[7, 37, 67], [22, 52, 82]]


def test_a_short_video_loops_or_holds() -> None:
    short = at(30, 0.2)
    clip = Clip(frames=4, rate=3)
    assert evaluation_clips(clip, short) == [[0, 3, 0, 3]]
    assert evaluation_clips(replace(clip, short="hold"), short) == [[0, 3, 5, 5]]


def test_one_frame_is_a_video() -> None:
    assert evaluation_clips(Clip(frames=3, rate=2), [0.0]) == [[0, 0, 0]]


def test_at_a_variable_rate_the_frame_on_show_is_seen() -> None:
    times = [0.0, 0.1, 1.0, 1.1]
    assert frames_at(Clip(frames=1), times, [0.05, 0.1, 0.9, 1.0, 1.2]) == [0, 1, 1, 2, 3]


@given(
    frames=st.integers(1, 12),
    rate=st.integers(1, 20),
    sampling=st.sampled_from(["strided", "segments"]),
    short=st.sampled_from(["loop", "hold"]),
    clips=st.integers(1, 5),
    gaps=st.lists(st.floats(0.001, 2), min_size=0, max_size=60),
    draws=st.lists(st.floats(0, 1, exclude_max=True), min_size=12, max_size=12),
)
def test_any_video_gives_whole_clips(frames, rate, sampling, short, clips, gaps, draws) -> None:
    times = [0.0]
    for gap in gaps:
        times.append(times[-1] + gap)
    clip = Clip(frames=frames, rate=rate, sampling=sampling, short=short, clips=clips)
    views = [*evaluation_clips(clip, times), training_clip(clip, times, draws[:frames])]
    assert len(views) == clips + 1
    for view in views:
        assert len(view) == frames
        assert all(0 <= number < len(times) for number in view)
    assert set(views[-1]) <= set(seen(clip, times))
    if short == "hold" or duration(times) >= clip.span:
        assert all(view == sorted(view) for view in views)


def test_windows_of_a_timeline_are_whole_and_there_is_one_at_least() -> None:
    assert list(window_starts(3.0, 1.0, 0.5)) == pytest.approx([0, 0.5, 1, 1.5, 2])
    assert list(window_starts(0.4, 1.0, 0.5)) == [0]


def test_a_window_begins_where_asked() -> None:
    assert window(Clip(frames=3, rate=5), THIRTY, 1.0, 0.5) == [30, 35, 40]
    assert window(Clip(frames=2, sampling="segments"), THIRTY, 1.0, 1.0) == [37, 52]


def test_frames_that_are_all_shown_at_once_are_no_error():
    assert frames_at(Clip(frames=2, rate=1, short="loop"), (0.0, 0.0), (0.0, 0.5)) == [1, 1]
