"""The command line. Parses with the standard library alone; every command imports what it needs when it runs."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from toolkit.api.errors import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_UNREAD,
    MissingRunError,
    RecipeError,
    RunFailed,
    Stopped,
    ToolkitError,
    UsageError,
    printable,
)
from toolkit.api.files import unwritable_by_others
from toolkit.api.memory import lacks_memory
from toolkit.cli.commands import parser
from toolkit.cli.parser import PROGRAM, command_line
from toolkit.system.notices import print_error, wrapped
from toolkit.system.signals import Signals, exit_code, how_ended
from toolkit.system.streams import lead_nowhere, open_closed_streams

if TYPE_CHECKING:
    from argparse import Namespace

    from toolkit.cli.parser import Parser

_LESS = "end what else runs on this machine, or use smaller inputs; see where with --debug"
VERSION = frozenset({"version", "-V", "-v", "--v"})


@unwritable_by_others()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, that of `arguments` or of the command line; its exit code, as `--help` lists them."""
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
        command: Callable[[Namespace], int | None] = options.command
        _check_ranks(words)
        with signals:
            code = command(options) or EXIT_DONE
            sys.stdout.flush()
            return code
    except BrokenPipeError:
        _give_up_output()
        return EXIT_UNREAD
    except (Exception, KeyboardInterrupt) as error:
        return _fail(_explained(error, words, signals.raised), words, debug=debug)


def parsed(whole: Parser, words: Sequence[str]) -> Namespace:
    """The options of a command line. Raises UsageError with the command that was meant, where that can be guessed."""
    import argparse

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


def _next_step(error: ToolkitError, words: Sequence[str]) -> str | None:
    """What to do next, with the whole command where that is known."""
    from toolkit.cli.repairs import completed, repaired, with_nearest_run

    if isinstance(error, RecipeError) and (command := repaired(error, words)):
        return command
    if isinstance(error, MissingRunError) and (command := with_nearest_run(error, words)):
        return command
    return error.next_step and completed(error.next_step, words, parser())


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
    first, *details = str(error).splitlines() or [""]
    message = f"unexpected {type(error).__name__}: {first}"
    return RunFailed(message, details=details, next_step="see where with --debug")


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
    if _left_for_launcher(error):
        return error.exit_code
    next_step = _next_step(error, words)  # first: a launcher may kill this rank before long
    for line in error.lines():
        print_error(wrapped(line if line.startswith(" ") else f"error: {line}"))
    if next_step:
        print_error(f"next:  {printable(next_step)}")
    return error.exit_code


def _check_ranks(words: Sequence[str]) -> None:
    """Raise UsageError if a launcher has started several processes of a command that only one should run."""
    if "WORLD_SIZE" not in os.environ:
        return
    from toolkit.system.ranks import launched

    if launched().together and "run" not in words[:1]:
        raise UsageError(
            f"{' '.join(words[:1]) or PROGRAM}: runs in one process; only `run` runs on several ranks",
            next_step=command_line(words),
        )


def _left_for_launcher(error: ToolkitError) -> bool:
    """Leave an error for the launcher of this rank, if it is one; whether that is all, because another rank prints it.

    What ranks meet before they are connected all of them meet, so one on each machine prints it.
    """
    if "WORLD_SIZE" not in os.environ:
        return False
    from toolkit.system.ranks import launched, leave_for_launcher

    try:
        ranks = launched()
    except UsageError:
        return False
    if not ranks.together:
        return False
    leave_for_launcher(error.lines())
    return ranks.local_rank > 0 if error.shown is None else error.shown
