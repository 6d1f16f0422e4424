"""The built-in sample: clips of animated stick figures, made by code from seeds."""

from __future__ import annotations

import numpy as np
import torch

from toolkit.images import ArrayItems
from toolkit_har.stick_figure import ACTIONS, clip


def draw_clips(clips: int, frames: int, size: int) -> ArrayItems:
    """`clips` clips of each action: pixels are uint8 `[actions * clips, frames, 3, size, size]`.

    Clip n of an action is drawn from seed n, so that asking for more leaves the first ones as they are.
    """
    wanted = [(target, seed) for target in range(len(ACTIONS)) for seed in range(clips)]
    drawn = [clip(ACTIONS[target], seed, frames=frames, size=size) for target, seed in wanted]
    ids = tuple(f"{ACTIONS[target]}/{seed:04d}" for target, seed in wanted)
    keys = tuple(f"stick-figure-1-{name.replace('/', '-')}-{frames}-{size}" for name in ids)
    return ArrayItems(ids, tuple(target for target, _ in wanted), keys, torch.from_numpy(np.stack(drawn)))


def flatten(clips: ArrayItems) -> ArrayItems:
    """The frames of all clips `[N, T, 3, H, W]` as items of their own, `[N * T, 3, H, W]`."""
    frames = range(clips.pixels.shape[1])
    return ArrayItems(
        ids=tuple(f"{name}#{frame}" for name in clips.ids for frame in frames),
        targets=tuple(target for target in clips.targets for _ in frames),
        keys=tuple(f"{key}-{frame}" for key in clips.keys for frame in frames),
        pixels=clips.pixels.flatten(0, 1),
    )
