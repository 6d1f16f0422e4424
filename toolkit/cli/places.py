"""The recipe, run or bundle that a command is most likely about, where none was named."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

RECIPE = "har_resnet50"
VIDEO_RECIPE = "har_x3d_s"
"""Shipped recipes for images and for videos."""
RUN = "runs/latest"
BUNDLE = "exports/cifar10_cnn"
"""What examples name: a run and a bundle as the example of `run` leaves them."""


def filled(place: str, *, of: str = "*") -> str | None:
    """A word for this place of a command line: a shipped recipe, the latest run (`of` a recipe) or bundle; None where
    nothing was found."""
    if place == "RECIPE":
        return RECIPE
    if place == "RUN":
        return _latest_run(of)
    return _latest(Path().glob("exports/*/bundle.json")) or _latest_run("*") if place == "MODEL" else None


def _latest_run(recipe: str) -> str | None:
    from toolkit.runs.directory import RunDirectory

    return _latest(RunDirectory(path).recipe for path in Path().glob(f"runs/{recipe}/*"))


def _latest(files: Iterable[Path]) -> str | None:
    """The folder of the last one of these files that exist."""
    found = [file for file in files if file.is_file() and not file.parent.is_symlink()]
    newest = max(found, key=lambda file: (file.stat().st_mtime_ns, file.parent.name), default=None)
    return str(newest.parent) if newest else None
