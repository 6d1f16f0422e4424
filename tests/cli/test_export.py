"""The command export: formats that are not written."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.api.errors import EXIT_USAGE
from toolkit.cli.export import ALIASES, FORMATS, REFUSED
from toolkit.cli.main import main


@pytest.mark.parametrize("form", [*REFUSED, *(name for name, form in ALIASES.items() if form in REFUSED)])
def test_a_format_that_is_not_written_says_why_and_what_to_do(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert form not in FORMATS
    assert main(["export", str(tmp_path), "--format", form]) == EXIT_USAGE
    printed = capsys.readouterr().err
    reason, instead = REFUSED[ALIASES.get(form, form)]
    assert f"--format {form}: not written: {reason}" in printed
    assert instead in printed
    assert list(tmp_path.iterdir()) == []
