from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest
from av.error import InvalidDataError
from hypothesis import given, settings
from hypothesis import strategies as st

import toolkit.data.decoding as frames_module
from tests.video_files import (
    HEIGHT,
    WIDTH,
    cut,
    number_in,
    rotate,
    small,
    spoil,
    without_times,
    write_sound,
    write_video,
)
from toolkit.api.errors import DataError
from toolkit.data.decoding import read_frames, timeline
from toolkit.data.timeline import Timeline


def seen(path: Path, numbers: list[int] | range, of: Timeline | None = None, **how: object) -> list[int]:
    """The numbers that the frames with these numbers show."""
    return [number_in(pixels) for pixels in read_frames(path, of or timeline(path), numbers, **how)]


def only_index(path: Path) -> Path:
    """An MP4 file that ends where its frames begin."""
    data = write_video(path, movflags="+faststart").read_bytes()
    return small(path, data[: data.index(b"mdat") + 4])


# Which frames are given


@pytest.mark.parametrize("reordered", [0, 2])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_every_frame_is_given(tmp_path, suffix, reordered):
    path = write_video(tmp_path / f"a.{suffix}", 40, reordered=reordered)
    pixels = list(read_frames(path, timeline(path), range(40)))
    assert [number_in(one) for one in pixels] == list(range(40))
    assert {(one.shape, one.dtype.name, one.flags.c_contiguous) for one in pixels} == {
        ((HEIGHT, WIDTH, 3), "uint8", True)
    }


@pytest.fixture(scope="module")
def long_videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("long")
    irregular = [n / 10 + (n % 3) / 40 for n in range(100)]
    return [
        write_video(folder / "plain.mp4", 100),
        write_video(folder / "reordered.mp4", 100, reordered=2),
        write_video(folder / "irregular.mkv", 100, times=irregular),
        write_video(folder / "reordered.avi", 100, reordered=2),
        write_video(folder / "plain.avi", 100),
        write_video(folder / "stream.ts", 100, codec="mpeg2video", rate=25),
    ]


@settings(max_examples=40)
@given(st.sets(st.integers(0, 99), min_size=1, max_size=8), st.integers(0, 5), st.sampled_from([1, 3]))
def test_any_frames_are_the_same_as_in_sequence(long_videos, numbers, which, threads):
    assert seen(long_videos[which], sorted(numbers), threads=threads) == sorted(numbers)


def test_a_far_frame_is_sought(long_videos, monkeypatch):
    decoded: list[object] = []
    whole = frames_module._decoded

    def counted(*arguments):
        for picture in whole(*arguments):
            decoded.append(picture)
            yield picture

    monkeypatch.setattr(frames_module, "_decoded", counted)
    assert seen(long_videos[0], [1, 61, 97]) == [1, 61, 97]
    assert len(decoded) <= 2 + 12 + 12


def test_no_frames_are_asked_for(tmp_path):
    assert list(read_frames(tmp_path / "gone.mp4", Timeline((0.0,), (0,)), [])) == []


def test_a_timeline_made_by_hand_is_counted_by(tmp_path):
    assert seen(write_video(tmp_path / "a.mp4", 30), [2, 29], Timeline((0.0,), (0, 12, 24))) == [2, 29]


def test_a_seek_that_leads_too_far_is_made_up_for(long_videos, monkeypatch):
    right = frames_module._Decoding._seek
    monkeypatch.setattr(frames_module._Decoding, "_seek", lambda self, keyframe: right(self, keyframe + 12))
    assert seen(long_videos[0], [1, 58, 71]) == [1, 58, 71]


def test_a_container_that_cannot_seek_is_read_from_its_start(long_videos, monkeypatch):
    class Unseekable:
        def __init__(self, container: object) -> None:
            self.demux, self.format = container.demux, container.format

        def seek(self, *_: object, **how: object) -> None:
            raise InvalidDataError(1, "no seeking here")

    right = frames_module._Decoding.__init__
    monkeypatch.setattr(
        frames_module._Decoding,
        "__init__",
        lambda self, container, *others, **how: right(self, Unseekable(container), *others, **how),
    )
    assert seen(long_videos[0], [1, 61, 97]) == [1, 61, 97]


