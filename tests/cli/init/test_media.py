"""What `init` sees of single files."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.plugins.data_files import write_image, write_video
from toolkit.api.errors import DataError
from toolkit.cli.init import media
from toolkit.cli.init.media import look_at


def test_sizes_of_images_and_which_are_damaged(tmp_path: Path) -> None:
    for number in range(3):
        write_image(tmp_path / f"{number}.jpg", height=40 + number, width=100)
    whole = write_image(tmp_path / "cut.jpg", height=200, width=200).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no image", "utf-8")
    (tmp_path / "layers.jpg").write_bytes(b"8BPS" + bytes(60))
    names = ["0.jpg", "1.jpg", "2.jpg", "cut.jpg", "layers.jpg", "text.png"]
    found = look_at(tmp_path, names, videos=False)
    assert (found.short, found.looked) == (41, 6)
    assert [name for name, _ in found.damaged] == ["cut.jpg", "layers.jpg", "text.png"]
    assert dict(found.damaged)["text.png"].startswith("cannot be decoded: it is not a JPEG, PNG, WebP")


def test_of_an_animation_the_first_picture_is_seen(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (0, 200)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:])
    assert [one.short for one in look_at(tmp_path, ["a.webp"], videos=False).seen] == [8]


def test_durations_and_frame_rates_of_videos(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames=6, rate=10)
    write_video(tmp_path / "b.mp4", frames=12, rate=10)
    (tmp_path / "c.mp4").write_text("no video", "utf-8")
    found = look_at(tmp_path, ["a.mp4", "b.mp4", "c.mp4"], videos=True)
    assert (found.short, round(found.rate), round(found.seconds, 1)) == (48, 10, 0.9)
    assert [name for name, _ in found.damaged] == ["c.mp4"]


def test_some_of_many_files_evenly_spaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "MOST", 3)
    names = [f"{number}.png" for number in range(10)]
    for number, name in enumerate(names):
        write_image(tmp_path / name, height=10 + number)
    assert [one.short for one in look_at(tmp_path, names, videos=False).seen] == [10, 13, 16]


def test_a_slow_drive_ends_the_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "SECONDS", -1.0)
    names = ["a.png", "b.png"]
    for name in names:
        write_image(tmp_path / name)
    assert look_at(tmp_path, names, videos=False).looked == 1


def test_files_of_which_none_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no image", "utf-8")
    with pytest.raises(DataError, match=r"none of 1 files can be read; a\.png: cannot be decoded: it is not a JPEG"):
        look_at(tmp_path, ["a.png"], videos=False)
