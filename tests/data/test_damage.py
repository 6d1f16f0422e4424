"""Frames that cannot be decoded are counted in the whole video, however little is read, and reported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.video_files import cut, flipped, spoil, write_video
from toolkit.api.errors import DataError
from toolkit.data import decoding
from toolkit.data.damage import Damage, hearing_of_damage, notice
from toolkit.data.decoding import examined, read_frames, timeline
from toolkit.data.store.corrupt import Corrupt, Skipped

Hurt: TypeAlias = Callable[[Path, Sequence[int]], Path]
BAD = range(20, 30)
KINDS: list[tuple[str, str, str, Hurt, int | None]] = [
    ("mp4", "libx264", "yuv420p", spoil, 10),
    ("mp4", "libx264", "yuv420p", flipped, None),
    ("mp4", "mpeg4", "yuv420p", spoil, 10),
    ("mp4", "mpeg4", "yuv420p", flipped, None),
    ("avi", "mpeg4", "yuv420p", spoil, 10),
    ("avi", "mpeg4", "yuv420p", flipped, None),
    ("avi", "mjpeg", "yuvj420p", spoil, 10),
    ("mov", "prores", "yuv422p10le", spoil, 10),
    ("avi", "msmpeg4", "yuv420p", spoil, 10),
    ("mp4", "libx265", "yuv420p", spoil, 10),
    ("mov", "mpeg4", "yuv420p", spoil, 10),
    ("mkv", "mpeg4", "yuv420p", spoil, 20),  # its blocks cannot be found any more: it ends there
    ("webm", "libvpx", "yuv420p", spoil, 20),
    ("webm", "libvpx-vp9", "yuv420p", spoil, 20),
]
"""Container, codec, pixels, what is done to ten of forty frames, and how many cannot be decoded then (None: some)."""


def heard(path: Path, numbers: Sequence[int]) -> list[Damage]:
    with hearing_of_damage() as found:
        list(read_frames(path, timeline(path), numbers))
    return found


@pytest.mark.parametrize(("suffix", "codec", "pix_fmt", "hurt", "bad"), KINDS)
def test_frames_that_cannot_be_decoded_are_counted(
    tmp_path: Path, suffix: str, codec: str, pix_fmt: str, hurt: Hurt, bad: int | None
) -> None:
    path = write_video(tmp_path / f"a.{suffix}", 40, codec=codec, pix_fmt=pix_fmt)
    whole = len(timeline(path).times)
    assert heard(path, range(whole)) == []
    hurt(path, BAD)
    left = len(timeline(path).times)
    (damage,) = heard(path, range(left))
    assert damage == Damage(bad or damage.frames, 40)
    assert 1 <= damage.frames <= 20
    assert heard(path, [min(25, left - 1)]) == [damage]


def test_what_reading_does_not_meet_it_does_not_notice(tmp_path: Path) -> None:
    path = spoil(write_video(tmp_path / "a.mp4", 60), range(40, 50))
    assert heard(path, [3, 20]) == []
    assert heard(path, [3, 45]) == [Damage(10, 60)]


def test_frames_that_are_lost_with_the_end_count(tmp_path: Path) -> None:
    path = cut(write_video(tmp_path / "a.mp4", 60, movflags="+faststart"), 0.8)
    left = len(timeline(path).times)
    (damage,) = heard(path, [0])
    assert damage.total == 60
    assert 60 - left <= damage.frames <= 60 - left + 1  # the last one is cut in two


def test_where_nobody_hears_nothing_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Damage:
        raise AssertionError("counted")

    path = spoil(write_video(tmp_path / "a.mp4", 40), BAD)
    monkeypatch.setattr(decoding, "examined", refuse)
    assert len(list(read_frames(path, timeline(path), [25]))) == 1
    notice(Damage(1, 2))


def test_a_video_is_examined_once(tmp_path: Path) -> None:
    path = spoil(write_video(tmp_path / "a.mp4", 40), BAD)
    examined.cache_clear()
    for _ in range(3):
        assert heard(path, [25]) == [Damage(10, 40)]
    assert examined.cache_info().misses == 1


def test_readings_within_a_reading_hear_of_their_own() -> None:
    with hearing_of_damage() as outer:
        notice(Damage(1, 10))
        with hearing_of_damage() as inner:
            notice(Damage(2, 10))
        notice(Damage(0, 10))
        notice(Damage(3, 10))
    assert (outer, inner) == ([Damage(1, 10), Damage(3, 10)], [Damage(2, 10)])
    assert str(Damage(1_500, 2_000)) == "1,500 of 2,000 frames cannot be decoded"


# What becomes of a damaged item


@pytest.mark.parametrize("frames", range(1, 11))
def test_from_a_share_on_a_damaged_item_is_one_that_cannot_be_decoded(frames: int) -> None:
    corrupt = Corrupt(damaged_share=0.4)
    found = [Damage(0, 10), Damage(frames, 10)]
    if frames < 4:
        assert corrupt.accept("a.mp4", found) == Damage(frames, 10)
        return
    with pytest.raises(DataError) as caught:
        corrupt.accept("a.mp4", found)
    assert caught.value.message == (f"a.mp4: {frames} of 10 frames cannot be decoded, and input.damaged_share = 0.4")
    assert "--set input.on_corrupt=skip" in str(caught.value.next_step)


def test_damage_is_noted_with_the_items() -> None:
    skipped = Skipped(Corrupt(skip=True, limit=1), ("a.mp4", "b.mp4", "c.mp4", "d.mp4"))
    skipped.accept(0, [])
    skipped.accept(1, [Damage(1, 100)])
    skipped.accept(2, [Damage(7, 100)])
    skipped.add(2, DataError("c.mp4: too much"))
    skipped.accept(3, [Damage(2, 100)])
    assert list(skipped.notes("train")) == [
        "train: skipped 1 of 4 items that cannot be read: c.mp4: too much",
        "train: 2 items of 4 damaged in part: b.mp4: 1 of 100 frames cannot be decoded; "
        "d.mp4: 2 of 100 frames cannot be decoded",
    ]
    assert list(Skipped(Corrupt(), ("a",)).notes("train")) == []
