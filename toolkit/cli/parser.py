"""The parser of every command, and what several commands share: flags, the console, how a signal ends them."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from toolkit.api.errors import Stopped, UsageError, unknown_name
from toolkit.system.choices import BUNDLE_DEVICES, BUNDLE_PRECISIONS
from toolkit.system.signals import Signalled, Signals, exit_code, how_ended

if TYPE_CHECKING:
    from rich.console import Console

    Commands: TypeAlias = "argparse._SubParsersAction[Parser]"

DEVICES = ("auto", *BUNDLE_DEVICES)


class Parser(argparse.ArgumentParser):
    """Raises UsageError instead of ending the process, knows the nearest command, takes no flag cut short."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        # argparse's text, but the nearest command or choice instead of the whole list
        found = re.search(r"""(?:argument (-[^:]*): )?invalid choice: (['"])(.*)\2.*\(choose from (.*)\)""", message)
        if found:
            name, known = found[3], [choice.strip(" '") for choice in found[4].split(",")]
            message = f'argument {found[1]}: there is no "{name}"' if found[1] else f'no command "{name}"'
            message = unknown_name(message, name, known, otherwise=f"; there are {', '.join(known)}")
        raise UsageError(message, next_step=f"{self.prog} --help")


def add(commands: Commands, name: str, text: str, run: Callable[[argparse.Namespace], int | None]) -> Parser:
    """The parser of a new command with this help `text`; `run` returns an exit code, or None for 0."""
    parser: Parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.set_defaults(command=run)
    return parser


def add_set(parser: Parser, text: str = "override a recipe key") -> None:
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="overrides", help=text)


def add_use(parser: Parser) -> None:
    """How a bundle is used."""
    places = f"for a bundle: {', '.join(DEVICES)} (default: auto, the best that loads)"
    parser.add_argument("--device", metavar="DEVICE", choices=DEVICES, help=places)
    chosen = f"for a bundle: {', '.join(BUNDLE_PRECISIONS)} (default: its first)"
    parser.add_argument("--precision", metavar="PRECISION", choices=BUNDLE_PRECISIONS, help=chosen)


def count(text: str) -> int:
    """The type of an argument that is an integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'must be an integer, at least 1, got "{text}"')
    return int(text)


def same_command(options: argparse.Namespace) -> str:
    """The command line that `options` were parsed from."""
    return f"python -m toolkit {shlex.join(options.words)}"


@contextmanager
def stopped(kept: str, options: argparse.Namespace) -> Iterator[None]:
    """A signal ends the block: the message says what is `kept` or lost, the next step is the same command."""
    try:
        with Signals():
            yield
    except Signalled as signal:
        code = exit_code(signal.number)
        raise Stopped(f"{how_ended(code)}; {kept}", exit_code=code, next_step=same_command(options)) from signal


def console() -> Console:
    """Standard output. Plain text, one line after another, in a file, a pipe or a CI log, and where NO_COLOR is set."""
    from rich.console import Console

    plain = not sys.stdout.isatty() or any(os.environ.get(name) for name in ("NO_COLOR", "CI"))
    return Console(stderr=False, highlight=False, force_terminal=False if plain else None)