def test_a_stopped_reader_ends(tmp_path):
    path, stop = write_video(tmp_path / "a.mp4", 40), threading.Event()
    reader = read_frames(path, timeline(path), range(40), stop=stop)
    assert number_in(next(reader)) == 0
    stop.set()
    assert list(reader) == []
    assert list(read_frames(path, timeline(path), range(40), stop=stop)) == []


def test_a_turned_video_is_turned_upright(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    (flat,) = read_frames(path, timeline(path), [5])
    (upright,) = read_frames(rotate(path), timeline(path), [5])
    assert upright.shape == (WIDTH, HEIGHT, 3)
    assert np.array_equal(upright, np.rot90(flat, -1))


def test_frames_of_another_size_are_brought_to_that_of_the_first(tmp_path):
    parts = [
        write_video(tmp_path / f"{side}.ts", 6, size=(side, side), codec="mpeg2video", rate=25) for side in (64, 96)
    ]
    path = small(tmp_path / "both.ts", b"".join(part.read_bytes() for part in parts))
    pixels = list(read_frames(path, timeline(path), range(12)))
    assert {one.shape for one in pixels} == {(64, 64, 3)}
    assert {number_in(one) for one in pixels} == set(range(6))


def test_the_cover_of_a_song_is_not_a_video(tmp_path):
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuvj420p"
        stream.disposition = av.stream.Disposition.attached_pic
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        shown = [stream.disposition for stream in container.streams.video]
    assert shown == [av.stream.Disposition.attached_pic]
    with pytest.raises(DataError, match=r"song.mp4: has no video stream"):
        timeline(path)


def test_a_title_of_unknown_encoding_does_no_harm(tmp_path):
    written = write_video(tmp_path / "a.mkv", title="TITLE123").read_bytes()
    assert b"TITLE123" in written
    path = small(tmp_path / "b.mkv", written.replace(b"TITLE123", b"\xff\xfe\x80TITLE"))
    assert seen(path, [3]) == [3]


def test_a_name_with_a_colon_is_not_a_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_video(tmp_path / "a.mp4").rename("concat:a.mp4")
    assert seen(path, [3]) == [3]


def test_a_playlist_fetches_nothing(tmp_path):
    path = small(
        tmp_path / "a.mp4", b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
    )
    with pytest.raises(DataError, match=r"a.mp4: "):
        timeline(path)


# Damage


def test_a_frame_that_cannot_be_decoded_is_the_one_before_it(tmp_path):
    path = spoil(write_video(tmp_path / "a.mp4", 40, codec="mjpeg", pix_fmt="yuvj420p"), [20, 21, 39])
    expected = [*range(20), 19, 19, *range(22, 39), 38]
    assert seen(path, range(40)) == expected
    for number in (20, 21, 22, 39):
        assert seen(path, [number]) == [expected[number]]


@pytest.mark.parametrize(
    ("suffix", "codec", "reordered"),
    [("mp4", "libx264", 0), ("mp4", "libx264", 3), ("avi", "mpeg4", 2), ("mp4", "mpeg4", 0), ("mp4", "libx265", 0)],
)
def test_the_number_of_threads_changes_no_damaged_frame(
    tmp_path: Path, suffix: str, codec: str, reordered: int
) -> None:
    path = spoil(write_video(tmp_path / f"a.{suffix}", 60, codec=codec, reordered=reordered), range(20, 45))
    found = timeline(path)
    for numbers in (range(60), range(0, 60, 7), [25], [44, 59]):
        alone, together = (list(read_frames(path, found, numbers, threads=threads)) for threads in (1, 3))
        assert len(alone) == len(together) == len(numbers)
        assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


def test_before_the_first_frame_that_can_be_decoded_comes_that_one(tmp_path):
    path = spoil(write_video(tmp_path / "a.mp4", 40, codec="mjpeg", pix_fmt="yuvj420p"), [0, 1])
    assert seen(path, [0, 1, 2, 3]) == [2, 2, 2, 3]


def test_frames_that_are_counted_keep_their_numbers_when_one_is_lost(tmp_path):
    path = write_video(
        tmp_path / "a.mp4", 20, codec="mjpeg", pix_fmt="yuvj420p", times=[*(n / 10 for n in range(19)), 3]
    )
    assert not timeline(without_times(spoil(path, [5]))).stamps
    assert seen(path, range(20)) == [*range(5), 4, *range(6, 20)]


def test_a_video_of_which_nothing_can_be_decoded_is_an_error(tmp_path):
    path = spoil(write_video(tmp_path / "a.mp4", 20), range(20))
    with pytest.raises(DataError, match=r"a.mp4: none of its frames can be decoded") as caught:
        list(read_frames(path, timeline(path), [3]))
    assert caught.value.path == path
    assert caught.value.next_step == 'Replace or remove the file, or set input.on_corrupt = "skip".'


def test_a_file_cut_short_has_the_frames_that_are_left(tmp_path):
    whole = write_video(tmp_path / "a.mp4", 100, movflags="+faststart")
    left = len(timeline(cut(whole, 0.8)).times)
    assert 30 < left < 90
    assert seen(whole, [0, left // 2, left - 2]) == [0, left // 2, left - 2]
    assert len(list(read_frames(whole, timeline(whole), range(left)))) == left


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path, "does not exist"),
        (lambda path: path.mkdir() or path, "not a file"),
        (lambda path: small(path, b""), "cannot be decoded: Invalid data found when processing input"),
        (lambda path: small(path, b"text\n" * 999), "cannot be decoded: Invalid data found when processing input"),
        (lambda path: cut(write_video(path, 99), 0.5), "cannot be decoded: "),
        (lambda path: write_sound(path.with_suffix(".mkv")), "has no video stream"),
        (only_index, "has no frames"),
    ],
)
def test_what_is_not_a_video_is_an_error_that_names_it(tmp_path, make, message):
    path = make(tmp_path / "a.mp4")
    with pytest.raises(DataError) as caught:
        timeline(path)
    assert caught.value.message.startswith(f"{path}: {message}")
    assert caught.value.path == path
    assert caught.value.next_step


