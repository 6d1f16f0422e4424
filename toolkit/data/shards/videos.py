"""Splits of videos in shards, and of their single frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from toolkit.api.clips import Times, duration
from toolkit.data.decoding import read_frames
from toolkit.data.decoding import timeline as read_timeline
from toolkit.data.sequences import ArrayTargets, MadeTexts
from toolkit.data.shards.encoded import EncodedVideo
from toolkit.data.shards.items import ShardItems
from toolkit.data.timeline import Timeline
from toolkit.data.videos import BlockedFrames

if TYPE_CHECKING:
    from torch import Tensor

KEPT = 64
"""Timelines kept between a video's `times` and its `read`. No times stay of all others: there may be millions."""


class ShardVideos(ShardItems):
    """N videos."""

    def times(self, index: int) -> Times:
        """When each frame is shown, in seconds from the first, and when the last one ends; DataError naming shard and
        sample when the video cannot be opened or has no frames."""
        times = _timeline(self._video(index)).times
        return Times(times, duration(times))

    def read(self, index: int, frames: Sequence[int]) -> Iterator[Tensor]:
        """The frames with these numbers, uint8 `[3, H, W]` laid out by pixels (channels last), as `read_frames` gives
        them. Raises DataError naming shard and sample when none of its frames can be decoded."""
        import torch

        video = self._video(index)
        for pixels in read_frames(video, _timeline(video), frames):
            yield torch.from_numpy(pixels).permute(2, 0, 1)

    def _video(self, index: int) -> EncodedVideo:
        return EncodedVideo(self.name(index), self.key(index), lambda: self.content(index))


@lru_cache(KEPT)
def _timeline(video: EncodedVideo) -> Timeline:
    return read_timeline(video)


@dataclass(frozen=True)
class ShardFrames(BlockedFrames):
    """A split of single frames of videos in shards, which holds no object for each frame."""

    videos: ShardVideos

    @property
    def ids(self) -> MadeTexts:
        return MadeTexts(len(self), lambda at: f"{self.videos.name(at // self.per_video)}#{at % self.per_video}")

    @property
    def keys(self) -> MadeTexts:
        def key(at: int) -> str:
            return f"{self.videos.key(at // self.per_video)}-{at % self.per_video}-{self.per_video}"

        return MadeTexts(len(self), key)

    @property
    def targets(self) -> ArrayTargets:
        import numpy as np

        return ArrayTargets(np.repeat(self.videos.labels, self.per_video))
