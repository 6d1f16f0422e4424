"""The command explain."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.api.errors import UsageError
from toolkit.cli.parser import add_set, console, stopped
from toolkit.cli.places import BUNDLE, RUN

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from toolkit.cli.parser import Parser
    from toolkit.export.explaining import Explainer, Meaning

FOLDER = Path("explained")


def fill(parser: Parser) -> None:
    parser.does(_explain, (f"explain {RUN} photo.jpg", f"explain {BUNDLE} photos --class dog --save maps"))
    parser.add_argument("model", metavar="MODEL", type=Path, help="a run, or a bundle that has heat maps")
    parser.add_argument(
        "inputs", metavar="INPUT", nargs="+", help="images, folders, globs, videos, - for a list of them"
    )
    parser.add_argument("--class", metavar="NAME", dest="named", help="what to look for (default: the likeliest class)")
    saved = f"save pictures to this folder (default: {FOLDER}, or the next free name)"
    parser.add_argument("--save", metavar="DIR", type=Path, help=saved)
    add_set(parser, "for a run: override a recipe key")


def _explain(options: Namespace) -> int:
    from toolkit.api.files import free_name
    from toolkit.export.explaining import explain_files

    opened = _opened(options)
    save = options.save or (free_name(FOLDER) if os.path.lexists(FOLDER) else FOLDER)
    with stopped(f"{save} has the pictures so far", options):
        return explain_files(options.inputs, opened, options.model, named=options.named, save=save, console=console())


def _opened(options: Namespace) -> Callable[[], tuple[Meaning, Explainer]]:
    """What opens the model once the inputs are known: a bundle without torch."""
    from toolkit.serving.bundle import MANIFEST

    if not (options.model / MANIFEST).is_file():

        def open_run() -> tuple[Meaning, Explainer]:
            from toolkit.export.explaining_run import opened_run

            return opened_run(options.model, options.overrides)

        return open_run
    if options.overrides:
        raise UsageError(
            f"--set: {options.model} is a bundle, which has no recipe to override", next_step="remove --set"
        )
    from toolkit.export.explaining_bundle import opened_bundle

    return partial(opened_bundle, options.model)
