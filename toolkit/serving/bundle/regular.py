"""The one rule for the files of a bundle: regular, of a single name, and no larger than a model."""

from __future__ import annotations

from pathlib import Path

from toolkit.api.errors import BundleError
from toolkit.api.files import special_kind
from toolkit.serving.bundle.wire import AGAIN

LARGEST_FILE = 16 << 30
"""Bytes of one file: a larger one is refused before it is read."""


def check_regular(path: Path, *, largest: int = LARGEST_FILE) -> None:
    """Raise BundleError unless the file at `path` is safe to read, OSError where it is not found."""
    if problem := irregularity(path, largest=largest):
        raise BundleError(f"{path}: {problem}", next_step=AGAIN)


def irregularity(path: Path, *, largest: int = LARGEST_FILE) -> str | None:
    """Why a file is not safe to read; None where it is. Raises OSError where it is not found.

    A hard link shows what a file elsewhere holds, which sharing the bundle would publish."""
    found = path.stat()
    if special := special_kind(found):
        return f"expected a regular file, got {special}"
    if found.st_nlink > 1:
        return f"expected a file of one name, got one with {found.st_nlink} (hard links)"
    if found.st_size > largest:
        return f"has {found.st_size:,} bytes; the limit is {largest:,}"
    return None
