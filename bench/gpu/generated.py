"""Data of any size that needs no files: noise in place of what a dataset reads, and files of drawn images and videos.

Pixels of noise have no special value, as zeros would. Files are drawn smooth with a little noise, since noise alone
takes a decoder longer than photographs do.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from bench.train import with_data
from toolkit.api.contracts import DataSpec
from toolkit.build.plan import Plan
from toolkit.data.images import ArrayItems
from toolkit.data.videos import ArrayVideos

DISTINCT = 64
"""Items of noise that differ; more repeat them."""
CLASSES = ("drinking", "running")
QUALITY = 90
RATE = 30
"""Frames a second."""


def generated(planned: Plan, items: int) -> Plan:
    """A plan whose dataset hands out noise: `items` for training and an eighth as many for validation."""
    spec = planned.data().spec
    train, valid = noise(spec, "train", items), noise(spec, "valid", max(items // 8, 1))
    return with_data(planned, lambda data: replace(data, train=train, valid=valid))


def noise(spec: DataSpec, split: str, count: int) -> ArrayItems | ArrayVideos:
    """Items as large as those that are stored; of videos, as many frames as a clip sees."""
    shape = _shape(spec)
    names = tuple(f"{split}-{number}" for number in range(count))
    targets = tuple(number % len(spec.classes) for number in range(count))
    rng = torch.Generator().manual_seed(0)
    distinct = torch.randint(0, 256, (min(count, DISTINCT), *shape), generator=rng, dtype=torch.uint8)
    pixels = distinct[torch.arange(count) % len(distinct)]
    if spec.clip is None:
        return ArrayItems(names, targets, names, pixels)
    return ArrayVideos(names, targets, names, pixels, fps=1 / spec.clip.step)


def item_bytes(spec: DataSpec) -> int:
    """Of one item of noise."""
    return math.prod(_shape(spec))


def _shape(spec: DataSpec) -> tuple[int, ...]:
    frames = () if spec.clip is None else (spec.clip.frames,)
    return (*frames, 3, spec.stored_size, spec.stored_size)


def write_images(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """JPEG files of `size`, width and height, in the layout of HAR."""
    (folder / "train").mkdir(parents=True)
    with (folder / "Training_set.csv").open("w", encoding="utf-8", newline="") as table:
        rows = csv.writer(table)
        rows.writerow(("filename", "label"))
        for number, pixels in enumerate(drawn(count, size)):
            name = f"{number}.jpg"
            Image.fromarray(pixels).save(folder / "train" / name, quality=QUALITY)
            rows.writerow((name, CLASSES[number % len(CLASSES)]))
    return folder


def write_videos(folder: Path, count: int, frames: int, size: tuple[int, int]) -> list[Path]:
    """MPEG-4 videos of `frames` frames of `size`."""
    folder.mkdir(parents=True)
    paths = [folder / f"{number}.avi" for number in range(count)]
    for number, path in enumerate(paths):
        _encode(path, drawn(frames, size, first=number), size)
    return paths


def _encode(path: Path, pictures: Iterator[NDArray[np.uint8]], size: tuple[int, int]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for pixels in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def drawn(count: int, size: tuple[int, int], *, first: int = 0) -> Iterator[NDArray[np.uint8]]:
    """uint8 `[H, W, 3]`: waves that move, with noise of a few levels."""
    rng = np.random.default_rng(first)
    across, down = (np.arange(extent, dtype=np.float32) for extent in size)
    for number in range(first, first + count):
        phases = 0.2 * number + np.arange(3)
        waves = np.sin(across[None, :, None] / 23 + phases) + np.sin(down[:, None, None] / 31 - phases)
        grain = rng.integers(-6, 7, waves.shape)
        yield (127 + 60 * waves + grain).clip(0, 255).astype(np.uint8)
