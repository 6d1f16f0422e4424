"""All commands: what each is for, and which module has its arguments. A command imports no other."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from functools import partial
from importlib import import_module

from toolkit.api.errors import EXIT_DONE, EXIT_USAGE
from toolkit.cli.parser import PROGRAM, Parser, add, listed_examples, sentence

COMMANDS: Mapping[str, Mapping[str, str]] = {
    "start": {
        "demo": "train, export and predict on a built-in sample, in about a minute",
        "init": "write a recipe that fits the files of a folder",
        "recipes": "list the shipped recipes, or print one",
    },
    "train": {
        "run": "train, evaluate and report a recipe",
        "tune": "try the values that a recipe's [tune] table names; keep the best",
        "ladder": "train a recipe more and more deeply, to see how far it is worth it",
        "soup": "average the weights of runs into one model",
        "check": "check a recipe and its data without training",
        "data": "check the items of a dataset, show them, or index shards",
    },
    "look at results": {
        "evaluate": "re-evaluate the best checkpoint of a run, or an exported bundle",
        "compare": "compare runs with intervals and tests, item by item",
        "report": "write a run's report again from its files",
        "explain": "draw where the answers of a run or a bundle come from",
    },
    "use a trained model": {
        "export": "export a run's best checkpoint as a verified ONNX bundle",
        "predict": "classify images and videos with a run or a bundle",
        "promote": "put a run in use, if its export passes and it is not worse",
        "verify": "check that a bundle is as the owner of a key signed it",
        "serve": "answer requests over HTTP and gRPC, with a page to try bundles",
    },
    "plugins and editors": {
        "plugins": "list, show, examine, disable and make plugins",
        "schema": "print the JSON Schema of a recipe with all installed components",
    },
}
"""The commands in groups, as `--help` lists them. `fill` of `toolkit.cli.NAME` gives a parser the arguments of one."""

EXAMPLES = ("demo", "init images photos", "run cifar10_cnn --set train.epochs=20")
EXIT_CODES = """\
Exit codes: 0 done, 1 failed, 2 usage or recipe invalid, 3 data unusable,
4 plugin broken, 5 an export differs from the trained model,
6 a run is worse than another, 75 stopped by a signal and resumable,
130 interrupted, 141 nobody reads the output any more."""


class Whole(Parser):
    """The parser of all commands, which lists them by group."""

    def describe(self) -> str:
        return "\n".join(_listed())


def parser() -> Parser:
    """The parser of all commands."""
    whole = Whole(prog=PROGRAM, usage=f"{PROGRAM} COMMAND ...", epilog=f"{listed_examples(EXAMPLES)}\n\n{EXIT_CODES}")
    whole.add_argument("--version", action="store_true", help="print the version and exit")
    commands = whole.add_subparsers(metavar="COMMAND", prog=PROGRAM, help=argparse.SUPPRESS)
    for group in COMMANDS.values():
        for name, text in group.items():
            add(commands, name, text, partial(_fill, name))
    whole.set_defaults(command=lambda options: _no_command(whole, options))
    return whole


def _fill(name: str, parser: Parser) -> None:
    import_module(f"toolkit.cli.{name}").fill(parser)


def _listed() -> Iterator[str]:
    yield sentence("train, evaluate, report, export and serve vision models from recipes")
    for title, group in COMMANDS.items():
        yield from ("", f"{title}:", *(f"    {name:<9} {text}" for name, text in group.items()))


def _no_command(whole: Parser, options: argparse.Namespace) -> int:
    if not options.version:
        whole.print_help()
        return EXIT_USAGE
    from toolkit import __version__

    print(f"toolkit {__version__}")
    return EXIT_DONE
