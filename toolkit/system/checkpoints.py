"""Names, format and checksum of a run's checkpoints: for training, which writes them, and for models that start from
one.

A checkpoint is a zip archive, as `torch.save` writes it. The comment of the archive holds the SHA-256 of all bytes
before it: other programs still read the file, and every changed bit is found before the content is parsed.
"""

from __future__ import annotations

import glob
import hashlib
import io
import os
from pathlib import Path
from typing import BinaryIO, Final

FORMAT: Final = 3
"""Stands in each checkpoint; another one belongs to another version of the toolkit."""
BEST: Final = "best.pt"
LAST: Final = "last.pt"

_MARK: Final = b"toolkit-sha256:"
_SEAL: Final = len(_MARK) + 2 * hashlib.sha256().digest_size
_COUNT: Final = 2  # a zip archive ends in the length of its comment, in two bytes, and the comment
_CHUNK: Final = 1 << 20


def is_current(found: object) -> bool:
    """Whether this is the number of this version's format; a tensor, which compares item by item, is not."""
    return type(found) is int and found == FORMAT


def run_of_bundle(bundle: Path, name: str, run: str) -> Path | None:
    """The directory `run` that a bundle called `name` was exported from: around the bundle, or below runs/. A bundle
    may have another name than the recipe. None where no such run has a best checkpoint, or several have."""
    named = [*(place for place in bundle.resolve().parents[:2] if place.name == run), Path("runs") / name / run]
    found = [place for place in named if (place / BEST).is_file()]
    below = [f"*/{glob.escape(run)}/{BEST}", f"*/*/{glob.escape(run)}/{BEST}"]  # the second: runs of a series
    others = {path.resolve(): path.parent for pattern in below for path in Path("runs").glob(pattern)}
    return found[0] if found else next(iter(others.values())) if len(others) == 1 else None


def seal(archive: io.BytesIO) -> None:
    """Add the checksum to a zip archive that has no comment."""
    archive.seek(-_COUNT, os.SEEK_END)
    archive.write(_SEAL.to_bytes(_COUNT, "little"))
    digest = hashlib.sha256(archive.getbuffer()).hexdigest()
    archive.write(_MARK + digest.encode())


def is_whole(file: BinaryIO) -> bool | None:
    """Whether the bytes of a file match its checksum; None where it has no checksum. Leaves the file at its start."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(end - _SEAL, 0))
    found = file.read()
    file.seek(0)
    if not found.startswith(_MARK):
        return None
    digest, left = hashlib.sha256(), end - _SEAL
    while left and (piece := file.read(min(left, _CHUNK))):
        digest.update(piece)
        left -= len(piece)
    file.seek(0)
    return found == _MARK + digest.hexdigest().encode()
