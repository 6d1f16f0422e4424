"""Files and folders get to their place whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from toolkit.api import files
from toolkit.api.files import (
    exclusive,
    files_below,
    read_regular,
    remove_unfinished,
    replaced,
    replaced_folder,
    special_kind,
    write_atomically,
)


def filled(place: Path, text: str) -> None:
    with replaced_folder(place) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "file").write_text(text)


@pytest.mark.parametrize("before", [None, "old"])
def test_a_folder_takes_its_place_whole(tmp_path: Path, before: str | None) -> None:
    place = tmp_path / "parent" / "place"
    if before:
        filled(place, before)
        (place / "extra").touch()
    filled(place, "new")
    assert (place / "inner" / "file").read_text() == "new"
    assert [path.name for path in place.iterdir()] == ["inner"]
    assert list(place.parent.iterdir()) == [place]


def test_the_umask_decides_on_permissions_and_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading it means to set it, for all threads of the process."""
    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "umask", lambda mask: pytest.fail("set"))
            write_atomically(tmp_path / "file", b"")
            filled(tmp_path / "place", "")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"file": 0o640, "place": 0o750}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_failed_leaves_the_old_folder_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    place = tmp_path / "place"
    filled(place, "old")

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise error

    with pytest.raises(error), replaced_folder(place) as folder:
        fail(folder)
    assert (place / "inner" / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.parametrize("write", [lambda place: write_atomically(place, b""), lambda place: filled(place, "")])
def test_what_cannot_be_written_is_named_as_the_caller_did(tmp_path: Path, write: Callable[[Path], None]) -> None:
    """The error does not name the temporary file, nor say that a file exists where a folder should be."""
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError) as within_a_file:
        write(tmp_path / "file" / "place")
    assert within_a_file.value.filename == str(tmp_path / "file")
    place = tmp_path / ("long" * 60)
    with pytest.raises(OSError, match="too long") as refused:
        write(place)
    assert refused.value.filename == str(place)


FOLDER = """
with replaced_folder(Path("place")) as folder:
    (folder / "half").touch()
    input()
"""
FILE = """
with replaced(Path("place")) as path:
    path.write_text("half")
    input()
"""
BETWEEN = """
rename = Path.rename
def renamed(path, target):
    rename(path, target)
    input()
Path.rename = renamed
with replaced_folder(Path("place")) as folder:
    (folder / "inner").mkdir()
"""


