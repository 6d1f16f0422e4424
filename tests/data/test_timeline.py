from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest

import toolkit.data.timeline as timeline_module
from tests.video_files import cut, joined, number_in, spoil, without_times, write_video
from toolkit.api.clips import Clip, duration, frames_at, window_starts
from toolkit.data.decoding import read_frames, timeline
from toolkit.data.timeline import Clock, Packet, Timeline


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


# How long the last frame is on show

PHOTOS = {"gif": "rgb8", "mjpeg": "yuvj420p"}
SAYS = [
    ("mp4", "mpeg4"),
    ("mp4", "libx264"),
    ("mp4", "mjpeg"),
    ("mov", "mpeg4"),
    ("m4v", "mpeg4"),
    ("3gp", "mpeg4"),
    ("mkv", "mpeg4"),
    ("mkv", "libx264"),
    ("mkv", "ffv1"),
    ("webm", "libvpx"),
    ("gif", "gif"),
]


@pytest.mark.parametrize(("suffix", "codec"), SAYS)
def test_the_last_frame_is_on_show_for_as_long_as_its_packet_says(tmp_path: Path, suffix: str, codec: str) -> None:
    path = tmp_path / f"a.{suffix}"
    write_video(path, 3, times=[0, 0.4, 1.0], last=9.0, codec=codec, pix_fmt=PHOTOS.get(codec, "yuv420p"))
    times = timeline(path).times
    assert times == pytest.approx([0, 0.4, 1.0])
    assert duration(times) == pytest.approx(10)
    assert list(window_starts(duration(times), 0.0, 1.0))[-1] == pytest.approx(10)


def test_a_container_that_does_not_say_so_shows_it_as_long_as_the_others(tmp_path: Path) -> None:
    assert duration(timeline(write_video(tmp_path / "a.flv", 3, codec="flv", times=[0, 0.4, 1.0])).times) == 1.5


def test_a_single_frame_is_on_show_for_as_long_as_its_packet_says(tmp_path: Path) -> None:
    assert duration(timeline(write_video(tmp_path / "a.mkv", 1, times=[0], last=4.0)).times) == pytest.approx(4)


def test_in_a_gap_the_frame_before_it_stays_on_show(tmp_path: Path) -> None:
    times = timeline(write_video(tmp_path / "a.mp4", 3, times=[0, 0.5, 60.0], last=0.5)).times
    assert frames_at(Clip(frames=1), times, [0.2, 1.0, 30.0, 59.9, 60.2]) == [0, 1, 1, 1, 2]
    assert duration(times) == pytest.approx(60.5)


def packets_of(*shown: tuple[int | None, int | None, int]) -> list[Packet]:
    return [Packet(pts, dts, lasts, key=True) for pts, dts, lasts in shown]


def test_times_hours_apart_are_damage() -> None:
    """A flipped bit makes a stamp of years, and a timeline of as many rows."""
    hour = 3600 * 1000
    apart = timeline_module._timeline(
        packets_of((0, 0, 100), (100, 100, 100), (hour + 101, hour + 101, 100)), 0.001, stored=True
    )
    assert apart.times == pytest.approx([0, 0.1, 0.2])
    assert apart.stamps == ()
    lasting = timeline_module._timeline(packets_of((0, 0, 100), (100, 100, hour + 1)), 0.001, stored=True)
    assert duration(lasting.times) == pytest.approx(0.2)


# Several recordings in a row


def recording(path: Path, frames: int, first: int, start: float = 0.0, **how: Any) -> Path:
    """`frames` frames a tenth of a second each, the first shown at `start`."""
    return write_video(path, frames, first=first, times=[start + number / 10 for number in range(frames)], **how)


