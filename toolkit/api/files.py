"""Files on disk, and how to write them as a whole."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

UNFINISHED = ".unfinished-"
"""Stands in the name of a file that is still being written."""
_OF_SYSTEMS = frozenset(
    {
        *("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"),
        *("Thumbs.db", "ehthumbs.db", "desktop.ini", "Desktop.ini"),
    }
)
"""Folders and files that systems and archivers add to those of people, and do not hide."""
_ON_LINUX = sys.platform == "linux"
_CLAIM = ".claim"
"""Ends the name of the file that says, by its lock, whether a folder is still being written."""
LARGEST_TEXT = 2**28
"""Bytes of a recipe, list or table at most: the text of a larger one would fill the memory."""

_SPECIAL = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def special_kind(found: os.stat_result) -> str | None:
    """What a file of this status is, if it is not regular: a FIFO or a device may block its reader, or never end. None
    where it is a regular file."""
    mode = found.st_mode
    return None if stat.S_ISREG(mode) else _SPECIAL.get(stat.S_IFMT(mode), "a special file")


def read_regular(path: Path, *, largest: int = LARGEST_TEXT) -> bytes:
    """The content of a file. Raises OSError that names it and has the reason, also where it is not a regular file, or
    has more than `largest` bytes."""
    found = path.stat()
    if special := special_kind(found):
        number = errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.EINVAL
        raise OSError(number, f"expected a regular file, got {special}", str(path))
    if found.st_size > largest:
        raise OSError(errno.EFBIG, f"has {found.st_size:,} bytes; the limit is {largest:,}", str(path))
    return path.read_bytes()


def cache_directory() -> Path:
    """The folder for what can be made again: `TOOLKIT_CACHE`, else the user's cache folder of this system."""
    from pathlib import Path

    return Path(cache_place())


def cache_place() -> str:
    """The path of `cache_directory`, for commands that only print: importing pathlib would be a twentieth of what they
    take. Raises RuntimeError where the user's home folder is unknown."""
    named = os.environ.get("TOOLKIT_CACHE")
    if named:
        return _in_home(named)
    if _ON_LINUX:  # as platformdirs has it, whose import would be a tenth of what most commands take
        folder = os.environ.get("XDG_CACHE_HOME", "").strip()
        return f"{folder if folder.startswith('/') else _in_home('~/.cache')}/toolkit"
    import platformdirs

    return platformdirs.user_cache_dir("toolkit", appauthor=False)


def _in_home(path: str) -> str:
    """`path` with the folder of a user in place of `~` or `~NAME`. Raises RuntimeError where that is unknown."""
    found = os.path.expanduser(path)  # noqa: PTH111 (a Path costs time)
    if found.startswith("~"):
        raise RuntimeError(f"the home folder of {path} is unknown")
    return found


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; what is written there takes its place, synced, when the block
    succeeds. What killed writers of `path` have left is removed first."""
    import glob

    _make_parents(path)
    _remove_abandoned(path.parent.glob(f".{glob.escape(path.name)}{UNFINISHED}*"))
    with naming(path), _claimed(path, path.suffix) as temporary:
        try:
            yield temporary
            _sync(temporary)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    if os.name == "posix":
        _sync(path.parent)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let errors of the file system name `path`, which the user knows of: a full disk names nothing, other errors name
    the temporary file, and FFmpeg's cannot be changed."""
    try:
        yield
    except OSError as error:
        if error.filename is None or UNFINISHED in str(error.filename):
            raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
        raise


@contextmanager
def unwritable_by_others() -> Iterator[None]:
    """Let nobody but the owner write what is made inside, where the umask would let everyone (0 in many containers and
    services). A umask that excludes others, such as 002, is the user's choice and stays."""
    before = os.umask(0o022)
    if before & 0o002:
        os.umask(before)
    try:
        yield
    finally:
        os.umask(before)


def write_atomically(path: Path, data: bytes) -> None:
    """Put `data` at `path` whole or not at all. Makes parent folders."""
    with replaced(path) as temporary:
        temporary.write_bytes(data)


def free_name(path: Path) -> Path:
    """`path`, or the first of `path-2`, `path-3`, … that does not exist."""
    number, found = 1, path
    while os.path.lexists(found):
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found


def as_utf8(text: str) -> bytes:
    """`text` for a file that may hold names of files: bytes of a name that are not UTF-8 become escapes."""
    return text.encode("utf-8", "backslashreplace")


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """The lines of a CSV file. Texts are in quotes, so that all are read back as they are: with any newline, which
    without quotes would end a row for some readers and not for others."""
    import csv
    import io

    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerows(rows)
    return text.getvalue()


def remove_unfinished(folder: Path) -> None:
    """Remove what killed writers have left in `folder` and below it; what is being written stays."""
    _remove_abandoned(folder.rglob(f".*{UNFINISHED}*"))


def is_junk(name: str) -> bool:
    """Whether a file or folder of this name belongs to a system, not to data: it is hidden, or added by an archiver."""
    return name.startswith(".") or name in _OF_SYSTEMS


