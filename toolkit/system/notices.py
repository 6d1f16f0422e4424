"""Warnings and notes: a line each, shown above the live line of a run where there is one."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


_WHOLE_WORDS = partial(textwrap.TextWrapper, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def warn(text: str, console: Console | None = None) -> None:
    """Print `warning: text` on `console` (None: standard error), yellow on a terminal."""
    _print(f"warning: {text}", console)


def note(text: str, console: Console | None = None) -> None:
    """Print `note: text` on `console` (None: standard error), yellow on a terminal."""
    _print(f"note: {text}", console)


def say(text: str, console: Console, style: str | None = None) -> None:
    """Print `text` on `console`. On a terminal it breaks between words; a path longer than a line stays whole."""
    if console.is_terminal:
        text = _WHOLE_WORDS(max(console.width, 20)).fill(text)
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def wrapped(text: str) -> str:
    """`text` broken between words where standard error is a terminal, so that the terminal breaks none itself."""
    if not (sys.stderr and sys.stderr.isatty()):
        return text
    indent = "  " if text.startswith("  ") else ""
    return _WHOLE_WORDS(max(shutil.get_terminal_size().columns, 20), initial_indent=indent).fill(text.strip())


def print_error(line: str) -> None:
    """Print a line on standard error, where somebody reads it: a run does not end because nobody does."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def _print(line: str, console: Console | None) -> None:
    if console is not None:
        say(line, console, style="yellow")
    elif sys.stderr:  # which has no file where it was closed from the start
        coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        print_error(f"\033[33m{line}\033[0m" if coloured else line)
