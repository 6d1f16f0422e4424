"""The command tune."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.cli.parser import add_set, console, count, same_command
from toolkit.cli.recipes import RECIPE_HELP, show_file

if TYPE_CHECKING:
    from argparse import Namespace

    from toolkit.cli.parser import Parser


def fill(parser: Parser) -> None:
    parser.does(_tune, ("tune cifar10_cnn", "tune cifar10_cnn --set tune.trials=5 --workers 2"))
    parser.add_argument("recipe", metavar="RECIPE", type=Path, help=f"{RECIPE_HELP}, with a [tune] table")
    add_set(parser)
    parser.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"), help="where the study's folder goes")
    parser.add_argument("--storage", metavar="URL", help="a database that holds the study (default: a journal file)")
    queued = "values to try next: key=value,key=value; may be repeated"
    parser.add_argument("--enqueue", metavar="VALUES", action="append", default=[], help=queued)
    shared = "processes that work on the study here, one for each GPU where there are GPUs (default: 1)"
    parser.add_argument("--workers", metavar="N", type=count, default=1, help=shared)
    repeated = "runs of the best trial and of the recipe's own values at the end, each with another seed (default: 1)"
    parser.add_argument("--seeds", metavar="K", type=count, default=1, help=repeated)
    parser.add_argument("--export", action="store_true", help="export the best trial at the end")


def _tune(options: Namespace) -> None:
    from toolkit.cli.folders import check_no_folder

    check_no_folder(options.recipe)
    from toolkit.host.registry import discover
    from toolkit.recipe.read import parse
    from toolkit.tune.study import check_study

    show_file(options.recipe)
    draft = parse(options.recipe, options.overrides)
    check_study(draft, discover())  # so that what is wrong is shown before torch and Optuna are imported
    from toolkit.tune.session import StudyLocation, tune_recipe

    tune_recipe(
        draft,
        StudyLocation(options.runs, options.storage, again=same_command(options)),
        enqueued=options.enqueue,
        workers=options.workers,
        seeds=options.seeds,
        exports=Path("exports") if options.export else None,
        console=console(),
    )
