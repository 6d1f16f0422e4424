"""Where things lie on disk and how they get there whole."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = ".unfinished-"
"""Stands in the name of a file that is still being written."""


def cache_directory() -> Path:
    """The folder for what can be made again: `TOOLKIT_CACHE`, else the user's cache folder of this system."""
    named = os.environ.get("TOOLKIT_CACHE")
    if named:
        return Path(named).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("toolkit", appauthor=False)


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what is written there takes its place, synced, when the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}{UNFINISHED}", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _sync(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        _sync(path.parent)


def write_atomically(path: Path, data: bytes) -> None:
    """Put `data` at `path` whole or not at all. Makes parent folders."""
    with replaced(path) as temporary:
        temporary.write_bytes(data)


def as_utf8(text: str) -> bytes:
    """`text` for a file that may tell names of files: bytes of a name that are not UTF-8 become escapes."""
    return text.encode("utf-8", "backslashreplace")


def remove_unfinished(folder: Path) -> None:
    """Remove what killed writers have left in `folder` and below it, where nobody may be writing now."""
    for path in folder.rglob(f".*{UNFINISHED}*"):
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; it takes the place of `path`, whole, when the block succeeds, and is removed
    when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name}{UNFINISHED}"
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=prefix))
    try:
        yield temporary
        for written in temporary.rglob("*"):
            _sync(written)
        temporary.chmod(0o777 & ~_umask())
        if path.exists():
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=prefix) as aside:
                path.rename(Path(aside) / path.name)
                temporary.rename(path)
        else:
            temporary.rename(path)
        _sync(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
