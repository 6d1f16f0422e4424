"""The command ladder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.api.errors import UsageError
from toolkit.cli.parser import add_open, add_set, command_line, console, open_if_asked, stopped
from toolkit.cli.places import RECIPE
from toolkit.cli.recipes import RECIPE_HELP, show_file

if TYPE_CHECKING:
    from argparse import Namespace

    from toolkit.cli.parser import Parser

STEPS = ("majority", "zero-shot", "probe", "head", "last-block", "full", "no-gain")
"""As `toolkit.runs.ladder.steps`, which is not imported for `--help`; a test compares."""


def fill(parser: Parser) -> None:
    parser.does(_ladder, ("ladder har_resnet50", "ladder har_resnet50 --until no-gain"))
    parser.add_argument("recipe", metavar="RECIPE", type=Path, nargs="?", help=f"{RECIPE_HELP}; not needed to resume")
    add_set(parser)
    until = f"the last step ({', '.join(STEPS[:-1])}), or no-gain: stop after a step that is not worth it"
    parser.add_argument("--until", metavar="STEP", choices=STEPS, help=until)
    parser.add_argument("--resume", metavar="LADDER", type=Path, help="continue this ladder")
    parser.add_argument("--runs", metavar="DIR", type=Path, help="where run directories go (default: runs)")
    add_open(parser)


def _ladder(options: Namespace) -> None:
    _check(options)
    folder = _resumed(options) if options.resume is not None else _started(options)
    from toolkit.runs.ladder.summary import PAGE

    open_if_asked(options, folder / PAGE)


def _check(options: Namespace) -> None:
    """Raise UsageError for options that have no meaning together."""
    if options.resume is None:
        if options.recipe is None:
            raise UsageError("ladder: a recipe is missing", next_step=f"python -m toolkit ladder {RECIPE}")
        from toolkit.cli.folders import check_no_folder

        check_no_folder(options.recipe)
        return
    given = {
        "a recipe": options.recipe,
        "--set": options.overrides,
        "--until": options.until,
        "--runs": options.runs,
    }
    for flag, value in given.items():
        if value:
            step = command_line(["ladder", "--resume", str(options.resume)])
            raise UsageError(f"ladder: {flag} has no meaning with --resume", next_step=step)


def _resumed(options: Namespace) -> Path:
    from toolkit.runs.ladder.session import resume_ladder

    return resume_ladder(options.resume, console=console())


def _started(options: Namespace) -> Path:
    from toolkit.build.plan import plan
    from toolkit.host.registry import discover
    from toolkit.recipe.read import parse
    from toolkit.runs.directory import name_of_recipe
    from toolkit.runs.ladder.steps import recipes

    show_file(options.recipe)
    until = options.until or STEPS[-2]
    draft = parse(options.recipe, options.overrides, name=name_of_recipe(options.recipe))
    registry = discover()
    planned = recipes(plan(draft, registry), registry, until)  # before torch is imported
    with stopped("no step had begun, nothing is lost", options):
        from toolkit.runs.ladder.session import start_ladder

        return start_ladder(
            planned, until=until, runs=options.runs or Path("runs"), words=options.words, console=console()
        )
