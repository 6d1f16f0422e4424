"""The parts of a video that a timeline, or what is shown live, is made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from toolkit.api.clips import Clip, window, window_starts
from toolkit.serving.bundle import ClipSampling, VideoSampling

STILL = Clip(frames=1, short="hold")
"""What a model of images sees of a moment: the frame that is on show."""


@dataclass(frozen=True)
class Windows:
    """The windows of a timeline: clips that each see `span` seconds, one every `every` seconds."""

    clip: Clip
    span: float
    every: float

    @property
    def reach(self) -> float:
        """Seconds from the start of a window to the moment of its last frame."""
        if self.clip.sampling == "segments":
            return self.span * (1 - 0.5 / self.clip.frames)
        return (self.clip.frames - 1) * self.clip.step

    def starts(self, length: float, *, after: float = 0.0) -> Iterator[float]:
        """When each begins, in a source of so many seconds; not before `after`."""
        return window_starts(length, self.span, self.every, after=after)

    def numbers(self, times: Sequence[float], start: float, *, hold: bool = False) -> list[int]:
        """Which of the frames shown at `times` are seen by a window that begins `start` seconds after the first one.
        `hold`: after the last comes no loop, since `times` are only a part of the source's."""
        clip = replace(self.clip, short="hold") if hold else self.clip
        return window(clip, times, start, self.span)

    def moment(self, start: float) -> tuple[float, float]:
        """What a window shows: its start and end, which are one for a single frame."""
        return start, start if self.clip is STILL else start + self.span


def windows(sampling: VideoSampling, every: float) -> Windows:
    if isinstance(sampling, ClipSampling):
        return Windows(sampling.clip, sampling.span, every)
    return Windows(STILL, STILL.span, every)
