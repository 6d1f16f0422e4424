"""The command explain."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.api.errors import UsageError
from toolkit.cli.parser import add_set, console, stopped
from toolkit.cli.places import RUN, filled

if TYPE_CHECKING:
    from argparse import Namespace

    from toolkit.cli.parser import Parser

FOLDER = Path("explained")


def fill(parser: Parser) -> None:
    parser.does(_explain, (f"explain {RUN} photo.jpg", f"explain {RUN} photos --class dog --save maps"))
    parser.add_argument("run", metavar="RUN", type=Path)
    parser.add_argument(
        "inputs", metavar="INPUT", nargs="+", help="images, folders, globs, videos, - for a list of them"
    )
    parser.add_argument("--class", metavar="NAME", dest="named", help="what to look for (default: the likeliest class)")
    saved = f"save pictures to this folder (default: {FOLDER}, or the next free name)"
    parser.add_argument("--save", metavar="DIR", type=Path, help=saved)
    add_set(parser)


def _explain(options: Namespace) -> int:
    _refuse_bundle(options)
    from toolkit.api.files import free_name
    from toolkit.export.explaining import explain_files

    save = options.save or (free_name(FOLDER) if os.path.lexists(FOLDER) else FOLDER)
    with stopped(f"{save} has the pictures so far", options):
        return explain_files(
            options.run, options.inputs, options.overrides, named=options.named, save=save, console=console()
        )


def _refuse_bundle(options: Namespace) -> None:
    from toolkit.serving.bundle import MANIFEST

    if (options.run / MANIFEST).is_file():
        run, inputs = filled("RUN") or "RUN", shlex.join(options.inputs)
        raise UsageError(
            f"{options.run}: a bundle has no gradients, which maps are made of",
            next_step=f"explain the run that it was exported from: python -m toolkit explain {run} {inputs}",
        )
