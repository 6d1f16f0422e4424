"""The command compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.api.errors import EXIT_WORSE, UsageError
from toolkit.cli.parser import add_open, command_line, console, open_if_asked
from toolkit.cli.places import RUN

if TYPE_CHECKING:
    from argparse import Namespace

    from toolkit.cli.parser import Parser
    from toolkit.runs.compare.comparison import Comparison

SUFFIXES = (".md", ".csv", ".tex", ".json")


def fill(parser: Parser) -> None:
    parser.does(
        _compare,
        (
            f"compare {RUN} --against-last",
            "compare runs/cifar10_cnn/A runs/cifar10_cnn/B --output table.tex",
        ),
    )
    named = "runs, folders of runs that differ in the seed, series, or bundles; the first is the baseline"
    parser.add_argument("run", metavar="RUN", type=Path, nargs="+", help=named)
    parser.add_argument("--against-last", action="store_true", help="compare one run with the one before it")
    parser.add_argument("--anyway", action="store_true", help="compare scores of unlike protocols; show what differs")
    formats = f"write the table to this file too ({', '.join(SUFFIXES)}); may be repeated"
    parser.add_argument("--output", metavar="FILE", type=Path, action="append", default=[], help=formats)
    parser.add_argument("--page", metavar="FILE", type=Path, default=Path("compare.html"), help="the report's file")
    worse = "end with exit code 6 if a run is worse than the first by this score, beyond chance"
    parser.add_argument("--fail-if-worse", metavar="METRIC", help=worse)
    parser.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"), help="where bundles were evaluated")
    add_open(parser)


def _compare(options: Namespace) -> int | None:
    _check_outputs(options)
    from toolkit.runs.compare.comparison import compare
    from toolkit.runs.compare.contender import contenders, run_before
    from toolkit.runs.compare.protocols import require_like_protocols
    from toolkit.runs.compare.tables import print_comparison

    paths = options.run
    if options.against_last:
        paths = [run_before(paths[0]), *paths]
    sides = contenders(paths, runs=options.runs)
    if len(sides) < 2:
        steps = [command_line(["compare", *map(str, paths), word]) for word in ("RUN", "--against-last")]
        raise UsageError("compare: needs two runs or more", next_step=" or: ".join(steps))
    if not options.anyway:
        require_like_protocols(sides, anyway=command_line([*options.words, "--anyway"]))
    found = compare(sides)
    output = console()
    print_comparison(found, output)
    _write(found, options)
    open_if_asked(options, options.page)
    return _judged(found, options.fail_if_worse) if options.fail_if_worse else None


def _check_outputs(options: Namespace) -> None:
    """Raise UsageError before the work where an option cannot be met."""
    if options.against_last and len(options.run) > 1:
        step = command_line(["compare", str(options.run[-1]), "--against-last"])
        raise UsageError("compare: --against-last takes one run", next_step=step)
    for path in options.output:
        if path.suffix not in SUFFIXES:
            known = ", ".join(SUFFIXES)
            step = command_line(["compare", *map(str, options.run), "--output", str(path.with_suffix(".md"))])
            raise UsageError(f"--output {path}: unknown format (choose from {known})", next_step=step)


def _write(found: Comparison, options: Namespace) -> None:
    from toolkit.api.files import as_utf8, write_atomically
    from toolkit.runs.compare.page import write_page
    from toolkit.runs.compare.tables import FORMATS
    from toolkit.runs.directory import FIX_AND_REPEAT, explained
    from toolkit.system.notices import show

    for path in options.output:
        with explained(path, next_step=FIX_AND_REPEAT):
            write_atomically(path, as_utf8(FORMATS[path.suffix](found)))
        show(f"table {path}")
    show(f"report {write_page(found, options.page)}")


def _judged(found: Comparison, metric: str) -> int | None:
    """The exit code of `--fail-if-worse`."""
    from toolkit.system.notices import print_error

    worse = found.worse(metric)
    for text in worse:
        print_error(f"worse: {text}")
    return EXIT_WORSE if worse else None
