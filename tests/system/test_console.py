"""A console whose reader is gone goes quiet."""

from __future__ import annotations

import os
import sys

import pytest

from toolkit.system.console import LastingConsole


def test_a_console_goes_on_without_a_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        console = LastingConsole()
        console.print("heard")
        assert os.read(reader, 100) == b"heard\n"
        os.close(reader)
        console.print("unheard")
        console.print("nor this")
        print("nor what is printed without it")
        output.flush()
