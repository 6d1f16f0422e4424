"""A user: types commands in a folder, reads what is printed, and types the next step as it stands."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from toolkit.cli.main import main

COMMAND = re.compile(r"^(?:next: .*?|view)? *(python -m toolkit .*)$", re.MULTILINE)


@dataclass
class User:
    capsys: pytest.CaptureFixture[str]
    seen: str = ""
    """What the last command printed."""

    def types(self, command: str, *, code: int = 0) -> str:
        """Run `python -m toolkit ...`; what it prints on both streams."""
        words = shlex.split(command)
        assert words[:3] == ["python", "-m", "toolkit"], command
        found = main(words[3:])
        self.seen = "".join(self.capsys.readouterr())
        assert found == code, f"{command}\n{self.seen}"
        return self.seen

    def steps(self) -> list[str]:
        """The commands that the last command printed, in order."""
        return COMMAND.findall(self.seen)

    def step(self, *words: str) -> str:
        """The one printed command that has these words."""
        (found,) = [command for command in self.steps() if all(word in command for word in words)] or [self.seen]
        return found

    def follows(self, *words: str, code: int = 0, less: str = "") -> str:
        """Type the printed command that has these words. `less` are overrides that only save time."""
        return self.types(f"{self.step(*words)} {less}".strip(), code=code)


def latest_run() -> Path:
    return Path("runs/latest").resolve()
