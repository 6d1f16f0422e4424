"""What can go wrong, as data. Every error carries its parts; the text shown is made from them in one place.

An error says what is wrong and where, then what to type next, and knows its exit code.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_DATA = 3
EXIT_PLUGIN = 4
EXIT_PARITY = 5
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


def printable(text: str) -> str:
    """`text` with its control characters escaped: names of files and values may hold any, and a terminal obeys them."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def first_few(names: Sequence[str], limit: int = 3) -> str:
    """`a, b, c and 4 more`."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def unknown_name(message: str, name: str, known: Iterable[str], otherwise: str = "") -> str:
    """`message` about a `name` that is not among `known`, with the nearest of these; `otherwise` follows where none is
    near."""
    near = nearest(name, known)
    return str(Problem("", message, near)) if near else f"{message}{otherwise}"


@dataclass(frozen=True)
class Problem:
    """One thing wrong at one place: `key` is dotted (`train.optimizer.lr`), empty for the file as a whole."""

    key: str
    message: str
    suggestion: str | None = None
    flag: str = field(default="", compare=False)
    """The argument of `--set` that is at fault, not the recipe's file; empty without one."""
    command: str = field(default="", compare=False)
    """A command that helps; empty without one."""

    def __str__(self) -> str:
        return f"{self.key}: {self._text()}" if self.key else self._text()

    def at(self, source: str) -> str:
        """The problem as a line that begins with its place: the flag, else the recipe `source`."""
        if not self.flag:
            return printable(f"{source}: {self}")
        text = self._text() if self.key in {self.flag, self.flag.partition("=")[0].strip()} else str(self)
        return printable(f"--set {shlex.quote(self.flag)}: {text}")

    def _text(self) -> str:
        return f'{self.message}; did you mean "{self.suggestion}"?' if self.suggestion else self.message


class ToolkitError(Exception):
    """Base of all expected failures: shown without a traceback, ends the command with `exit_code`."""

    exit_code = EXIT_FAILED

    def __init__(self, message: str, *, next_step: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    def lines(self) -> list[str]:
        return [self.message]


class UsageError(ToolkitError):
    """The command line cannot be understood."""

    exit_code = EXIT_USAGE

    def lines(self) -> list[str]:
        return [printable(self.message)]


class RecipeError(ToolkitError):
    """A recipe is invalid; holds every problem found, not only the first."""

    exit_code = EXIT_USAGE

    def __init__(self, source: str, problems: Sequence[Problem], *, next_step: str | None = None) -> None:
        super().__init__(f"{source}: {counted(len(problems), 'problem')}", next_step=next_step)
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

    def __init__(self, message: str, *, path: Path | None = None, next_step: str | None = None) -> None:
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
        super().__init__(message, next_step=next_step)
        self.missing = tuple(missing)
        self.unexpected = tuple(unexpected)
        self.mis_shaped = tuple(mis_shaped)

    def lines(self) -> list[str]:
        kinds = (("missing", self.missing), ("unexpected", self.unexpected), ("mis-shaped", self.mis_shaped))
        return [self.message, *(f"  {len(keys)} {kind}: {_first(keys)}" for kind, keys in kinds if keys)]


class PluginError(ToolkitError):
    """A plugin that is needed is broken, or two plugins offer the name that is needed."""

    exit_code = EXIT_PLUGIN


class BundleError(ToolkitError):
    """A bundle is damaged, of another version, or holds what a bundle may not hold."""

    exit_code = EXIT_DATA


class ParityError(ToolkitError):
    """An exported model does not answer as the trained one; `findings` are the lines shown below the message."""

    exit_code = EXIT_PARITY

    def __init__(self, message: str, *, findings: Sequence[str], next_step: str | None = None) -> None:
        super().__init__(message, next_step=next_step)
        self.findings = tuple(findings)

    def lines(self) -> list[str]:
        return [self.message, *(f"  {finding}" for finding in self.findings)]


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


def _first(keys: Sequence[str], limit: int = 8) -> str:
    shown = ", ".join(keys[:limit])
    return shown if len(keys) <= limit else f"{shown}, and {len(keys) - limit} more"
