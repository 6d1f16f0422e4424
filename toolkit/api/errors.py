"""What can go wrong, as data. Every error carries its parts; the text shown is made from them in one place.

An error says what is wrong and where, then what to type next, and knows its exit code.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from pathlib import Path

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_DATA = 3
EXIT_PLUGIN = 4
EXIT_PARITY = 5
EXIT_WORSE = 6
EXIT_STOPPED = 75
EXIT_INTERRUPTED = 130
EXIT_UNREAD = 141


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The one of `known` that `name` most likely meant, or None."""
    import difflib

    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def counted(count: int, noun: str) -> str:
    """`1 item`, `2 items`, `1,000 items`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def printable(text: str, keep: str = "") -> str:
    """`text` with its control characters escaped, except those of `keep`: names of files and values may hold any, a
    terminal obeys them, and those that turn the direction of text make it read as another."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode() for char in text
    )


def setting(key: str, value: object) -> str:
    """`--set KEY=VALUE`, quoted for a shell, as a next step."""
    return f"--set {shlex.quote(f'{key}={value}')}"


def first_few(names: Sequence[str], limit: int = 3) -> str:
    """`a, b, c and 4 more`."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def unknown_name(message: str, name: str, known: Iterable[str], otherwise: str = "") -> str:
    """`message` about a `name` that is not among `known`, with the nearest of these; `otherwise` follows where none is
    near."""
    near = nearest(name, known)
    return str(Problem("", message, near)) if near else f"{message}{otherwise}"


_FLAG = 200
"""Characters of an argument that an error shows."""
Fault: TypeAlias = Literal["unknown key", "unknown name", "unread", "other"]
"""What is wrong, for those that repair it: a key that the table does not have, the name of a component that no plugin
offers, or arguments that were not looked at."""


class Problem(NamedTuple):
    """One thing wrong at one place: `key` is dotted (`train.optimizer.lr`), empty for the file as a whole."""

    key: str
    message: str
    suggestion: str | None = None
    flag: str = ""
    """The argument of `--set` that is at fault, not the recipe's file; empty without one."""
    command: str = ""
    """A command that helps; empty without one."""
    fault: Fault = "other"
    given: str = ""
    """The unknown name, as it is written."""

    def __str__(self) -> str:
        return f"{self.key}: {self._text()}" if self.key else self._text()

    def below(self, table: str) -> Problem:
        """The same in a table: its key is longer."""
        return self._replace(key=f"{table}.{self.key}")

    def at(self, source: str) -> str:
        """The problem as a line that begins with its place: the flag, else the recipe `source`."""
        if not self.flag:
            return f"{source}: {self}"
        text = self._text() if self.key in {self.flag, self.flag.partition("=")[0].strip()} else str(self)
        flag = self.flag if len(self.flag) <= _FLAG else f"{self.flag[: _FLAG - 3]}..."
        return f"--set {shlex.quote(flag)}: {text}"

    def _text(self) -> str:
        return f'{self.message}; did you mean "{self.suggestion}"?' if self.suggestion else self.message


class ToolkitError(Exception):
    """Base of all expected failures: shown without a traceback, ends the command with `exit_code`.

    Lines below the message have `details`. A `next_step` that is `--set KEY=VALUE`, or ends in `: --set KEY=VALUE`, is
    shown with the whole command that takes it."""

    exit_code = EXIT_FAILED
    shown: bool | None = None
    """Whether another rank of the same run has printed it; None: each rank meets it alike."""

    def __init__(
        self,
        message: str,
        *,
        details: Sequence[str] = (),
        next_step: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = tuple(details)
        self.next_step = next_step

    def lines(self) -> list[str]:
        """What is shown, a line each, which may hold any character: details are indented."""
        return [self.message, *(f"  {detail}" for detail in self.details)]


class UsageError(ToolkitError):
    """The command line cannot be understood."""

    exit_code = EXIT_USAGE


class MissingRunError(UsageError):
    """No run is at `path`, as a user wrote it; `near` is one that was probably meant."""

    def __init__(self, message: str, *, path: Path, near: Path | None) -> None:
        step = f"name one of its runs, the latest is {near}" if near else "train a model first: python -m toolkit demo"
        super().__init__(message, next_step=step)
        self.path = path
        self.near = near


class RecipeError(ToolkitError):
    """A recipe is invalid; holds every problem found, not only the first."""

    exit_code = EXIT_USAGE

    def __init__(
        self,
        source: str,
        problems: Sequence[Problem],
        *,
        next_step: str | None = None,
    ) -> None:
        message = f"{source}: {counted(len(problems), 'problem')}"
        super().__init__(message, next_step=next_step)
        self.source = source
        self.problems = tuple(problems)

    def lines(self) -> list[str]:
        return [problem.at(self.source) for problem in self.problems]


class ProjectError(ToolkitError):
    """The project's file, toolkit.toml, cannot be used."""

    exit_code = EXIT_USAGE


class DataError(ToolkitError):
    """The data cannot be used; `path` is the file or folder at fault where there is one."""

    exit_code = EXIT_DATA

    def __init__(
        self,
        message: str,
        *,
        path: Path | None = None,
        next_step: str | None = None,
    ) -> None:
        super().__init__(f"{path}: {message}" if path else message, next_step=next_step)
        self.path = path


class WeightsError(ToolkitError):
    """Weights are missing or do not fit the model; key lists are complete, the text shows the first few."""

    exit_code = EXIT_DATA

    def __init__(
        self,
        message: str,
        *,
        missing: Sequence[str] = (),
        unexpected: Sequence[str] = (),
        mis_shaped: Sequence[str] = (),
        next_step: str | None = None,
    ) -> None:
        kinds = (("missing", missing), ("unexpected", unexpected), ("mis-shaped", mis_shaped))
        details = [f"{len(keys)} {kind}: {first_few(keys, 8)}" for kind, keys in kinds if keys]
        super().__init__(message, details=details, next_step=next_step)
        self.missing = tuple(missing)
        self.unexpected = tuple(unexpected)
        self.mis_shaped = tuple(mis_shaped)


class PluginError(ToolkitError):
    """A plugin that is needed is broken, or two plugins offer the name that is needed."""

    exit_code = EXIT_PLUGIN


class BundleError(ToolkitError):
    """A bundle is damaged, of another version, or holds what a bundle may not hold."""

    exit_code = EXIT_DATA


class ParityError(ToolkitError):
    """An exported model does not answer as the trained one; the details are what was found."""

    exit_code = EXIT_PARITY


class CheckpointError(ToolkitError):
    """A checkpoint is missing, damaged or belongs to another recipe."""

    exit_code = EXIT_USAGE


class RunFailed(ToolkitError):  # noqa: N818 - it says what happened: the run failed
    """Training cannot go on: a non-finite loss, a full disk, a directory that cannot be written."""


class Stopped(ToolkitError):  # noqa: N818 - being stopped is not an error
    """A signal ended the run after its state was saved; `next_step` is the command that resumes it."""

    def __init__(self, message: str, *, exit_code: int, next_step: str) -> None:
        super().__init__(message, next_step=next_step)
        self.exit_code = exit_code