H264 = {"codec": "libx264"}
REORDERED = {"codec": "libx264", "reordered": 2}
JOINED = {
    "the same times": ("ts", [0, 0], H264),
    "times between those of the first": ("ts", [0, 0.55], H264),
    "times before those of the first": ("ts", [3, 0], H264),
    "three recordings": ("ts", [0, 0, 0], H264),
    "three with times that overlap": ("ts", [1, 0.5, 0.7], H264),
    "reordered, the same times": ("ts", [0, 0], REORDERED),
    "reordered, times between": ("ts", [0, 0.55], REORDERED),
    "reordered, times before": ("ts", [3, 0], REORDERED),
    "reordered, three recordings": ("ts", [0, 0, 0], REORDERED),
    "Matroska": ("mkv", [0, 0], H264),
    "Matroska, times between": ("mkv", [0, 0.5], H264),
}


@pytest.mark.parametrize("name", JOINED)
def test_recordings_in_a_row_are_shown_one_after_the_other(tmp_path: Path, name: str) -> None:
    suffix, starts, how = JOINED[name]
    parts = [recording(tmp_path / f"{n}.{suffix}", 20, 20 * n, start, **how) for n, start in enumerate(starts)]
    path = joined(tmp_path / f"all.{suffix}", *parts)
    found, count = timeline(path), 20 * len(starts)
    assert found.times == pytest.approx([number / 10 for number in range(count)])
    assert duration(found.times) == pytest.approx(count / 10)
    assert seen(path, range(count)) == list(range(count))
    for number in (7, 19, 20, 33, count - 1):
        assert seen(path, [number]) == [number]


def test_recordings_of_dvds_in_a_row(tmp_path: Path) -> None:
    how: dict[str, Any] = {"codec": "mpeg2video", "rate": 25, "reordered": 2}
    parts = [write_video(tmp_path / f"{n}.mpg", 20, first=20 * n, **how) for n in range(2)]
    path = joined(tmp_path / "all.vob", *parts)
    assert timeline(path).times == pytest.approx([number / 25 for number in range(40)])
    assert seen(path, range(40)) == list(range(40))


def test_a_recording_that_begins_later_leaves_a_gap(tmp_path: Path) -> None:
    parts = [recording(tmp_path / f"{n}.ts", 20, 20 * n, 4.0 * n, **H264) for n in range(2)]
    path = joined(tmp_path / "all.ts", *parts)
    expected = [number / 10 + (2 if number >= 20 else 0) for number in range(40)]
    assert timeline(path).times == pytest.approx(expected)
    assert seen(path, range(40)) == list(range(40))


def test_a_slip_between_keyframes_begins_no_recording() -> None:
    slipped = [(0, True), (100, False), (99, False), (200, False), (300, True)]
    clock = Clock(SimpleNamespace(time_base=Fraction(1, 1000)))
    for dts, key in slipped:
        clock.take(dts, key=key)
    assert clock.part == 0
    clock.take(None, key=True)
    clock.take(299, key=True)
    assert clock.part == 1


# What is lost


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("mp4", "mpeg4"), ("mov", "mpeg4"), ("mkv", "mpeg4"), ("webm", "libvpx"), ("flv", "flv"), ("mkv", "ffv1")],
)
def test_frames_that_an_index_or_a_length_claims_and_that_are_gone_are_lost(
    tmp_path: Path, suffix: str, codec: str
) -> None:
    how = {"movflags": "+faststart"} if suffix in ("mp4", "mov") else {}
    path = write_video(tmp_path / f"a.{suffix}", 60, codec=codec, **how)
    assert timeline(path).lost == 0
    found = timeline(cut(path, 0.8))
    assert 0 < len(found.times) < 60
    assert found.lost == pytest.approx(60 - len(found.times), abs=1)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts", "flv", "webm", "gif", "mpg", "nut"])
def test_nothing_is_lost_of_a_whole_file(tmp_path: Path, suffix: str) -> None:
    codec, rate = {"ts": ("mpeg2video", 25), "mpg": ("mpeg2video", 25), "flv": ("flv", 10)}.get(suffix, ("mpeg4", 10))
    codec = {"webm": "libvpx", "gif": "gif"}.get(suffix, codec)
    path = write_video(tmp_path / f"a.{suffix}", 40, codec=codec, rate=rate, pix_fmt=PHOTOS.get(codec, "yuv420p"))
    assert timeline(path).lost == 0
