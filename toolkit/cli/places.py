"""The recipe, run or bundle that a command is most likely about, where none was named."""

from __future__ import annotations

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
        return _latest(f"runs/{of}/*/recipe.toml")
    return _latest("exports/*/bundle.json") or _latest("runs/*/*/recipe.toml") if place == "MODEL" else None


def _latest(pattern: str) -> str | None:
    found = [path.parent for path in Path().glob(pattern) if not path.parent.is_symlink()]
    return str(max(found, key=lambda path: path.name)) if found else None
