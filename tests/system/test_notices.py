"""Warnings and notes: where they are printed, and how."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console
from rich.live import Live

from toolkit.system.notices import note, say, warn

YELLOW, PLAIN = "\033[33m", "\033[0m"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    warn("no room [in] red")
    note("the data is a sample")
    assert capsys.readouterr() == ("", "warning: no room [in] red\nnote: the data is a sample\n")


@pytest.mark.parametrize(("no_color", "line"), [("", f"{YELLOW}warning: w{PLAIN}\n"), ("1", "warning: w\n")])
def test_it_is_yellow_on_a_terminal(no_color: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr(sys, "stderr", Terminal())
    warn("w")
    assert sys.stderr.getvalue() == line  # type: ignore[attr-defined]


def test_a_console_prints_it_as_one_line_without_markup() -> None:
    console = Console(file=io.StringIO(), width=20)
    note("[red] " + "long " * 10, console)
    assert console.file.getvalue().rstrip("\n") == "note: [red] " + "long " * 10  # type: ignore[attr-defined]


def test_it_appears_above_a_live_line(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with Live("training", console=Console(file=screen, force_terminal=True, width=60), auto_refresh=False):
        warn("no room")
    shown = screen.getvalue()
    assert shown.index("warning: no room") < shown.rindex("training")


def test_nothing_is_printed_where_standard_error_is_closed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    warn("no room")
    assert capsys.readouterr().out == ""


def test_on_a_terminal_a_line_breaks_between_words_alone() -> None:
    path = "/a/path/that/is/longer/than/the/terminal/is-wide"
    console = Console(file=io.StringIO(), width=40, force_terminal=True, color_system=None)
    say(f"data {path}: ten classes, a sentence of many short words and one-hyphenated", console)
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "data",
        f"  {path}:",
        "  ten classes, a sentence of many short",
        "  words and one-hyphenated",
    ]
