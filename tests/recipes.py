"""The shipped recipes, and what a user says to accept the licences of their weights."""

from __future__ import annotations

import re
from pathlib import Path

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.toml"))


def accepted(path: Path) -> list[str]:
    """The override in a recipe's header that accepts a licence; most need none."""
    return re.findall(r"^# .*To accept that: --set '(.*)'$", path.read_text(encoding="utf-8"), re.MULTILINE)


def acceptance(path: Path) -> list[str]:
    """The same on a command line."""
    return [word for override in accepted(path) for word in ("--set", override)]
