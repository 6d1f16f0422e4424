"""Damaged images never end the process, hang it or exhaust memory; `predict` and training make the same of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny
from tests.odd_images import flipped
from toolkit.api.errors import EXIT_DATA, EXIT_DONE

MUTATIONS = int(os.environ.get("TOOLKIT_MUTATIONS", "120"))
"""Images that are damaged and read; 2,000 take a minute."""


def test_mutated_images_are_read_alike_or_refused() -> None:
    """In a process of its own, which a decoder may end."""
    command = [sys.executable, "-m", "tests.hostile.images", "0", str(MUTATIONS)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, errors="replace", check=False
    )
    assert done.returncode == 0, done.stderr[-500:]
    found = json.loads(done.stdout)
    assert found["faults"] == []
    assert sum(found["counts"].values()) == MUTATIONS
    assert all(any(f"{form} {what}" in found["counts"] for what in ("read", "refused")) for form in ("PNG", "TIFF"))


@pytest.fixture
def flawed(tmp_path: Path) -> Path:
    """A recipe for class folders of images; one bit of the pixels of train/blue/03.png is changed."""
    root = tiny.write_images(tmp_path / "images")
    path = root / "train" / "blue" / "03.png"
    data = path.read_bytes()
    start = data.index(b"IDAT")
    path.write_bytes(flipped(data, start + 4 + int.from_bytes(data[start - 4 : start], "big") // 2))
    return tiny.write_recipe(tmp_path, root)


def test_a_png_with_a_flipped_bit_ends_training_with_its_name(
    flawed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny.run(flawed, tmp_path / "runs", "train.epochs=1", "data.valid_share=0.1") == EXIT_DATA
    said = capsys.readouterr().err
    assert f"{tmp_path / 'images/train/blue/03.png'}: cannot be decoded: its PNG data is damaged" in said
    assert "next:  repair or remove the file, or skip such files with: python -m toolkit run " in said
    assert said.rstrip().endswith("--set input.on_corrupt=skip")


def test_a_png_with_a_flipped_bit_is_skipped_and_named(flawed: Path, tmp_path: Path) -> None:
    skipping = ("input.on_corrupt=skip", "input.corrupt_limit=0.5", "train.epochs=1")
    assert tiny.run(flawed, tmp_path / "runs", *skipping) == EXIT_DONE
    listed = (tiny.only_run(tmp_path / "runs") / "files.csv").read_text(encoding="utf-8")
    assert "train/blue/03.png,damaged, skipped: cannot be decoded: its PNG data is damaged" in listed.replace('"', "")
