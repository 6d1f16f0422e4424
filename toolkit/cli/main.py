"""The command line. Parses with the standard library alone; every command imports what it needs when it runs."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence

from toolkit.api.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, RunFailed, ToolkitError, UsageError
from toolkit.cli import demo, export, plugins, predict, recipes, run, tune
from toolkit.cli.init.command import add_init
from toolkit.cli.parser import Parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is DESIGN's: 0 done, 1 failed, 2 usage, 3 data, 4 plugin, 75/130 stopped."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if not sys.stdout:  # closed from the start: the next file that is opened would take its place, and what is printed
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - as long as the process lives
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error is: names of files may be no text
    debug = "--debug" in words or bool(os.environ.get("TOOLKIT_DEBUG"))
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # finding them reads malformed packages too
    try:
        options = parser().parse_args(words, argparse.Namespace(words=words))
        command: Callable[[argparse.Namespace], int | None] = options.command
        code = command(options) or EXIT_DONE
        sys.stdout.flush()
        return code
    except ToolkitError as error:
        return _fail(error, debug=debug)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"{error.filename}: {reason}" if error.filename else reason
        return _fail(RunFailed(message, next_step="mend it, then give the same command again"), debug=debug)
    except Exception as error:
        message = f"unexpected {type(error).__name__}: {error}"
        return _fail(RunFailed(message, next_step="see where with --debug"), debug=debug)


def parser() -> Parser:
    """The parser of all commands, in the order in which `--help` lists them."""
    whole = Parser(
        prog="python -m toolkit",
        description="Train, evaluate, report, export and serve vision models from recipes.",
        epilog="Exit codes: 0 done, 1 failed, 2 usage or recipe invalid, 3 data unusable, 4 plugin broken, "
        "5 an export differs from the trained model, 75 stopped by a signal and resumable, 130 interrupted.",
    )
    whole.add_argument("--version", action="store_true", help="print the version and leave")
    whole.set_defaults(command=_no_command)
    commands = whole.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)
    demo.add_demo(commands)
    add_init(commands)
    run.add_run(commands)
    tune.add_tune(commands)
    run.add_evaluate(commands)
    run.add_report(commands)
    export.add_export(commands)
    predict.add_predict(commands)
    run.add_check(commands)
    recipes.add_recipes(commands)
    plugins.add_plugins(commands)
    run.add_schema(commands)
    return whole


def _no_command(options: argparse.Namespace) -> None:
    if not options.version:
        raise UsageError("a command is missing", next_step="python -m toolkit --help")
    from toolkit import __version__

    print(f"toolkit {__version__}")


def _fail(error: ToolkitError, *, debug: bool) -> int:
    """Print what is wrong and the next step; the exit code. Called while `error` or its cause is being handled."""
    if debug:
        import traceback

        traceback.print_exc()
    for line in error.lines():
        print(f"error: {line}" if not line.startswith(" ") else line, file=sys.stderr)
    if error.next_step:
        print(f"next:  {error.next_step}", file=sys.stderr)
    return error.exit_code
