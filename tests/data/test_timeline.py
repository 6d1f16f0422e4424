from __future__ import annotations

from pathlib import Path

import av
import pytest

import toolkit.data.timeline as timeline_module
from tests.video_files import number_in, spoil, without_times, write_video
from toolkit.data.decoding import read_frames, timeline
from toolkit.data.timeline import Timeline


def seen(path: Path, numbers: list[int] | range, of: Timeline | None = None) -> list[int]:
    """The numbers that the frames with these numbers show."""
    return [number_in(pixels) for pixels in read_frames(path, of or timeline(path), numbers)]


# When frames are shown


def test_a_constant_rate(tmp_path):
    found = timeline(write_video(tmp_path / "a.mp4", 30, rate=25))
    assert found.times == pytest.approx([n / 25 for n in range(30)])
    assert found.keyframes == (0, 12, 24)
    assert len(found.stamps) == 30


def test_a_variable_rate(tmp_path):
    times = [0, 0.1, 0.15, 0.5, 1.5, 1.6]
    assert timeline(write_video(tmp_path / "a.mp4", 6, times=times)).times == pytest.approx(times)


def test_times_are_in_the_order_of_presentation_not_of_decoding(tmp_path):
    path = write_video(tmp_path / "a.mp4", 30, reordered=2)
    with av.open(str(path)) as container:
        stamps = [packet.pts for packet in container.demux(video=0) if packet.size]
    assert stamps != sorted(stamps)
    assert timeline(path).times == pytest.approx([n / 10 for n in range(30)])


def test_times_count_from_the_first_frame(tmp_path):
    assert timeline(write_video(tmp_path / "a.mkv", 3, times=[5, 6, 8])).times == pytest.approx([0, 1, 3])


def test_without_times_durations_are_summed(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", 12, rate=10)
    whole = timeline_module.Packet
    monkeypatch.setattr(timeline_module, "Packet", lambda pts, dts, *rest: whole(0, 0, *rest))
    found = timeline(path)
    assert found.times == pytest.approx([n / 10 for n in range(12)])
    assert (found.keyframes, found.stamps) == ((0,), ())
    assert seen(path, [0, 7, 11], found) == [0, 7, 11]


def test_without_times_and_durations_it_is_thirty_frames_a_second(tmp_path):
    path = without_times(write_video(tmp_path / "a.mp4", times=[*(n / 10 for n in range(11)), 1.2]))
    assert timeline(path).times == pytest.approx([n / 30 for n in range(12)])
    assert seen(path, [3, 11]) == [3, 11]


def test_times_that_the_demuxer_guesses_are_not_relied_on_to_find_frames(tmp_path):
    found = timeline(write_video(tmp_path / "a.avi", 30, reordered=2))
    assert found.times == pytest.approx([n / 10 for n in range(30)])
    assert (found.keyframes, found.stamps) == ((0,), ())
    assert timeline(write_video(tmp_path / "b.avi", 30)).keyframes == (0, 12, 24)


def test_nothing_is_decoded_to_know_the_times(tmp_path, monkeypatch):
    path = spoil(write_video(tmp_path / "a.mp4", 20), range(20))
    assert len(timeline(path).times) == 20
