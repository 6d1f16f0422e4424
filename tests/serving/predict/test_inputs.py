"""What the words of `predict` stand for."""

from __future__ import annotations

import os
import string
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.api.errors import DataError, UsageError, printable
from toolkit.serving.predict.inputs import Source, find_sources


def put(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def names(*words: str, listed: bytes = b"") -> list[str]:
    return [source.name for source in find_sources(words, listed.splitlines(keepends=True)).sources]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_files_come_as_they_are_named_even_twice(tmp_path: Path) -> None:
    put(tmp_path, "b.jpg", "a.MP4", "c")
    assert names("b.jpg", "./a.MP4", "b.jpg", "c") == ["b.jpg", "./a.MP4", "b.jpg", "c"]
    assert [source.kind for source in find_sources(["b.jpg", "a.MP4", "c"], ()).sources] == ["image", "video", "image"]


def test_of_a_folder_the_images_and_videos_below_come_in_order(tmp_path: Path) -> None:
    put(tmp_path, "in/b/1.png", "in/a.JPG", "in/b/0.webm", "in/notes.txt", "in/.hidden.jpg", "in/.git/1.jpg")
    assert names("in") == ["in/a.JPG", "in/b/0.webm", "in/b/1.png"]
    assert names("in/") == ["in/a.JPG", "in/b/0.webm", "in/b/1.png"]


def test_links_between_folders_are_followed_once(tmp_path: Path) -> None:
    put(tmp_path, "in/deep/1.png", "sibling/2.png")
    (tmp_path / "in/deep/up").symlink_to(tmp_path / "in/deep")
    (tmp_path / "in/other").symlink_to(tmp_path / "sibling")
    (tmp_path / "in/deep/whole").symlink_to(tmp_path / "in")
    assert names("in") == ["in/deep/1.png", "in/other/2.png"]


def test_a_pattern_matches_images_and_videos_and_those_in_folders(tmp_path: Path) -> None:
    put(tmp_path, "in/1.png", "in/2.png", "in/notes.txt", "in/deep/3.png", "in/deep/er/4.mkv", "in/none/notes.txt")
    assert names("in/[12].png") == ["in/1.png", "in/2.png"]
    assert names("in/*") == ["in/1.png", "in/2.png", "in/deep/3.png", "in/deep/er/4.mkv"]
    assert names("in/**") == ["in/1.png", "in/2.png", "in/deep/3.png", "in/deep/er/4.mkv"]


def test_an_existing_file_is_not_a_pattern_and_no_camera(tmp_path: Path) -> None:
    put(tmp_path, "a[1].png", "a1.png", "0/1.png", "http:/x.png")
    assert names("a[1].png", "0") == ["a[1].png", "0/1.png"]


def test_standard_input_lists_paths_literally(tmp_path: Path) -> None:
    put(tmp_path, "b.png", "*.png", "in/1.png", "with space.png")
    listed = b"b.png\r\n\n*.png\nin\nwith space.png\nhttp://x/v.mp4\ngone.png"
    expected = ["b.png", "*.png", "in/1.png", "with space.png", "http://x/v.mp4", "gone.png"]
    assert names("-", listed=listed) == expected
    assert find_sources(["-"], [b"b.png\n", b"gone.png"]).sources[1].kind == "unusable"


def test_a_name_that_is_not_utf8_is_found(tmp_path: Path) -> None:
    raw = b"caf\xe9.png"
    Path(os.fsdecode(raw)).write_bytes(b"")
    (source,) = find_sources(["-"], [raw + b"\n"]).sources
    assert source.kind == "image"
    assert printable(source.name) == "caf\\udce9.png"


@pytest.mark.parametrize("name", ["a\nb.png", "\x1b[31mred.png", "tab\t.png"])
def test_what_cannot_be_printed_is_escaped(name: str) -> None:
    assert printable(name).isprintable()


@pytest.mark.parametrize(
    ("word", "source"),
    [
        ("0", Source("camera 0", "camera", "0")),
        ("12", Source("camera 12", "camera", "12")),
        ("rtsp://me:secret@cam:554/1", Source("rtsp://cam:554/1", "stream", "rtsp://me:secret@cam:554/1")),
        ("HTTP://cam/live?key=1", Source("http://cam/live?key=1", "stream", "HTTP://cam/live?key=1")),
        ("https://x/v.MP4?t=1", Source("https://x/v.MP4?t=1", "video", "https://x/v.MP4?t=1")),
    ],
)
def test_cameras_and_urls(word: str, source: Source) -> None:
    assert find_sources([word], ()).sources == [source]


@pytest.mark.parametrize(
    ("words", "message", "next_step"),
    [
        ([], "no input is given", "predict BUNDLE"),
        (["-", "-"], "standard input can be read only once", "give -"),
        (["0", "a.png"], "camera 0 does not end", "give 0 alone"),
        (["a.png", "rtsp://me:secret@cam/1"], "rtsp://cam/1 does not end", "give rtsp://cam/1 alone"),
        (["ftp://x/v.mp4"], "ftp://x/v.mp4: unsupported URL scheme ftp", "http, https, rtsp"),
        (["http://[x/v.mp4"], "invalid URL http://[x/v.mp4: Invalid IPv6 URL", "http://server/video.mp4"),
    ],
)
def test_words_without_a_meaning_are_refused(tmp_path: Path, words: list[str], message: str, next_step: str) -> None:
    put(tmp_path, "a.png")
    with pytest.raises(UsageError) as caught:
        find_sources(words, ())
    assert message in caught.value.message
    assert next_step in str(caught.value.next_step)
    assert "secret" not in f"{caught.value.message} {caught.value.next_step}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["phto.png"], 'phto.png: no such file or folder; did you mean "photo.png"?'),
        (["nowhere/a.png"], "nowhere/a.png: no such file or folder"),
        (["empty"], "empty: no image or video file found in it (JPEG, PNG"),
        (["*.jpg"], "*.jpg: no image or video file matches"),
        (["-"], "standard input: it contains no path; expected one per line"),
        (["gone.png", "empty"], "gone.png: no such file or folder (and 1 more that cannot be used)"),
    ],
)
def test_finding_nothing_is_an_error_that_says_why(tmp_path: Path, words: list[str], message: str) -> None:
    put(tmp_path, "photo.png", "empty/notes.txt")
    with pytest.raises(DataError) as caught:
        find_sources(words, [])
    assert caught.value.message.startswith(message)
    assert "folders" in str(caught.value.next_step)


