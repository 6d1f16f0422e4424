"""Which files of a dataset may be read: regular ones, for a pipe, a socket or a device can block or never end."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from toolkit.api.errors import DataError
from toolkit.api.files import special_kind


def require_regular(path: Path, found: os.stat_result | None = None) -> None:
    """Raise DataError where a pipe, a socket or a device is at `path`; `found` is its status where it is known."""
    if found is None:
        try:
            found = path.stat()
        except OSError:  # who opens it reports the reason
            return
    special = special_kind(found)
    if special and not stat.S_ISDIR(found.st_mode):
        raise DataError(
            f"expected a regular file, got {special}", path=path, next_step="Move it out of the folder of the data."
        )
