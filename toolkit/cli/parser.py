"""The parser of every command, and what several commands share: flags, examples, the console, signals."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from toolkit.api.errors import Stopped, UsageError, unknown_name
from toolkit.system.choices import BUNDLE_DEVICES, BUNDLE_PRECISIONS, BUNDLE_RUNTIMES
from toolkit.system.notices import columns

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    Commands: TypeAlias = "argparse._SubParsersAction[Parser]"

PROGRAM = "python -m toolkit"
DEVICES = ("auto", *BUNDLE_DEVICES)
RUNTIMES = ("auto", *BUNDLE_RUNTIMES)
ATTEMPTS = "attempts in a row to open a lost camera or stream again (default: no end; 0: none)"
SET_HELP = (
    "override a recipe key; may be repeated. `python -m toolkit schema` lists all keys, "
    "`python -m toolkit plugins show NAME` those of a component"
)


class Parser(argparse.ArgumentParser):
    """Raises UsageError instead of ending the process, knows the nearest command, takes no flag cut short.

    `fill` adds the arguments when they are first needed, so that a command pays for no other.
    """

    def __init__(self, *, text: str = "", fill: Callable[[Parser], None] | None = None, **options: Any) -> None:
        self.flags: dict[str, bool] = {}
        """Every flag, and whether a value follows it."""
        self.places: list[str] = []
        """What the words without a flag are, in their order."""
        self.optional: set[str] = set()
        """Those of them that may be absent."""
        self._below: Mapping[str, Parser] = {}
        self.text = text
        """What the command does, as lists of commands show it."""
        self._fill = fill
        super().__init__(**options, allow_abbrev=False, formatter_class=_formatter)

    def add_subparsers(self, **options: Any) -> Commands:  # type: ignore[override]
        commands: Commands = super().add_subparsers(parser_class=Parser, **options)
        self._below = commands.choices
        return commands

    @property
    def actions(self) -> Mapping[str, Parser]:
        """The commands below this one, with their arguments."""
        return {name: parser.filled() for name, parser in self._below.items()}

    def filled(self) -> Parser:
        """This parser with its arguments."""
        fill, self._fill = self._fill, None
        if fill is not None:
            self.add_argument("--debug", action="store_true", help="show tracebacks")
            fill(self)
        return self

    def does(self, run: Callable[[argparse.Namespace], int | None], examples: Sequence[str]) -> None:
        """Let the command call `run`, which returns an exit code, or None for 0. The `examples` are whole commands
        without the program's name, and work as typed."""
        self.set_defaults(command=run)
        self.epilog = listed_examples(examples)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        return super(Parser, self.filled()).parse_known_args(args, namespace)

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        action = super().add_argument(*names, **options)
        self.flags.update(dict.fromkeys(action.option_strings, action.nargs != 0))
        if not action.option_strings:
            self.places.append(str(action.metavar))
        if not action.option_strings and action.nargs == "?":
            self.optional.add(str(action.metavar))
        return action

    def format_help(self) -> str:
        self.description = self.describe()
        return super().format_help()

    def describe(self) -> str:
        """The text below the usage, made only for --help."""
        return sentence(self.text)

    def error(self, message: str) -> NoReturn:
        import re

        # argparse's text, but the nearest command or choice instead of the whole list
        found = re.search(r"""(?:argument ([^:]*): )?invalid choice: (['"])(.*)\2.*\(choose from (.*)\)""", message)
        if found:
            name, known = found[3], [choice.strip(" '") for choice in found[4].split(",")]
            is_command = found[1] in {None, "COMMAND", "ACTION"}
            message = f'no such command "{name}"' if is_command else f'argument {found[1]}: invalid choice "{name}"'
            message = unknown_name(message, name, known, otherwise=f" (choose from {', '.join(known)})")
        raise UsageError(message, next_step=f"{self.prog} --help")


def add(commands: Commands, name: str, text: str, fill: Callable[[Parser], None]) -> None:
    """Add a command with this help `text`; `fill` gives its parser the arguments."""
    commands.add_parser(name, help=text, text=text, fill=fill)


