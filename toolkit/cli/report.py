"""The command report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.cli.parser import add_open, open_if_asked
from toolkit.cli.places import RUN

if TYPE_CHECKING:
    from argparse import Namespace

    from toolkit.cli.parser import Parser


def fill(parser: Parser) -> None:
    parser.does(_report, (f"report {RUN}", f"report {RUN} --open"))
    parser.add_argument("run", metavar="RUN", type=Path)
    parser.add_argument(
        "--explain", action="store_true", help="draw where answers come from, and a map of the items; needs the data"
    )
    add_open(parser)


def _report(options: Namespace) -> None:
    from toolkit.runs.report import write_report
    from toolkit.system.notices import show

    if options.explain:
        from toolkit.runs.explained import add_maps

        add_maps(options.run)
    page = write_report(options.run)
    show(f"report {page}")
    open_if_asked(options, page)