@contextmanager
def writing(parent: Path, code: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that writes below `parent` and is in the middle of it; killed in the end."""
    code = "from pathlib import Path\nfrom toolkit.api.files import replaced, replaced_folder\n" + code
    waiting = code.replace("input()", "print(flush=True); input()")
    with subprocess.Popen(
        [sys.executable, "-c", waiting], cwd=parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        try:
            yield process
        finally:
            process.send_signal(signal.SIGKILL)


def fail_without_a_name(temporary: Path) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def fail_with_the_temporary_name(temporary: Path) -> None:
    (temporary / "missing" / "b").write_text("")


@pytest.mark.parametrize("fail", [fail_without_a_name, fail_with_the_temporary_name])
@pytest.mark.parametrize("writing", [replaced, replaced_folder])
def test_what_the_system_refuses_names_the_file_that_was_to_be_written(
    tmp_path: Path, writing: Callable[[Path], AbstractContextManager[Path]], fail: Callable[[Path], None]
) -> None:
    place = tmp_path / "a.txt"
    with pytest.raises(OSError, match=re.escape(str(place))) as caught, writing(place) as temporary:
        fail(temporary)
    assert caught.value.filename == str(place)


def test_an_error_of_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"other\.txt"), replaced(tmp_path / "a.txt"):
        (tmp_path / "other.txt").read_text()


def test_special_files_are_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    assert special_kind((tmp_path / "file").stat()) is None
    assert special_kind((tmp_path / "pipe").stat()) == "a FIFO"
    assert special_kind(tmp_path.stat()) == "a folder"
    assert special_kind(Path(os.devnull).stat()) == "a device"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (os.mkfifo, "expected a regular file, got a FIFO"),
        (lambda path: path.symlink_to("/dev/zero"), "expected a regular file, got a device"),
        (lambda path: (path.touch(), os.truncate(path, 200 << 30)), "has 214,748,364,800 bytes; the limit is 100"),
        (Path.mkdir, "expected a regular file, got a folder"),
    ],
)
def test_what_blocks_its_reader_or_never_ends_is_not_read(
    make: Callable[[Path], object], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "it"
    make(path)
    with pytest.raises(OSError, match=re.escape(reason)) as caught:
        read_regular(path, largest=100)
    assert caught.value.filename == str(path)
    assert caught.value.strerror == reason


def test_what_a_killed_writer_left_goes_with_the_next_folder(tmp_path: Path) -> None:
    with writing(tmp_path, FOLDER):
        assert list(tmp_path.glob(".*"))
    filled(tmp_path / "other", "new")
    assert list(tmp_path.iterdir()) == [tmp_path / "other"]


def test_what_a_living_writer_has_begun_stays(tmp_path: Path) -> None:
    with writing(tmp_path, FOLDER) as process:
        filled(tmp_path / "place", "new")
        filled(tmp_path / "other", "new")
        (half,) = tmp_path.rglob("half")
        assert half.parent.parent == tmp_path
        process.communicate(b"\n")
    assert process.returncode == 0
    assert (tmp_path / "place" / "half").exists()
    assert sorted(tmp_path.iterdir()) == [tmp_path / "other", tmp_path / "place"]


def test_a_folder_moved_aside_by_a_killed_writer_comes_back(tmp_path: Path) -> None:
    place = tmp_path / "place"
    filled(place, "old")
    with writing(tmp_path, BETWEEN):
        assert not place.exists()
    filled(tmp_path / "other", "new")
    assert (place / "inner" / "file").read_text() == "old"
    assert sorted(tmp_path.iterdir()) == [tmp_path / "other", place]


def test_a_folder_moved_aside_comes_back_when_its_successor_cannot_be_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    filled(place, "old")
    rename = Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        if target == place and path.joinpath("inner", "file").read_text() == "new":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        filled(place, "new")
    assert (place / "inner" / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [place]


def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "parent").mkdir()
    place = tmp_path / "parent" / "place"
    for number, target in enumerate(("elsewhere", "nowhere")):
        if target == "elsewhere":
            filled(tmp_path / target, "kept")
        else:
            place.rename(tmp_path / f"moved-{number}")
        place.symlink_to(tmp_path / target)
        filled(place, "new")
        assert not place.is_symlink()
        assert (place / "inner" / "file").read_text() == "new"
        assert list(place.parent.iterdir()) == [place]
    assert (tmp_path / "elsewhere" / "inner" / "file").read_text() == "kept"


def test_what_a_killed_writer_left_of_a_file_goes_with_the_next_one_there(tmp_path: Path) -> None:
    with writing(tmp_path, FILE):
        write_atomically(tmp_path / "place", b"other")
        assert len(list(tmp_path.glob(".*"))) == 1  # a living writer's stays
    write_atomically(tmp_path / "place", b"new")
    assert list(tmp_path.iterdir()) == [tmp_path / "place"]


def test_only_what_nobody_works_on_is_removed(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    with writing(tmp_path / "inner", FILE), writing(tmp_path, FOLDER):
        before = sorted(tmp_path.rglob("*"))
        remove_unfinished(tmp_path)
        assert sorted(tmp_path.rglob("*")) == before
    remove_unfinished(tmp_path)
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "inner"]


def test_where_nothing_can_be_locked_files_are_written_and_none_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(os.strerror(95))

    with writing(tmp_path, FOLDER):
        pass
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr("fcntl.flock", refuse)
    filled(tmp_path / "other", "new")
    write_atomically(tmp_path / "file", b"new")
    remove_unfinished(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "other", tmp_path / "file"])


def test_files_are_written_where_folders_cannot_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fsync

    def refuse(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    write_atomically(tmp_path / "file", b"new")
    filled(tmp_path / "folder", "new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert (tmp_path / "folder" / "inner" / "file").read_text() == "new"


def test_a_file_that_another_cleaned_away_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, tried = files._locked, []

    def late(descriptor: int, *, wait: bool) -> bool:
        tried.append(descriptor)
        if len(tried) == 1:
            for path in tmp_path.glob(".*"):
                path.unlink()
        return lock(descriptor, wait=wait)

    monkeypatch.setattr(files, "_locked", late)
    write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert len(tried) == 2


def test_a_block_is_for_one_at_a_time(tmp_path: Path) -> None:
    seen: list[str] = []

    def second() -> None:
        with exclusive(tmp_path / ".lock"):
            seen.append("second")

    other = threading.Thread(target=second)
    with exclusive(tmp_path / ".lock"):
        other.start()
        other.join(timeout=0.2)
        seen.append("first")
    other.join()
    assert seen == ["first", "second"]


def test_a_block_is_entered_where_nothing_can_be_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr("fcntl.flock", refuse)
    errors: list[OSError] = []
    with exclusive(tmp_path / ".lock", waiting=lambda: pytest.fail("waited"), unlockable=errors.append):
        assert (tmp_path / ".lock").read_bytes() == b""
    assert [error.errno for error in errors] == [errno.ENOTSUP]


def touched(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_files_below_a_folder_are_found_by_their_suffix_without_hidden_ones(tmp_path: Path) -> None:
    touched(tmp_path, "b/1.png", "b/deep/2.PNG", "a.png", "notes.txt", ".hidden.png", ".git/3.png", "none")
    assert sorted(files_below(tmp_path, {".png"})) == ["a.png", "b/1.png", "b/deep/2.PNG"]
    assert sorted(files_below(tmp_path / "b", {".png"}, "x/")) == ["x/1.png", "x/deep/2.PNG"]
    assert sorted(files_below(tmp_path, None)) == ["a.png", "b/1.png", "b/deep/2.PNG", "none", "notes.txt"]


def test_links_are_followed_and_each_folder_is_entered_once_by_its_own_path(tmp_path: Path) -> None:
    """However many links lead from folder to folder: all ways along them would be more than can be walked."""
    names = [f"{number:02}" for number in range(20)]
    touched(tmp_path / "in", *(f"{name}/{name}.png" for name in names))
    touched(tmp_path / "sibling", "x.png")
    for name in names:
        for other in names:
            (tmp_path / "in" / name / f"to-{other}").symlink_to(tmp_path / "in" / other)
    (tmp_path / "in/00/above").symlink_to(tmp_path)
    found = sorted(files_below(tmp_path / "in", {".png"}))
    assert found == sorted([*(f"{name}/{name}.png" for name in names), "00/above/sibling/x.png"])


def test_a_link_that_leads_to_itself_is_a_file(tmp_path: Path) -> None:
    touched(tmp_path, "a.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "loop").symlink_to("loop")
    assert list(files_below(tmp_path, {".png"})) == ["a.png", "loop.png"]


def test_a_deep_folder_is_walked(tmp_path: Path) -> None:
    place = tmp_path
    for _ in range(400):
        place /= "d"
    touched(place, "x.png")
    assert len(list(files_below(tmp_path, {".png"}))) == 1


def test_a_folder_that_cannot_be_read_is_an_error_or_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touched(tmp_path, "a/1.png", "b/2.png")
    scan = os.scandir

    def refuse(place: str) -> object:
        if place.endswith("a"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), place)
        return scan(place)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError):
        list(files_below(tmp_path, {".png"}))
    errors: list[OSError] = []
    assert list(files_below(tmp_path, {".png"}, unreadable=errors.append)) == ["b/2.png"]
    assert [error.filename for error in errors] == [str(tmp_path / "a")]
