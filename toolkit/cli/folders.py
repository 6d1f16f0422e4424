"""A folder where a recipe was expected: what it holds, and the command that trains on it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from toolkit.api.clips import VIDEO_SUFFIXES
from toolkit.api.errors import UsageError
from toolkit.cli.parser import command_line
from toolkit.cli.places import RECIPE

IMAGE_RECIPE = RECIPE
VIDEO_RECIPE = "recipes/har_x3d_s.toml"
IMAGES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
LOOKED_AT = 2000
"""Files that are looked at before a folder is called one of images or of videos."""


def check_no_folder(command: str, recipe: Path, overrides: Sequence[str]) -> None:
    """Raise UsageError with the command that trains on the files in `recipe`, where that is a folder of such files."""
    if not is_recipe_less(recipe):
        return
    if (recipe / "recipe.toml").is_file() and (recipe / "facts.json").is_file():
        step = command_line(["run", "--resume", str(recipe)])
        raise UsageError(f"{recipe}: a run, not a recipe", next_step=step)
    started = trained_on(recipe)
    if started:
        words = [command, started[0], *(word for pair in [*started[1], *overrides] for word in ("--set", pair))]
        raise UsageError(f"{recipe}: a folder of {held_by(recipe)}, not a recipe", next_step=command_line(words))


def trained_on(folder: Path) -> tuple[str, list[str]] | None:
    """The recipe, and the keys with values, that train on the files in `folder`; None where they are of no kind."""
    held = held_by(folder)
    return (VIDEO_RECIPE if held == "videos" else IMAGE_RECIPE, set_words(folder)) if held else None


def is_recipe_less(path: Path) -> bool:
    """Whether this is a folder with no recipe of its own."""
    return (path.is_dir() and not any(path.glob("*.toml"))) or (path / "facts.json").is_file()


def set_words(folder: Path) -> list[str]:
    """The keys, with values, that make a recipe train on the files in `folder`."""
    held = held_by(folder)
    names = {"images": "image_folder", "videos": "video_folder"}
    name = [f"data.name={names[held]}"] if held and not any(folder.glob("*.csv")) else []
    return [*name, f"data.root={folder}"]


def held_by(folder: Path) -> str | None:
    """Whether the first files below `folder` are "images" or "videos"; None where they are neither."""
    suffixes = [Path(name).suffix.lower() for name in islice(_files(folder), LOOKED_AT)]
    images, videos = sum(one in IMAGES for one in suffixes), sum(one in VIDEO_SUFFIXES for one in suffixes)
    if not images and not videos:
        return None
    return "videos" if videos > images else "images"


def _files(folder: Path) -> Iterator[str]:
    for _, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        yield from names
