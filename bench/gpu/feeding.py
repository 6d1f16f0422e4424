"""Batches from files, with all cores: of images against torchvision's ImageFolder, of clips against PyTorchVideo.

The files are real where `--data` has har-subset or ucf101-fixture, else they are drawn.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

import torch

from bench import clips as video
from bench import loader
from bench.gpu.generated import write_images, write_videos
from bench.gpu.rows import Row
from bench.gpu.schedule import Setting
from bench.pairs import Effort, Figure
from toolkit.system.device import keep_freed_memory

PAIRS = 3
IMAGES, VIDEOS, FRAMES = 768, 16, 120
SIDES = (400, 300)
"""Width and height of what is drawn."""


def images(setting: Setting) -> Iterator[Row]:
    workers = _ready(setting)
    with tempfile.TemporaryDirectory() as folder:
        count = loader.BATCH if setting.rehearsal else IMAGES
        real = None if setting.rehearsal else setting.options.har()
        root = real or write_images(Path(folder) / "har", count, SIDES)
        for case in loader.CASES[: 1 if setting.rehearsal else None]:
            figures = loader.compared(case, root, _effort(setting), workers=workers)
            yield from _rows(figures, f"{workers} workers", "real images" if real else "drawn images", setting)


def clips(setting: Setting) -> Iterator[Row]:
    """Ratios of CPU seconds."""
    _ready(setting)
    if find_spec("pytorchvideo") is None:
        yield Row("clips", skipped="pytorchvideo is not installed: pip install pytorchvideo")
        return
    with tempfile.TemporaryDirectory() as folder:
        real = None if setting.rehearsal else setting.options.folder("ucf101-fixture")
        count, frames = (2, 20) if setting.rehearsal else (VIDEOS, FRAMES)
        paths = sorted(real.rglob("*.avi")) if real else write_videos(Path(folder) / "drawn", count, frames, SIDES)
        figures = video.compared_loaders(video.video_files(paths), _effort(setting))
        yield from _rows(figures, "CPU seconds", "real videos" if real else "drawn videos", setting)


def _rows(figures: Iterable[Figure], how: str, files: str, setting: Setting) -> Iterator[Row]:
    for figure in figures:
        goal = None if setting.rehearsal else figure.target
        yield Row.of_ratio(figure.name, figure.paired, at_least=goal, facts=(*figure.facts, how, files))


def _effort(setting: Setting) -> Effort:
    return setting.effort(PAIRS)


def _ready(setting: Setting) -> int:
    """Use all cores; returns the number of workers. A rehearsal uses one core and starts none."""
    workers = 0 if setting.rehearsal else os.cpu_count() or 1
    torch.set_num_threads(max(workers, 1))
    keep_freed_memory()
    return workers
