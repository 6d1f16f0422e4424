"""`run --seeds`, `--folds` and `--grid`: several runs as one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.api.errors import UsageError
from toolkit.cli.parser import command_line, console, count, open_if_asked, set_flags, stopped
from toolkit.cli.recipes import show_file

if TYPE_CHECKING:
    from argparse import Namespace

    from toolkit.cli.parser import Parser


def add_series(parser: Parser) -> None:
    seeds = "train so many runs with other seeds, one after the other, and sum them up"
    parser.add_argument("--seeds", metavar="K", type=count, help=seeds)
    folds = "cross-validate: each of so many parts of the data is the test split once"
    parser.add_argument("--folds", metavar="N", type=_parts, help=folds)
    grid = "train with each of these values; may be repeated for all combinations"
    parser.add_argument("--grid", metavar="KEY=A,B", action="append", default=[], help=grid)
    curve = "learning curve: train on each of these shares of the training items"
    parser.add_argument("--fractions", metavar="A,B", help=curve)


def is_series(options: Namespace) -> bool:
    """Whether a command line of `run` is about several runs."""
    if options.seeds is not None or options.folds is not None or options.grid or options.fractions is not None:
        return True
    if options.resume is None:
        return False
    from toolkit.runs.series.members import is_series

    return is_series(options.resume)


def run_series(options: Namespace) -> None:
    """Train a series, or go on with one."""
    _check(options)
    with stopped("training had not begun, nothing is lost", options):
        folder = _started(options) if options.resume is None else _resumed(options)
    from toolkit.runs.series.summary import PAGE

    open_if_asked(options, folder / PAGE)


def _started(options: Namespace) -> Path:
    from toolkit.runs.directory import name_of_recipe
    from toolkit.runs.series.members import Asked, fractions, split_values
    from toolkit.runs.series.plan import plan_series

    curve = [] if options.fractions is None else [fractions(options.fractions)]
    asked = Asked(options.seeds or 1, options.folds, (*map(split_values, options.grid), *curve))
    show_file(options.recipe)
    name = name_of_recipe(options.recipe)
    planned = plan_series(options.recipe, options.overrides, asked, name=name)  # before torch is imported
    from toolkit.runs.series.session import start_series

    return start_series(planned, runs=options.runs or Path("runs"), console=console())


def _resumed(options: Namespace) -> Path:
    from toolkit.runs.series.session import resume_series

    return resume_series(options.resume, console=console())


def _check(options: Namespace) -> None:
    """Raise UsageError for options that have no meaning for several runs."""
    series = {
        "--seeds": options.seeds,
        "--folds": options.folds,
        "--grid": options.grid,
        "--fractions": options.fractions,
    }
    given = [flag for flag, value in series.items() if value]
    if options.resume is not None:
        changing = {"--set": options.overrides, "--extend": options.extend, "a recipe": options.recipe}
        _refuse(
            [*given, *(flag for flag, value in changing.items() if value)],
            "--resume of a series",
            command_line(["run", "--resume", str(options.resume)]),
        )
    alone = {"--find-lr": options.find_lr, "--ranks": (options.ranks or 1) > 1}
    step = command_line(["run", str(options.recipe), *_series_words(options)])
    _refuse([flag for flag, value in alone.items() if value], " and ".join(given) or "a series", step)


def _refuse(flags: list[str], what: str, step: str) -> None:
    if flags:
        raise UsageError(f"run: {flags[0]} has no meaning with {what}", next_step=step)


def _series_words(options: Namespace) -> list[str]:
    """The flags of the series, and the overrides, as they were typed."""
    flags = {"--seeds": options.seeds, "--folds": options.folds, "--fractions": options.fractions}
    numbers = [word for flag, value in flags.items() if value for word in (flag, str(value))]
    grids = [word for text in options.grid for word in ("--grid", text)]
    return [*numbers, *grids, *set_flags(options.overrides)]


def _parts(text: str) -> int:
    """The type of an argument that is a number of parts, at least 2."""
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f'expected an integer of at least 2, got "{text}"')
    return int(text)
