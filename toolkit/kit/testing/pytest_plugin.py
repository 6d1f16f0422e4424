"""Fixtures for the tests of components. pytest loads this wherever the toolkit is installed: nothing heavy here."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.api.clips import Clip
from toolkit.api.contracts import DataSpec
from toolkit.kit.testing import samples


@pytest.fixture
def image_class_folders(tmp_path: Path) -> Path:
    """A folder of two class folders with 12 PNG files each."""
    return samples.image_folders(tmp_path / "images")


@pytest.fixture
def video_class_folders(tmp_path: Path) -> Path:
    """A folder of two class folders with 6 MP4 files of 12 frames each."""
    return samples.video_folders(tmp_path / "videos")


@pytest.fixture
def image_spec() -> DataSpec:
    """Three classes of images, 32 pixels wide and high."""
    return DataSpec(("first", "second", "third"), size=32)


@pytest.fixture
def clip_spec() -> DataSpec:
    """Three classes of clips: 4 frames of 32 pixels."""
    return DataSpec(("first", "second", "third"), size=32, clip=Clip(frames=4))
