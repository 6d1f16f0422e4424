"""The command promote."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.api.errors import EXIT_WORSE
from toolkit.cli.parser import add_set, command_line, console, stopped
from toolkit.cli.places import RUN
from toolkit.system.notices import note, print_error, show

if TYPE_CHECKING:
    from argparse import Namespace

    from rich.console import Console

    from toolkit.cli.parser import Parser
    from toolkit.export.promotion import Candidate


def fill(parser: Parser) -> None:
    parser.does(_promote, (f"promote {RUN}", f"promote {RUN} --metric recall_macro --alias staging"))
    parser.add_argument("run", metavar="RUN", type=Path, help="a finished run")
    parser.add_argument("--against", metavar="RUN", type=Path, help="compare with this run, not with the one in use")
    metric = "the score that must not be worse, beyond chance (default: the recipe's)"
    parser.add_argument("--metric", metavar="METRIC", help=metric)
    parser.add_argument("--alias", metavar="NAME", default="champion", help="the alias to set (default: champion)")
    parser.add_argument("--name", metavar="NAME", help="the registered model (default: the recipe's name)")
    add_set(parser)


def _promote(options: Namespace) -> int | None:
    from toolkit.export.promotion import Candidate

    output = console()
    asked = {"model": options.name, "alias": options.alias, "metric": options.metric}
    with (
        stopped("the alias is as it was", options),
        closing(Candidate.of(options.run, options.overrides, **asked)) as candidate,
    ):
        other = options.against or candidate.in_use()
        if other is not None and other.resolve() == candidate.run.path.resolve():
            show(f"{candidate.run.path} is {candidate.alias} already", console=output)
            return None
        if worse := _worse(candidate, other, output):
            for text in worse:
                print_error(f"not promoted: {text}")
            return EXIT_WORSE
        found = candidate.promote(candidate.bundle(options.overrides, output))
    show(f"{candidate.alias}: {found}", console=output)
    return None


def _worse(candidate: Candidate, other: Path | None, output: Console) -> list[str]:
    from toolkit.runs.compare.tables import print_comparison

    if other is None:
        note(f"no version of {candidate.model} is {candidate.alias} yet: there is nothing to compare with", output)
        return []
    anyway = command_line(["compare", str(other), str(candidate.run.path), "--anyway"])
    found = candidate.compared_with(other, anyway=anyway)
    print_comparison(found, output)
    return found.worse(candidate.metric)
