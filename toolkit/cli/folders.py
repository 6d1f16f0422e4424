"""A folder where a recipe was expected: what it holds, and the command that makes a recipe for it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from toolkit.api.errors import UsageError
from toolkit.cli.parser import command_line

LOOKED_AT = 2000
"""Files that are looked at before a folder is called one of images or of videos."""


def check_no_folder(recipe: Path) -> None:
    """Raise UsageError with the command that makes a recipe for a folder of images or videos, where `recipe` is one."""
    if not is_recipe_less(recipe):
        return
    if _is_run(recipe):
        step = command_line(["run", "--resume", str(recipe)])
        raise UsageError(f"{recipe}: a run, not a recipe", next_step=step)
    if held := held_by(recipe):
        step = command_line(["init", held, str(recipe)])
        raise UsageError(f"{recipe}: a folder of {held}, not a recipe", next_step=step)


def is_recipe_less(path: Path) -> bool:
    """Whether this is a folder with no recipe of its own."""
    return (path.is_dir() and not any(path.glob("*.toml"))) or _is_run(path)


def _is_run(path: Path) -> bool:
    from toolkit.runs.directory import RunDirectory

    run = RunDirectory(path)
    return run.recipe.is_file() and run.facts.is_file()


def set_words(folder: Path) -> list[str]:
    """The keys, with values, that make a recipe train on the files in `folder`."""
    held = held_by(folder)
    names = {"images": "image_folder", "videos": "video_folder"}
    name = [f"data.name={names[held]}"] if held and not any(folder.glob("*.csv")) else []
    return [*name, f"data.root={folder}"]


def held_by(folder: Path) -> str | None:
    """Whether the first files below `folder` are "images" or "videos"; None where they are neither."""
    from toolkit.data.kinds import listed_kind

    kinds = Counter(map(listed_kind, islice(_files(folder), LOOKED_AT)))
    images, videos = kinds["image"], kinds["video"] + kinds["animation"]
    if not images and not videos:
        return None
    return "videos" if videos > images else "images"


def _files(folder: Path) -> Iterator[str]:
    from toolkit.api.files import is_junk

    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_junk(name))
        yield from (os.path.join(place, name) for name in names)  # noqa: PTH118 (a Path a file costs time)
