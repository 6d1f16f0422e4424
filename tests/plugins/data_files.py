"""Small image and video files for the tests of the datasets."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from toolkit.api.contracts import Data, Split
from toolkit.api.errors import DataError


def write_image(path: Path, seed: int = 0, *, height: int = 24, width: int = 32) -> Path:
    """A picture of noise, the same for the same seed; PNG or JPEG by the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def write_video(path: Path, *, frames: int = 12, rate: int = 10, shade: int = 0) -> Path:
    """A video of flat grey frames: frame n has the level 16 * n + shade."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 64, 48, "yuv420p", 4_000_000
        for number in range(frames):
            level = np.full((48, 64, 3), 16 * number + shade, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(level, format="rgb24")))
        container.mux(stream.encode())
    return path


def real_data(name: str) -> Path:
    """A folder or file of the real data; the test is skipped where it is absent."""
    root = os.environ.get("TOOLKIT_DATA")
    if not root:
        pytest.skip("TOOLKIT_DATA does not name a folder of real data")
    path = Path(root, name)
    if not path.exists():
        pytest.skip(f"TOOLKIT_DATA has no {name}")
    return path


def class_folders(root: Path, *, images: int = 4, classes: tuple[str, ...] = ("run", "sit")) -> Path:
    for target, name in enumerate(classes):
        for number in range(images):
            write_image(root / name / f"{number}.png", 100 * target + number)
    return root


def splits(data: Data) -> tuple[Split, Split, Split]:
    return data.train, data.valid, data.test


def all_ids(data: Data) -> list[str]:
    return sorted(item for split in splits(data) for item in split.ids)


def refused(root: Path, dataset: Callable[..., Data], **arguments: object) -> DataError:
    with pytest.raises(DataError) as caught:
        dataset(root, **arguments)
    assert caught.value.message.startswith(str(caught.value.path))
    return caught.value
