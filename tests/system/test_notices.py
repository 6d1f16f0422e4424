"""Warnings and notes: where they are printed, and how."""

from __future__ import annotations

import ast
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from rich.live import Live

import toolkit
from toolkit.system.notices import cell, note, say, show, warn, wrapped

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


HOSTILE = {
    "escape": ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
    "line": ("a\nerror: forged", "a\\nerror: forged"),
    "carriage return": ("a\rb", "a\\rb"),
    "backspace": ("a\x08b\x7f", "a\\x08b\\x7f"),
    "C1 control": ("\x9b2J\x85", "\\x9b2J\\x85"),
    "bidi override": ("gnp.\u202ejpg", "gnp.\\u202ejpg"),
    "bidi isolate": ("\u2066a\u2069", "\\u2066a\\u2069"),
    "line separator": ("a\u2028b\u2029", "a\\u2028b\\u2029"),
    "invisible": ("a\u200bb\ufeff", "a\\u200bb\\ufeff"),
    "bytes that are not text": ("caf\udce9", "caf\\udce9"),
    "tag": ("\U000e0041", "\\U000e0041"),
    "plain": ("café naïve 東京 🙂 [red] :cat:", "café naïve 東京 🙂 [red] :cat:"),
}


@pytest.mark.parametrize(("text", "shown"), HOSTILE.values(), ids=HOSTILE)
def test_control_characters_reach_neither_a_terminal_nor_a_log(
    text: str, shown: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    show(text)
    show(text, file=sys.stderr)
    warn(text)
    note(text)
    assert capsys.readouterr() == (f"{shown}\n", f"{shown}\nwarning: {shown}\nnote: {shown}\n")
    for terminal in (False, True):
        console = Console(file=io.StringIO(), width=200, force_terminal=terminal, color_system=None)
        show(text, console=console)
        say(text, console)
        console.print(cell(text))
        assert console.file.getvalue() == 3 * f"{shown}\n"  # type: ignore[attr-defined]
    assert wrapped(text) == shown
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert wrapped(text) == shown


def test_lines_are_shown_one_below_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    show("first", "second")
    assert capsys.readouterr().out == "first\nsecond\n"


PRINTERS = {
    "toolkit/system/notices.py": "the place itself",
    "toolkit/cli/commands.py": "our own version",
    "toolkit/cli/recipes.py": "the text of a shipped recipe",
    "toolkit/cli/schema.py": "JSON, which escapes",
    "toolkit/kit/doctor/host.py": "numbers, which another process reads",
    "toolkit/runs/compare/tables.py": "a table of cells",
    "toolkit/runs/screen.py": "a table of cells",
    "toolkit/tune/best.py": "a table of cells",
    "toolkit/tune/worker/process.py": "JSON, which escapes",
}
"""Modules that print by themselves, and what."""


def _printing(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Name) and called.id == "print":
                yield node
            if isinstance(called, ast.Attribute) and called.attr == "print":
                yield node


def test_nothing_is_printed_but_through_this_module() -> None:
    core = Path(toolkit.__file__).parent
    found = {
        file.relative_to(core.parent).as_posix()
        for file in core.rglob("*.py")
        if any(_printing(ast.parse(file.read_text(encoding="utf-8"))))
    }
    assert found == {*PRINTERS}
