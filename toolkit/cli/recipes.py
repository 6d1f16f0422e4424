"""The command recipes, and which file a recipe on a command line means."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.api.errors import UsageError, unknown_name
from toolkit.system.notices import note, show

if TYPE_CHECKING:
    from argparse import Namespace

    from toolkit.cli.parser import Parser

RECIPE_HELP = "a TOML file, or the name of a shipped recipe (python -m toolkit recipes)"


def fill(parser: Parser) -> None:
    parser.does(_recipes, ("recipes", "recipes cifar10_cnn > my_cnn.toml"))
    parser.add_argument("name", metavar="NAME", nargs="?", help="the recipe to print")


def show_file(recipe: Path) -> None:
    """Print which file is used where `recipe` is the name of a shipped recipe, and which one is not."""
    from toolkit.recipe.shipped import file_of

    file = file_of(recipe)
    if file == recipe:
        return
    show(f"recipe {recipe} (shipped with the toolkit): {file}")
    if (own := recipe.with_suffix(".toml")).is_file():
        note(f"{own} in this folder is not used; to use it, write its suffix: {own}")


def _recipes(options: Namespace) -> None:
    from toolkit.recipe.shipped import first_comment, shipped

    known = shipped()
    if options.name is None:
        width = max(map(len, known))
        show(*(f"{name:{width}}  {first_comment(file)}" for name, file in known.items()))
        show("next:  python -m toolkit run NAME, or to change one: python -m toolkit recipes NAME > my.toml")
        return
    name = options.name.removesuffix(".toml")
    if name not in known:
        raise UsageError(
            unknown_name(f'no shipped recipe "{name}"', name, known), next_step="python -m toolkit recipes"
        )
    print(known[name].read_text(encoding="utf-8"), end="")
