"""What a folder holds, as commands see it that expected a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.cli.folders import held_by


@pytest.mark.parametrize(
    ("file", "held"),
    [
        ("a.jpg", "images"),
        ("a.WEBP", "images"),
        ("a.mp4", "videos"),
        ("a.bmp", "images"),
        ("a.psd", None),  # no dataset reads it, so no command that trains on it may be offered
        ("a.txt", None),
        ("__MACOSX/a.jpg", None),
        (".hidden/a.jpg", None),
    ],
)
def test_a_folder_holds_what_datasets_can_read(tmp_path: Path, file: str, held: str | None) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.touch()
    assert held_by(tmp_path) == held
