"""`run RECIPE --find-lr`: propose a learning rate, draw what it rests on, and print the command that uses it."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.cli.parser import command_line, set_flags
from toolkit.cli.recipes import show_file
from toolkit.system.notices import note, say, show

if TYPE_CHECKING:
    from rich.console import Console


def find_lr(options: Namespace, console: Console) -> None:
    from toolkit.build.plan import plan
    from toolkit.host.registry import discover
    from toolkit.recipe.read import parse

    show_file(options.recipe)
    planned = plan(parse(options.recipe, options.overrides), discover())
    from toolkit.runs.rate_range import draw, find_rate

    recipe = planned.resolved
    say(f"trying learning rates with {recipe.train.optimizer.name}; this trains a copy and keeps no weights", console)
    found = find_rate(planned)
    path = (options.runs or Path("runs")) / f"{recipe.name}-learning-rates.png"
    draw(found, f"{recipe.name}, batch {found.batch}", path)
    say(f"{len(found.rates)} rates from {found.rates[0]:g} to {found.rates[-1]:.3g}: {path}", console)
    if found.proposed is None:
        note("the loss did not fall at any rate, so no rate is proposed: check the labels and augmentations", console)
        return
    say(f"proposed learning rate: {found.proposed:g} (the recipe has {recipe.train.optimizer.lr:g})", console)
    sets = set_flags([*options.overrides, f"train.optimizer.lr={found.proposed:g}"])
    show(f"next:  {command_line(['run', str(options.recipe), *sets])}")