def sentence(text: str) -> str:
    import textwrap

    return textwrap.fill(f"{text[0].upper()}{text[1:]}.", columns() - 2)


def _formatter(prog: str) -> argparse.HelpFormatter:
    return argparse.RawDescriptionHelpFormatter(prog, width=columns() - 2)


def listed_examples(examples: Sequence[str]) -> str:
    return "\n".join(["examples:", *(f"  {PROGRAM} {example}" for example in examples)])


def add_set(parser: Parser, text: str = SET_HELP) -> None:
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="overrides", help=text)


def add_use(parser: Parser) -> None:
    """How a bundle is used."""
    places = f"for a bundle: {', '.join(DEVICES)} (default: auto, the best that loads)"
    parser.add_argument("--device", metavar="DEVICE", choices=DEVICES, help=places)
    chosen = f"for a bundle: {', '.join(BUNDLE_PRECISIONS)} (default: its first)"
    parser.add_argument("--precision", metavar="PRECISION", choices=BUNDLE_PRECISIONS, help=chosen)
    computed = f"for a bundle: {', '.join(RUNTIMES)} (default: {BUNDLE_RUNTIMES[0]}; auto: the faster, measured once)"
    parser.add_argument("--runtime", metavar="RUNTIME", choices=RUNTIMES, help=computed)


def add_signature(parser: Parser) -> None:
    from pathlib import Path

    owner = "refuse a bundle that the owner of this public key has not signed"
    parser.add_argument("--require-signature", metavar="KEY", type=Path, help=owner)


def add_open(parser: Parser) -> None:
    parser.add_argument("--open", action="store_true", help="show the report in a browser")


def open_if_asked(options: argparse.Namespace, page: Path) -> None:
    """Do what the flag of `add_open` asks for."""
    if options.open:
        from toolkit.system.browser import open_page

        open_page(page)


def set_flags(overrides: Sequence[str]) -> list[str]:
    """The words of a command line that have given these overrides."""
    return [word for override in overrides for word in ("--set", override)]


def count(text: str) -> int:
    """The type of an argument that is an integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'expected an integer of at least 1, got "{text}"')
    return int(text)


def command_line(words: Sequence[str]) -> str:
    """The whole command of these words, to be typed in a shell; control characters are escaped."""
    return " ".join([PROGRAM, *map(_quoted, words)])


def _quoted(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    escaped = word.encode("unicode_escape", "backslashreplace").decode().replace("'", "\\'")
    return f"$'{escaped}'"


def same_command(options: argparse.Namespace) -> str:
    """The command line that `options` were parsed from."""
    return command_line(options.words)


def without(words: Sequence[str], flags: Mapping[str, bool]) -> list[str]:
    """A command line without these flags, and without the values of those that have one."""
    kept, value = [], False
    for word in words:
        name, equals, _ = word.partition("=")
        if not value and name not in flags:
            kept.append(word)
        value = not value and flags.get(name, False) and not equals
    return kept


@contextmanager
def stopped(kept: str, options: argparse.Namespace) -> Iterator[None]:
    """A signal ends the block: the message says what is `kept` or lost, the next step is the same command."""
    from toolkit.system.signals import Signalled, Signals, exit_code, how_ended

    try:
        with Signals():
            yield
    except Signalled as signal:
        code = exit_code(signal.number)
        raise Stopped(f"{how_ended(code)}; {kept}", exit_code=code, next_step=same_command(options)) from signal


def console() -> Console:
    """Standard output. Plain text, one line after another, in a file, a pipe, a notebook or a CI log, and where
    NO_COLOR is set. Of several ranks only the first one prints."""
    from toolkit.system.console import LastingConsole
    from toolkit.system.ranks import launched

    plain = not sys.stdout.isatty() or any(os.environ.get(name) for name in ("NO_COLOR", "CI"))
    terminal, quiet = False if plain else None, not launched().leads
    return LastingConsole(stderr=False, highlight=False, force_terminal=terminal, force_jupyter=False, quiet=quiet)