def files_below(
    folder: Path | str,
    suffixes: Collection[str] | None,
    prefix: str = "",
    *,
    unreadable: Callable[[OSError], None] | None = None,
) -> Iterator[str]:
    """The paths, relative to `folder` and with `prefix` before them, of the files below it with one of these suffixes
    in lower case (None: any). Hidden files and folders are skipped, and what systems add.

    Links are followed, but each folder is entered once: by its own path where it lies below `folder`. A folder that
    cannot be read raises OSError, or is skipped and its error given to `unreadable`.
    """
    entered: set[tuple[int, int]] = set()
    own, linked = [(str(folder), prefix)], list[tuple[str, str]]()
    while own or linked:
        place, before = own.pop() if own else linked.pop()
        try:
            status = os.stat(place)  # noqa: PTH116 (a Path a folder costs time)
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(place) as found:
                entries = sorted((one for one in found if not is_junk(one.name)), key=lambda one: one.name)
        except OSError as error:
            if unreadable is None:
                raise
            unreadable(error)
            continue
        for entry in entries:
            if is_folder(entry):
                (linked if entry.is_symlink() else own).append((entry.path, f"{before}{entry.name}/"))
            elif suffixes is None or os.path.splitext(entry.name)[1].lower() in suffixes:  # noqa: PTH122 (a Path a file costs seconds at 60k)
                yield f"{before}{entry.name}"


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself: its reader says what is wrong
        return False


def _remove_abandoned(found: Iterable[Path]) -> None:
    for path in list(found):
        with suppress(OSError, ValueError), path.open("r+b") as file:  # a folder cannot be opened: its claim can
            if not _locked(file.fileno(), wait=False):
                continue
            if path.suffix == _CLAIM:
                _Folders.claimed_by(path).clear()
            path.unlink(missing_ok=True)


def _make_parents(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path.parent)) from error


@contextmanager
def _claimed(path: Path, suffix: str) -> Iterator[Path]:
    """Yield a new, empty file in the folder of `path`. This process holds its lock, which the system takes back when
    the process dies, however it does and on whichever machine: who gets the lock knows that nobody works on it any
    more."""
    while True:
        temporary = path.with_name(f".{path.name}{UNFINISHED}{os.urandom(4).hex()}{suffix}")
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        with suppress(OSError):
            _locked(descriptor, wait=True)
        if temporary.exists():
            break
        os.close(descriptor)  # another cleaned up between the two
    try:
        yield temporary
    finally:
        os.close(descriptor)


@contextmanager
def exclusive(
    lock: Path,
    *,
    waiting: Callable[[], None] = lambda: None,
    unlockable: Callable[[OSError], None] = lambda _: None,
) -> Iterator[None]:
    """Keep every other process out of the block that names the same file, which stays empty. The system lifts the lock
    when its holder ends, however it does.

    `waiting` is called where another process is in its block, before that is waited for. A file system without locks
    keeps nobody out; `unlockable` is called with its error."""
    with lock.open("a") as file:
        try:
            free = _locked(file.fileno(), wait=False)
        except OSError as error:
            unlockable(error)
            free = True
        if not free:
            waiting()
            _locked(file.fileno(), wait=True)
        yield


def _locked(descriptor: int, *, wait: bool) -> bool:
    """Whether this process has the lock now, and no other. Raises OSError where the file system has no locks."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL or not path.is_dir():  # some file systems sync no folder
            raise
    finally:
        os.close(descriptor)


class _Folders(NamedTuple):
    """A folder to write, and its unfinished copy next to it."""

    place: Path
    coming: Path
    before: Path
    """What stood at `place`."""

    @classmethod
    def claimed_by(cls, claim: Path) -> _Folders:
        stem = claim.name.removesuffix(_CLAIM)
        place = stem.removeprefix(".").rpartition(UNFINISHED)[0]
        return cls(claim.with_name(place), claim.with_name(stem), claim.with_name(f"{stem}.before"))

    def move(self) -> None:
        if os.path.lexists(self.place):
            self.place.rename(self.before)
        self.coming.rename(self.place)

    def clear(self) -> None:
        """Remove what is not at `place`, but that which stood there, where nothing does."""
        import shutil

        if os.path.lexists(self.before) and not os.path.lexists(self.place):
            self.before.rename(self.place)
        for path in (self.coming, self.before):
            if path.is_symlink():
                path.unlink()
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder next to `path`; it takes the place of `path`, whole, when the block succeeds, and is
    removed when it does not. Folders that killed writers have left next to `path` are removed first."""
    _make_parents(path)
    _remove_abandoned(path.parent.glob(f".*{UNFINISHED}*{_CLAIM}"))
    with naming(path), _claimed(path, _CLAIM) as claim:
        folders = _Folders.claimed_by(claim)
        try:
            folders.coming.mkdir()
            yield folders.coming
            for written in folders.coming.rglob("*"):
                _sync(written)
            folders.move()
            _sync(path.parent)
        finally:
            folders.clear()
            claim.unlink(missing_ok=True)
