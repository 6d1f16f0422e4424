"""What a user is told of a cache that takes nothing more."""

from __future__ import annotations

import threading
from pathlib import Path

_told: set[Path] = set()
_one = threading.Lock()


def tell_unwritten(folder: Path, error: OSError) -> None:
    """Say that a cache folder cannot be written, once in this process however many splits and videos find it so: what
    is computed stays the same, but decoding anew takes longer than its user expects."""
    with _one:
        told = folder in _told
        _told.add(folder)
    if not told:
        _print(
            f"warning: {folder}: cannot be written: {error.strerror or error}; what it does not keep is decoded "
            "anew each time: make room, mend the folder, or name another cache in TOOLKIT_CACHE"
        )


def _print(text: str) -> None:
    """One line on standard error, above the live line of a run where there is one."""
    from rich.console import Console

    Console(stderr=True, highlight=False).print(text, style="yellow", markup=False, soft_wrap=True)
