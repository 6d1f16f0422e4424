"""The command line. Parses with the standard library alone; every command imports what it needs when it runs."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence

from toolkit.api.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    RecipeError,
    RunFailed,
    ToolkitError,
    UsageError,
)
from toolkit.api.files import unwritable_by_others
from toolkit.cli import check, demo, export, plugins, predict, recipes, run, tune
from toolkit.cli.init.command import add_init
from toolkit.cli.parser import PROGRAM, Parser, listed_examples, sentence
from toolkit.system.notices import show, wrapped

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
75 stopped by a signal and resumable, 130 interrupted."""
VERSION = frozenset({"version", "-V", "-v", "--v"})


@unwritable_by_others()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is DESIGN's: 0 done, 1 failed, 2 usage, 3 data, 4 plugin, 75/130 stopped."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if not sys.stdout:  # closed from the start: the next file that is opened would take its place, and what is printed
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - as long as the process lives
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error is: names of files may be no text
    debug = "--debug" in words or bool(os.environ.get("TOOLKIT_DEBUG"))
    # Finding plugins of these reads the entry points of all packages, and one malformed package would end it.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
    try:
        options = parsed(parser(), words)
        command: Callable[[argparse.Namespace], int | None] = options.command
        code = command(options) or EXIT_DONE
        sys.stdout.flush()
        return code
    except ToolkitError as error:
        return _fail(error, words, debug=debug)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"{error.filename}: {reason}" if error.filename else reason
        return _fail(RunFailed(message, next_step="fix this, then run the same command again"), words, debug=debug)
    except Exception as error:
        first, *details = str(error).splitlines() or [""]
        message = f"unexpected {type(error).__name__}: {first}"
        return _fail(RunFailed(message, details=details, next_step="see where with --debug"), words, debug=debug)


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


def _next_step(error: ToolkitError, words: Sequence[str]) -> str | None:
    """What to do next, with the whole command where that is known."""
    from toolkit.cli.repairs import completed, repaired

    if isinstance(error, RecipeError) and (command := repaired(error, words)):
        return command
    return error.next_step and completed(error.next_step, words, parser())


def _fail(error: ToolkitError, words: Sequence[str], *, debug: bool) -> int:
    """Print what is wrong and the next step; the exit code. Called while `error` or its cause is being handled."""
    if debug:
        import traceback

        traceback.print_exc()
    for line in error.lines():
        print(wrapped(line if line.startswith(" ") else f"error: {line}"), file=sys.stderr)
    if next_step := _next_step(error, words):
        show(f"next:  {next_step}", file=sys.stderr)
    return error.exit_code