def test_a_video_that_has_gone_since_is_an_error(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    known = timeline(path)
    path.unlink()
    with pytest.raises(DataError, match=r"a.mp4: does not exist"):
        list(read_frames(path, known, [0]))


@settings(max_examples=60)
@given(
    st.sampled_from(["mp4", "mkv", "avi"]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=40)), min_size=1, max_size=6),
)
def test_any_damage_gives_frames_or_an_error_of_the_data(tmp_path_factory, suffix, damage):
    path = write_video(tmp_path_factory.mktemp("damaged") / f"a.{suffix}", 20, reordered=1)
    data = bytearray(path.read_bytes())
    for share, junk in damage:
        place = int(share * len(data))
        data[place : place + len(junk)] = junk[: len(data) - place]
    path.write_bytes(data)
    with suppress(DataError):
        found = timeline(path)
        pixels = list(read_frames(path, found, range(len(found.times))))
        assert len(pixels) == len(found.times) >= 1
        assert len({one.shape for one in pixels}) == 1
        assert list(found.times) == sorted(set(found.times))
        assert found.times[0] == 0


def test_the_module_needs_no_torch():
    code = "import sys, toolkit.data.decoding; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.real
def test_clips_whose_packets_carry_no_times_are_read(real_data):
    path = sorted((real_data / "fight").glob("fight/*.mp4"))[0]
    found = timeline(path)
    assert found.times[1] in (1 / 25, 1 / 30)
    assert len(list(read_frames(path, found, [0, len(found.times) - 1]))) == 2


@pytest.mark.real
def test_every_clip_of_ucf101_has_its_frames_in_order(real_data):
    for path in sorted(real_data.glob("ucf101-fixture/*/*.avi")):
        found = timeline(path)
        last = len(found.times) - 1
        whole = list(read_frames(path, found, range(last + 1)))
        for number, pixels in zip((last // 3, last), read_frames(path, found, (last // 3, last)), strict=True):
            assert np.array_equal(whole[number], pixels)
