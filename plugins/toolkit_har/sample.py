"""The built-in sample: animated stick figures, made by code from seeds; whole videos, or two frames of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from toolkit.api.contracts import Data, DataSpec
from toolkit.data.division import Division
from toolkit.data.splits import SPLITS
from toolkit.data.videos import ArrayVideos, FramesOf
from toolkit_har.stick_figure import ACTIONS, REVERSED_PAIRS, clip

SIZE = 64
FRAMES = 32
FPS = 12.0
FRAMES_ALONE = 2
"""Frames drawn of each video where single frames are seen."""
SHOWN_BY_ONE_FRAME = tuple(action for action in ACTIONS if action not in {second for _, second in REVERSED_PAIRS})
"""Actions that single frames can distinguish: one of each reversed pair, and all others."""


@dataclass(frozen=True)
class DrawnVideos:
    """A split of videos that are drawn when they are read: frame n of F shows the middle of the n-th part of the whole
    action."""

    ids: tuple[str, ...]
    targets: tuple[int, ...]
    seeds: tuple[int, ...]
    actions: tuple[str, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(_key(name, FRAMES) for name in self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def times(self, index: int) -> Sequence[float]:  # noqa: ARG002 (all are alike in this)
        """When each frame is shown, in seconds from the first."""
        return tuple(number / FPS for number in range(FRAMES))

    def read(self, index: int, frames: Sequence[int]) -> Iterator[Tensor]:
        """The frames with these numbers, uint8 `[3, 64, 64]`."""
        drawn = torch.from_numpy(clip(self.actions[self.targets[index]], self.seeds[index], frames=FRAMES, size=SIZE))
        for number in frames:
            yield drawn[number]

    def select(self, positions: Sequence[int]) -> DrawnVideos:
        """The split of the videos at these positions."""
        return DrawnVideos(
            tuple(self.ids[position] for position in positions),
            tuple(self.targets[position] for position in positions),
            tuple(self.seeds[position] for position in positions),
            self.actions,
        )

    def frames_alone(self) -> FramesOf:
        """The split of two frames of each video, drawn at once and without the others."""
        drawn = np.empty((len(self), FRAMES_ALONE, 3, SIZE, SIZE), np.uint8)
        for index, (target, seed) in enumerate(zip(self.targets, self.seeds, strict=True)):
            drawn[index] = clip(self.actions[target], seed, frames=FRAMES_ALONE, size=SIZE)
        keys = tuple(_key(name, FRAMES_ALONE) for name in self.ids)
        fps = FPS * FRAMES_ALONE / FRAMES
        return FramesOf(ArrayVideos(self.ids, self.targets, keys, torch.from_numpy(drawn), fps), FRAMES_ALONE)


def sample(division: Division, count: int, *, clips: bool) -> Data:
    """`count` videos of each action: whole ones of all actions where `clips`, else two frames of each video of the
    actions that one frame can show."""
    actions = ACTIONS if clips else SHOWN_BY_ONE_FRAME
    videos = _videos(actions, count)
    parts = division.divide(videos.ids, videos.targets, actions)
    whole = [videos.select(getattr(parts, name)) for name in SPLITS]
    train, valid, test = whole if clips else [split.frames_alone() for split in whole]
    frames = None if clips else FRAMES_ALONE
    return Data(
        DataSpec(actions, size=SIZE, sample=True, frames_per_video=frames),
        *(train, valid, test),
        division.protocol(videos.ids, parts, "clip") | ({"frames_per_video": frames} if frames else {}),
        (_note(clips=clips), *parts.notes),
        sources={name: video for split in (valid, test) for name, video in _sources(split).items()},
    )


def _sources(split: DrawnVideos | FramesOf) -> dict[str, str]:
    return split.sources if isinstance(split, FramesOf) else {}


def _note(*, clips: bool) -> str:
    pairs = "; ".join(" and ".join(pair) for pair in REVERSED_PAIRS)
    shown = "" if clips else ", so only the first of each pair is shown"
    return f"stick figures drawn by code; one frame cannot distinguish: {pairs}{shown}"


def _videos(actions: tuple[str, ...], count: int) -> DrawnVideos:
    """Video n of an action is drawn from seed n, so that asking for more leaves the first ones as they are."""
    wanted = [(target, seed) for target in range(len(actions)) for seed in range(count)]
    ids = tuple(f"{actions[target]}/{seed:04d}" for target, seed in wanted)
    return DrawnVideos(ids, tuple(target for target, _ in wanted), tuple(seed for _, seed in wanted), actions)


def _key(name: str, frames: int) -> str:
    return f"stick-figure-2-{name.replace('/', '-')}-{frames}-{SIZE}"
