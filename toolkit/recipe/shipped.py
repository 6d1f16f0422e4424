"""The recipes that come with the toolkit: where they are, and which file a recipe's name means."""

from __future__ import annotations

from pathlib import Path

_INSTALLED = Path(__file__).with_name("recipes")
"""Where a wheel puts them; pyproject.toml says so."""
_CHECKOUT = Path(__file__).parents[2] / "recipes"
"""Where they are edited."""


def shipped() -> dict[str, Path]:
    """The file of each shipped recipe by its name, in order of name."""
    folder = _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def file_of(recipe: Path) -> Path:
    """The file that `recipe` means on a command line.

    That is the file at this path. Without one, it is the shipped recipe of this name, with or without suffix, if the
    path names no folder. Otherwise it is `recipe` itself.
    """
    if recipe.is_file() or recipe.name != str(recipe):
        return recipe
    return shipped().get(recipe.name.removesuffix(".toml"), recipe)


def first_comment(file: Path) -> str:
    """What the first line of a recipe's file says of it, without a full stop; empty where that is not a comment."""
    first = file.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip().removesuffix(".") if first.startswith("#") else ""
