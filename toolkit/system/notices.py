"""What commands print for people: lines, and warnings and notes above the live line of a run where there is one.

Names of files, values and labels may hold anything. This is the one place where lines reach the terminal, and here
their control characters are escaped: nothing forges a line or gives the terminal an order.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from toolkit.api.errors import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


def warn(text: str, console: Console | None = None) -> None:
    """Print `warning: text` on `console` (None: standard error), yellow on a terminal."""
    _print(f"warning: {text}", console)


def note(text: str, console: Console | None = None) -> None:
    """Print `note: text` on `console` (None: standard error), yellow on a terminal."""
    _print(f"note: {text}", console)


def show(*lines: str, file: TextIO | None = None, console: Console | None = None) -> None:
    """Print each of `lines` as one line, whatever it holds, on `console` or `file` (None: standard output)."""
    for line in lines:
        if console is not None:
            console.print(printable(line), markup=False, emoji=False, highlight=False, soft_wrap=True)
        else:
            print(printable(line), file=file, flush=True)


def cell(text: str) -> Text:
    """`text` as it is, for a cell of a table that a console prints."""
    from rich.text import Text

    return Text(printable(text))


def say(text: str, console: Console, style: str | None = None) -> None:
    """Print `text` on `console`. On a terminal it breaks between words; a path longer than a line stays whole."""
    text = printable(text)
    if console.is_terminal:
        text = _in_whole_words(text, console.width)
    console.print(text, style=style, markup=False, emoji=False, highlight=False, soft_wrap=True)


def wrapped(text: str, file: TextIO | None = None) -> str:
    """`text` as one line that is printable, broken between words where `file` (None: standard error) is a terminal, so
    that the terminal breaks none itself."""
    text, file = printable(text), file or sys.stderr
    if not (file and file.isatty()):
        return text
    import shutil

    indent = "  " if text.startswith("  ") else ""
    return _in_whole_words(text.strip(), shutil.get_terminal_size().columns, initial_indent=indent)


def _in_whole_words(text: str, width: int, *, initial_indent: str = "") -> str:
    import textwrap

    lines = textwrap.TextWrapper(
        max(width, 20),
        initial_indent=initial_indent,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return lines.fill(text)


def columns(otherwise: int = 80) -> int:
    """Those of the terminal, as shutil has them, whose import would be a tenth of what --help takes; `otherwise` where
    standard output is a file or a pipe."""
    with suppress(KeyError, ValueError):
        if (given := int(os.environ["COLUMNS"])) > 0:
            return given
    with suppress(OSError):
        return os.get_terminal_size(1).columns or otherwise
    return otherwise


def print_error(line: str) -> None:
    """Print a line on standard error, where somebody reads it: a run does not end because nobody does."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def _print(line: str, console: Console | None) -> None:
    if console is not None:
        say(line, console, style="yellow")
    elif sys.stderr:  # which has no file where it was closed from the start
        line = wrapped(line)
        coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        print_error(f"\033[33m{line}\033[0m" if coloured else line)