def test_what_is_missing_among_others_is_reported_later(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "empty/notes.txt")
    found = find_sources(["gone.png", "a.png", "empty", "*.jpg"], ()).sources
    assert [source.kind for source in found] == ["unusable", "image", "unusable", "unusable"]
    assert [source.name for source in found] == ["gone.png", "a.png", "empty", "*.jpg"]


def test_a_folder_that_may_not_be_read_is_unusable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "in/1.png", "in/locked/2.png")
    scan = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = find_sources(["in"], ()).sources
    assert [(source.name, source.problem) for source in found] == [("in/1.png", ""), ("in/locked", "Permission denied")]


def test_a_folder_in_one_that_may_only_be_listed_is_unusable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "in/1.png", "in/sub/2.png")
    scan, stat = os.scandir, Path.stat

    def refuse(path: Path | str, *given: object, **more: object) -> Any:
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return (stat if isinstance(path, Path) else scan)(path, *given, **more)  # type: ignore[operator]

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(Path, "stat", refuse)
    found = find_sources(["in"], ()).sources
    assert [(source.name, source.problem) for source in found] == [("in/1.png", ""), ("in/sub", "Permission denied")]


@given(st.lists(st.text(string.ascii_letters + string.digits + " .[]*?-_é", min_size=1, max_size=12), min_size=1))
def test_every_word_is_reported_and_none_is_lost(words: list[str]) -> None:
    given_words = [f"x{word}" for word in words]
    with pytest.raises(DataError) as caught:
        find_sources(given_words, ())
    assert caught.value.message.startswith(f"{given_words[0]}: ")
    if len(words) > 1:
        assert f"(and {len(words) - 1:,} more" in caught.value.message


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_name_is_found_in_the_form_that_a_system_wrote(tmp_path: Path, form: str) -> None:
    file = tmp_path / unicodedata.normalize(form, "caf\u00e9.png")
    file.write_bytes(b"")
    for other in ("NFC", "NFD"):
        word = unicodedata.normalize(other, str(file))
        listed = f"path;label\n{word};x\n".encode("utf-8-sig").splitlines(keepends=True)
        assert [source.place for source in find_sources([word, "-"], listed).sources] == [str(file), str(file)]


def test_a_list_that_is_not_text_is_an_error_that_names_the_line() -> None:
    with pytest.raises(DataError, match=r"^standard input: line 1: is not text"):
        find_sources(["-"], [b"a\0b"])
