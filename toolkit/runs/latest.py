"""`runs/latest`: a link to the run that began last."""

from __future__ import annotations

import os
from pathlib import Path

from toolkit.api.files import UNFINISHED
from toolkit.system.notices import note

LATEST = "latest"


def point_at(run: Path, runs: Path) -> None:
    """Let `runs/latest` lead to `run`, a directory below `runs`; several processes may do so at once. Where no link
    can be made, or something else has that name, a note says so: the run itself goes on."""
    link, fresh = runs / LATEST, runs / f".{LATEST}{UNFINISHED}{os.urandom(4).hex()}"
    if link.exists() and not link.is_symlink():
        note(f"{link} is not a symbolic link, so it was not changed to point to {run}")
        return
    try:
        fresh.symlink_to(run.relative_to(runs), target_is_directory=True)
        fresh.replace(link)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        note(f"{link}: cannot be made: {error.strerror or error}")


def followed(path: Path) -> Path:
    """`path`, or the run that it leads to where it is the link `latest`: commands and messages then name the run, which
    stays the same when the link moves on."""
    if path.name == LATEST and path.is_symlink():
        return path.parent / path.readlink()
    return path
