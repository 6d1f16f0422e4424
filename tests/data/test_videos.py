from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import toolkit.data.videos as videos_module
from tests.video_files import BROKEN, number_in, write_video
from toolkit.api.clips import middle
from toolkit.api.contracts import Split, VideoSplit
from toolkit.api.errors import DataError
from toolkit.data.videos import ArrayVideos, FramesOf, VideoFiles


def files(*paths: Path) -> VideoFiles:
    names = tuple(path.name for path in paths)
    return VideoFiles(names, tuple(range(len(paths))), tuple(f"key of {name}" for name in names), paths)


def seen(split: VideoSplit, index: int, numbers: list[int] | range) -> list[int]:
    return [number_in(pixels.permute(1, 2, 0)) for pixels in split.read(index, numbers)]


# Files


def test_video_files_are_a_split(tmp_path):
    split = files(write_video(tmp_path / "a.mp4", 30), write_video(tmp_path / "b.mkv", 12, times=range(12)))
    assert isinstance(split, VideoSplit)
    assert list(split.times(0)) == pytest.approx([n / 10 for n in range(30)])
    assert list(split.times(1)) == pytest.approx(range(12))
    assert seen(split, 0, [0, 7, 29]) == [0, 7, 29]
    assert seen(split, 1, range(12)) == list(range(12))
    chosen = split.select([1])
    assert (chosen.ids, chosen.targets, chosen.keys, len(chosen)) == (("b.mkv",), (1,), ("key of b.mkv",), 1)
    assert list(chosen.times(0)) == list(split.times(1))


def test_pixels_lie_as_they_were_decoded(tmp_path):
    (pixels,) = files(write_video(tmp_path / "a.mp4")).read(0, [5])
    assert (pixels.shape, pixels.dtype) == ((3, 48, 64), torch.uint8)
    assert pixels.permute(1, 2, 0).is_contiguous()


def test_the_times_of_a_file_are_read_once(tmp_path, monkeypatch):
    asked: list[Path] = []
    whole = videos_module.timeline
    monkeypatch.setattr(videos_module, "timeline", lambda path: asked.append(path) or whole(path))
    split = files(write_video(tmp_path / "once.mp4"))
    for _ in range(3):
        split.times(0)
        seen(split, 0, [2])
    assert len(asked) == 1


def test_a_changed_file_has_another_key_and_is_read_again(tmp_path):
    path = write_video(tmp_path / "changing.mp4", 5)
    assert len(files(path).times(0)) == 5
    write_video(path, 9)
    assert len(VideoFiles(("a",), (0,), ("another key",), (path,)).times(0)) == 9


def test_several_threads_read_the_same_videos(tmp_path):
    split = files(*(write_video(tmp_path / f"{n}.mp4", 20 + n) for n in range(3)))
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda n: (len(split.times(n % 3)), seen(split, n % 3, [n, 19])), range(18)))
    assert found == [(20 + n % 3, [n, 19]) for n in range(18)]


# Broken files

READABLE = {
    "truncated.mp4": None,
    "one_frame.mp4": 1,
    "rotated.mp4": 12,
    "variable_rate.mp4": 6,
    "4k.mp4": 2,
    "odd_size.mkv": 3,
    "wrong_suffix.avi": 12,
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_among_good_ones_is_read_or_named(tmp_path, name):
    good = [write_video(tmp_path / f"good{n}.mp4", 8) for n in range(2)]
    split = files(good[0], BROKEN[name](tmp_path), good[1])
    if name in READABLE:
        count = len(split.times(1))
        assert count == (READABLE[name] or count) >= 1
        sizes = {pixels.shape for pixels in split.read(1, range(count))}
        assert sizes == {
            {"rotated.mp4": (3, 64, 48), "4k.mp4": (3, 2160, 3840), "odd_size.mkv": (3, 241, 321)}.get(
                name, (3, 48, 64)
            )
        }
    else:
        for ask in (lambda: split.times(1), lambda: list(split.read(1, [0]))):
            with pytest.raises(DataError) as caught:
                ask()
            assert caught.value.path == split.paths[1]
    for index in (0, 2):
        assert seen(split, index, range(8)) == list(range(8))


def test_a_file_cut_short_gives_what_is_left(tmp_path):
    split = files(BROKEN["truncated.mp4"](tmp_path))
    count = len(split.times(0))
    assert 3 < count < 60
    assert seen(split, 0, range(count - 1)) == list(range(count - 1))


def test_frames_come_one_by_one(tmp_path):
    """However long the video: memory holds a few frames of it."""
    split = files(write_video(tmp_path / "a.mp4", 60, size=(640, 480)))
    frame = 640 * 480 * 3
    tracemalloc.start()
    for pixels in split.read(0, range(60)):
        del pixels
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * frame


def test_the_documentation_names_every_kind_of_broken_file():
    words = ("cut short", "empty", "text", "sound only", "single frame", "rotated", "variable", "4K", "odd", "suffix")
    assert [word for word in words if word not in videos_module.__doc__] == []


# Arrays and single frames


def in_memory(count: int = 3, frames: int = 4) -> ArrayVideos:
    pixels = torch.arange(count * frames * 3 * 4, dtype=torch.uint8).reshape(count, frames, 3, 2, 2)
    names = tuple("abcdefgh"[:count])
    return ArrayVideos(names, tuple(range(count)), tuple(f"key-{name}" for name in names), pixels, 8.0)


def test_array_videos_are_a_split():
    split = in_memory()
    assert isinstance(split, VideoSplit)
    assert list(split.times(0)) == [0, 0.125, 0.25, 0.375]
    assert torch.equal(torch.stack(list(split.read(1, [0, 3]))), split.pixels[1, [0, 3]])
    chosen = split.select((2, 0))
    assert (chosen.ids, chosen.targets, chosen.keys, chosen.fps) == (("c", "a"), (2, 0), ("key-c", "key-a"), 8.0)
    assert torch.equal(next(chosen.read(0, [1])), split.pixels[2, 1])
    assert len(split.select(())) == 0


@pytest.mark.parametrize(
    ("total", "parts", "expected"), [(12, 3, [2, 6, 10]), (10, 4, [1, 3, 6, 8]), (2, 4, [0, 0, 1, 1]), (9, 1, [4])]
)
def test_middles(total, parts, expected):
    assert [middle(total, part, parts) for part in range(parts)] == expected


def test_frames_of_videos_are_a_split_of_images():
    videos = in_memory()
    split = FramesOf(videos, 2)
    assert isinstance(split, Split)
    assert split.ids == ("a#0", "a#1", "b#0", "b#1", "c#0", "c#1")
    assert split.targets == (0, 0, 1, 1, 2, 2)
    assert len(split) == len(set(split.keys)) == 6
    assert torch.equal(split.read(3), videos.pixels[1, 3])
    assert set(split.keys).isdisjoint(FramesOf(videos, 3).keys)


def test_frames_of_files_are_the_middles_of_equal_parts(tmp_path):
    split = FramesOf(files(write_video(tmp_path / "a.mp4", 12), write_video(tmp_path / "b.mp4", 2)), 3)
    assert [number_in(split.read(n).permute(1, 2, 0)) for n in range(6)] == [2, 6, 10, 0, 1, 1]


def test_a_broken_video_is_an_error_when_a_frame_of_it_is_read(tmp_path):
    split = FramesOf(files(BROKEN["text.mp4"](tmp_path)), 3)
    assert len(split) == 3
    with pytest.raises(DataError, match=r"text.mp4: cannot be decoded"):
        split.read(1)
