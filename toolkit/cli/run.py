"""The command run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.api.errors import UsageError
from toolkit.cli.parser import add_open, add_set, command_line, console, count, open_if_asked, stopped
from toolkit.cli.places import RECIPE
from toolkit.cli.recipes import RECIPE_HELP, show_file
from toolkit.cli.series import add_series, is_series, run_series
from toolkit.system.ranks import launched

if TYPE_CHECKING:
    from argparse import Namespace

    from rich.console import Console

    from toolkit.build.plan import Plan
    from toolkit.cli.parser import Parser
    from toolkit.runs.loop import Prepared


def fill(parser: Parser) -> None:
    longer = "run har_resnet50 --set train.epochs=10 --set train.batch=64"
    parser.does(_run, ("run cifar10_cnn", longer, "run cifar10_cnn --seeds 5"))
    parser.add_argument("recipe", metavar="RECIPE", type=Path, nargs="?", help=f"{RECIPE_HELP}; not needed to resume")
    add_set(parser)
    parser.add_argument("--resume", metavar="RUN", type=Path, help="continue this run or series")
    parser.add_argument(
        "--extend", metavar="EPOCHS", type=count, help="with --resume: train on, to so many epochs in all"
    )
    parser.add_argument(
        "--find-lr", action="store_true", help="try learning rates from low to high and propose one; no run is started"
    )
    add_series(parser)
    parser.add_argument("--runs", metavar="DIR", type=Path, help="where run directories go (default: runs)")
    parser.add_argument("--ranks", metavar="N", type=count, help="train on so many GPUs, or processes, of this machine")
    add_open(parser)


def _check(options: Namespace) -> None:
    """Raise UsageError for options that have no meaning together."""
    if options.resume is None and options.recipe is None:
        raise UsageError("run: a recipe is missing", next_step=f"python -m toolkit run {RECIPE}")
    if options.resume is not None and options.runs is not None:
        step = command_line(["run", "--resume", str(options.resume)])
        raise UsageError("run: --runs has no meaning with --resume", next_step=step)
    if options.resume is not None and options.find_lr:
        from toolkit.runs.directory import RunDirectory

        step = command_line(["run", str(RunDirectory(options.resume).recipe), "--find-lr"])
        raise UsageError("run: --find-lr has no meaning with --resume", next_step=step)
    if options.resume is None and options.extend is not None:
        longer = ["run", str(options.recipe), "--set", f"train.epochs={options.extend}"]
        raise UsageError("run: --extend needs --resume RUN", next_step=command_line(longer))
    if options.resume is None:
        from toolkit.cli.folders import check_no_folder

        check_no_folder(options.recipe)


def _run(options: Namespace) -> int | None:
    _check(options)
    if is_series(options):
        run_series(options)
        return None
    if (options.ranks or 1) > 1 and not launched().together:
        return _launched(options)
    output = console()
    if options.find_lr:
        from toolkit.cli.find_lr import find_lr

        with stopped("no run was started, nothing is lost", options):
            find_lr(options, output)
        return None
    with stopped("training had not begun, nothing is lost", options):
        prepared = _resumed(options, output) if options.resume is not None else _started(options, output)

    if not launched().leads:
        return None
    from toolkit.runs.next_steps import print_next_steps

    print_next_steps(prepared, output)
    open_if_asked(options, prepared.directory.report)
    return None


def _launched(options: Namespace) -> int:
    """Start the ranks, once the recipe is known to be valid."""
    if options.find_lr:
        raise UsageError(
            "run: --find-lr runs on one rank", next_step=command_line(["run", str(options.recipe), "--find-lr"])
        )
    if options.resume is None:
        _planned(options)
    from toolkit.system.launch import launch

    return launch(options.words, options.ranks)


def _resumed(options: Namespace, output: Console) -> Prepared:
    from toolkit.runs.session import resume_run

    given = {"recipe": options.recipe, "overrides": options.overrides, "extend": options.extend}
    return resume_run(options.resume, console=output, **given)


def _started(options: Namespace, output: Console) -> Prepared:
    if launched().leads:
        show_file(options.recipe)
    planned = _planned(options)
    from toolkit.runs.session import start_run

    return start_run(planned, runs=options.runs or Path("runs"), console=output)


def _planned(options: Namespace) -> Plan:
    """What is wrong with the recipe is shown before torch is imported, which takes seconds."""
    from toolkit.build.plan import plan
    from toolkit.host.registry import discover
    from toolkit.recipe.read import parse
    from toolkit.runs.directory import name_of_recipe

    return plan(parse(options.recipe, options.overrides, name=name_of_recipe(options.recipe)), discover())
