"""The command tune."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.api.errors import UsageError
from toolkit.cli.parser import add_set, command_line, console, count, same_command, without
from toolkit.cli.recipes import RECIPE_HELP, show_file

if TYPE_CHECKING:
    from argparse import Namespace

    from toolkit.cli.parser import Parser
    from toolkit.recipe.draft import Draft

OF_WORKERS = {"--workers": True, "--ranks": True, "--seeds": True, "--enqueue": True, "--export": False}
"""Flags that say how trials are trained, and whether a value follows each."""


def fill(parser: Parser) -> None:
    parser.does(_tune, ("tune cifar10_cnn", "tune cifar10_cnn --set tune.trials=5 --workers 2"))
    parser.add_argument("recipe", metavar="RECIPE", type=Path, help=f"{RECIPE_HELP}, with a [tune] table")
    add_set(parser)
    parser.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"), help="where the study's folder goes")
    places = "the database that holds the study, or the server of one: grpc://HOST:PORT (default: a journal file)"
    parser.add_argument("--storage", metavar="URL", help=places)
    served = "serve the study to workers of any machine, and train nothing; [HOST:]PORT (default host: localhost)"
    parser.add_argument("--serve-storage", metavar="PORT", help=served)
    queued = "values to try next: key=value,key=value; may be repeated"
    parser.add_argument("--enqueue", metavar="VALUES", action="append", default=[], help=queued)
    shared = "processes that work on the study here, one for each GPU where there are GPUs (default: 1)"
    parser.add_argument("--workers", metavar="N", type=count, default=1, help=shared)
    ranked = "train each trial on so many GPUs, or processes, of this machine (default: 1)"
    parser.add_argument("--ranks", metavar="N", type=count, default=1, help=ranked)
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
    if options.serve_storage is not None:
        _serve(options, draft)
        return
    from toolkit.tune.session import StudyLocation, tune_recipe

    tune_recipe(
        draft,
        StudyLocation(options.runs, options.storage, again=same_command(options)),
        enqueued=options.enqueue,
        workers=options.workers,
        ranks=options.ranks,
        seeds=options.seeds,
        exports=Path("exports") if options.export else None,
        console=console(),
    )


def _serve(options: Namespace, draft: Draft) -> None:
    from toolkit.tune.server import serve_storage
    from toolkit.tune.storage import address_of

    flag = "--serve-storage"
    if given := [word for word in options.words if word.partition("=")[0] in OF_WORKERS]:
        raise UsageError(
            f"tune: {given[0]} has no meaning with {flag}, which trains nothing",
            next_step=command_line(without(options.words, OF_WORKERS)),
        )
    host, port = address_of(options.serve_storage, f"{flag} {options.serve_storage}", f"{flag} 13000")
    shared = without(options.words, {flag: True, "--storage": True})
    serve_storage(
        draft,
        runs=options.runs,
        storage=options.storage,
        host=host,
        port=port,
        worker=command_line([*shared, "--storage"]),
        console=console(),
    )
