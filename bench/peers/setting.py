"""What every script trains: a ResNet-18 for large images, from random weights, in float32. Imported by all of them, so
it imports little itself."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

SIDE = 64
"""Pixels of the square that the network sees: a part of at least half the image, mirrored half the time."""
SCALE = (0.5, 1.0)
"""The least and the greatest part, as shares of the image's area."""
BATCH = 64
RATE, MOMENTUM, DECAY = 0.05, 0.9, 5e-4
WORKERS = 2
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Setting:
    """The words of a script's command line."""

    data: Path
    """Folder of train/<class>/<image> and valid/<class>/<image>."""
    output: Path
    """Folder for what a script keeps."""
    epochs: int

    @classmethod
    def given(cls) -> Setting:
        data, output, epochs = sys.argv[1:]
        return cls(Path(data), Path(output), int(epochs))
