"""The command soup."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.cli.parser import add_open, console, open_if_asked, stopped

if TYPE_CHECKING:
    from argparse import Namespace

    from toolkit.cli.parser import Parser


def fill(parser: Parser) -> None:
    parser.does(_soup, ("soup runs/har_resnet50/A runs/har_resnet50/B", "soup runs/har_resnet50/A/seed-*"))
    parser.add_argument("run", metavar="RUN", type=Path, nargs="+", help="runs of one model on one dataset")
    parser.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"), help="where run directories go")
    add_open(parser)


def _soup(options: Namespace) -> None:
    with stopped("no soup was made, nothing is lost", options):
        from toolkit.runs.soup import make_soup

        directory = make_soup(options.run, into=options.runs, console=console())
    open_if_asked(options, directory.report)
