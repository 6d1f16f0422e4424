"""What a video network is built for, apart from the networks since those are slow to import."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wanted:
    """Classes, frames of a clip, and side of a frame in pixels."""

    classes: int
    frames: int
    size: int
