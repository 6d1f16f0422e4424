"""Warnings and notes: a line each, shown above the live line of a run where there is one."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def warn(text: str, console: Console | None = None) -> None:
    """Print `warning: text` on `console` (None: standard error), yellow on a terminal."""
    _print(f"warning: {text}", console)


def note(text: str, console: Console | None = None) -> None:
    """Print `note: text` on `console` (None: standard error), yellow on a terminal."""
    _print(f"note: {text}", console)


def _print(line: str, console: Console | None) -> None:
    if console is not None:
        console.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)
    elif sys.stderr:  # which has no file where it was closed from the start
        coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        print(f"\033[33m{line}\033[0m" if coloured else line, file=sys.stderr, flush=True)
