"""The command line. Parses with the standard library alone; every command imports what it needs when it runs."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence

from toolkit.api.errors import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_UNREAD,
    EXIT_USAGE,
    RecipeError,
    RunFailed,
    Stopped,
    ToolkitError,
    UsageError,
    printable,
)
from toolkit.api.files import unwritable_by_others
from toolkit.api.memory import lacks_memory
from toolkit.cli import check, demo, export, plugins, predict, recipes, run, tune
from toolkit.cli.init.command import add_init
from toolkit.cli.parser import PROGRAM, Parser, command_line, listed_examples, sentence
from toolkit.system.notices import print_error, wrapped
from toolkit.system.signals import Signals, exit_code, how_ended
from toolkit.system.streams import lead_nowhere, open_closed_streams

GROUPS: Mapping[str, Sequence[str]] = {
    "start": ("demo", "init", "recipes"),
    "train": ("run", "tune", "check"),
    "look at results": ("evaluate", "report"),
    "use a trained model": ("export", "predict"),
    "plugins and editors": ("plugins", "schema"),
}
"""How `--help` groups the commands. One without a group is listed at the end."""

EXAMPLES = ("demo", "init images photos", "run cifar10_cnn --set train.epochs=20")
EXIT_CODES = """\
Exit codes: 0 done, 1 failed, 2 usage or recipe invalid, 3 data unusable,
4 plugin broken, 5 an export differs from the trained model,
75 stopped by a signal and resumable, 130 interrupted,
141 nobody reads the output any more."""
_LESS = "end what else runs on this machine, or use smaller inputs; see where with --debug"
VERSION = frozenset({"version", "-V", "-v", "--v"})


@unwritable_by_others()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is DESIGN's: 0 done, 1 failed, 2 usage, 3 data, 4 plugin, 75/130 stopped,
    141 unread."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    open_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error is: names of files may be no text
    debug = "--debug" in words or bool(os.environ.get("TOOLKIT_DEBUG"))
    # Finding plugins of these reads the entry points of all packages, and one malformed package would end it.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
    signals = Signals()
    try:
        options = parsed(parser(), words)
        command: Callable[[argparse.Namespace], int | None] = options.command
        with signals:
            code = command(options) or EXIT_DONE
            sys.stdout.flush()
            return code
    except BrokenPipeError:
        _give_up_output()
        return EXIT_UNREAD
    except (Exception, KeyboardInterrupt) as error:
        return _fail(_explained(error, words, signals.raised), words, debug=debug)


class Whole(Parser):
    """The parser of all commands, which lists them by group."""

    def describe(self) -> str:
        grouped = {name for names in GROUPS.values() for name in names}
        more = {"more": [name for name in self.actions if name not in grouped]}
        lines = [sentence("train, evaluate, report, export and serve vision models from recipes")]
        for title, names in {**GROUPS, **more}.items():
            rows = [f"    {name:<9} {self.actions[name].text}" for name in names if name in self.actions]
            lines += ["", f"{title}:", *rows] if rows else []
        return "\n".join(lines)


def parser() -> Parser:
    """The parser of all commands; GROUPS has the order in which `--help` lists them."""
    whole = Whole(prog=PROGRAM, usage=f"{PROGRAM} COMMAND ...", epilog=f"{listed_examples(EXAMPLES)}\n\n{EXIT_CODES}")
    whole.add_argument("--version", action="store_true", help="print the version and exit")
    commands = whole.add_subparsers(metavar="COMMAND", prog=PROGRAM, parser_class=Parser, help=argparse.SUPPRESS)
    demo.add_demo(commands)
    add_init(commands)
    run.add_run(commands)
    tune.add_tune(commands)
    run.add_evaluate(commands)
    run.add_report(commands)
    export.add_export(commands)
    predict.add_predict(commands)
    check.add_check(commands)
    recipes.add_recipes(commands)
    plugins.add_plugins(commands)
    run.add_schema(commands)
    whole.actions = commands.choices
    whole.set_defaults(command=lambda options: _no_command(whole, options))
    return whole


def parsed(whole: Parser, words: Sequence[str]) -> argparse.Namespace:
    """The options of a command line. Raises UsageError with the command that was meant, where that can be guessed."""
    asked = _help_or_version(words)
    try:
        return whole.parse_args(asked, argparse.Namespace(words=asked))
    except UsageError as error:
        from toolkit.cli.corrections import explained

        raise explained(error, asked, whole) from error


def _help_or_version(words: Sequence[str]) -> list[str]:
    """`help COMMAND` as `COMMAND --help`, and `version` as `--version`."""
    first = words[0] if words else ""
    if first == "help":
        return [*words[1:], "--help"]
    return ["--version"] if len(words) == 1 and first in VERSION else list(words)


def _no_command(whole: Parser, options: argparse.Namespace) -> int:
    if not options.version:
        whole.print_help()
        return EXIT_USAGE
    from toolkit import __version__

    print(f"toolkit {__version__}")
    return EXIT_DONE


def _explained(error: BaseException, words: Sequence[str], signalled: int | None) -> ToolkitError:
    """What has ended a command, as an error with a next step. After a signal whatever follows is its doing: a library
    may have met it in the middle of an import, and gone on without."""
    if isinstance(error, Stopped) or (isinstance(error, ToolkitError) and not signalled):
        return error
    if signalled or isinstance(error, KeyboardInterrupt):
        code = exit_code(signalled) if signalled else EXIT_INTERRUPTED
        return Stopped(how_ended(code), exit_code=code, next_step=command_line(words))
    if isinstance(error, OSError):
        place = error.filename or ("standard output" if _give_up_output() else "")
        reason = error.strerror or str(error)
        message = f"{place}: {reason}" if place else reason
        return RunFailed(message, next_step="fix this, then run the same command again")
    if lacks_memory(error):
        return RunFailed("too little memory on this machine", next_step=_LESS)
    return RunFailed(f"unexpected {type(error).__name__}: {error}", next_step="see where with --debug")


def _give_up_output() -> bool:
    """Whether standard output cannot be written; then what is still printed leads nowhere, also as Python ends."""
    try:
        sys.stdout.flush()
    except OSError:
        lead_nowhere(sys.stdout)
        return True
    return False


def _fail(error: ToolkitError, words: Sequence[str], *, debug: bool) -> int:
    """Print what is wrong and the next step; the exit code. Called while `error` or its cause is being handled."""
    if debug:
        import traceback

        traceback.print_exc()
    for line in error.lines():
        for part in line.split("\n"):
            shown = printable(part)
            print_error(wrapped(shown if shown.startswith(" ") else f"error: {shown}"))
    next_step = error.next_step
    if isinstance(error, RecipeError):
        from toolkit.cli.repairs import repaired

        next_step = repaired(error, words) or next_step
    if next_step:
        print_error(f"next:  {printable(next_step)}")
    return error.exit_code
