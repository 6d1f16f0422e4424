"""Which frames of a video make a clip: one rule for training, evaluation, the bundle and live streams. No torch here.

Time is counted in seconds from a video's first frame. At a moment the frame is seen that was shown last, so a clip
means the same at any frame rate, constant or not.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Self, TypeAlias

Sampling: TypeAlias = Literal["strided", "segments"]
Short: TypeAlias = Literal["loop", "hold"]
Averaged: TypeAlias = Literal["probabilities", "logits"]

PHASES = 2
"""Places where a clip may begin, between one frame of it and the next: between them nothing much moves, and frames that
no clip sees need neither be converted nor kept."""
_EARLY = 1e-4
"""Seconds by which a frame may come after the moment it is shown at: moments and times are sums of rounded numbers."""


@dataclass(frozen=True)
class Clip:
    """How a video becomes clips of T frames, and how many views of it make one answer."""

    frames: int
    """T."""
    rate: int = 1
    """Frames from one frame of a clip to the next, counted at `fps`: 13 x 6 spans 78 frames, 2.6 seconds."""
    fps: float = 30.0
    """Frames a second that `rate` counts."""
    sampling: Sampling = "strided"
    """`strided`: T frames, `rate` apart, from a start of its own. `segments`: one frame from each of T equal parts of
    the whole video (TSN, arXiv 1608.00859)."""
    clips: int = 1
    """Views in time at evaluation."""
    crops: int = 1
    """Views in space at evaluation: 1 is the centre; 3 are the two ends and the centre of the long side."""
    average: Averaged = "probabilities"
    """What is averaged over the views of a video."""
    short: Short = "loop"
    """What comes after the last frame of a video shorter than the clip: its first again, or the last one held."""
    clips_per_video: int = 1
    """Clips drawn from a video each time it is opened in training."""

    @property
    def step(self) -> float:
        """Seconds from one frame of a strided clip to the next."""
        return self.rate / self.fps

    @property
    def span(self) -> float:
        """Seconds of a strided clip, its last frame's included."""
        return self.frames * self.step

    @property
    def views(self) -> int:
        return self.clips * self.crops


class Times(tuple[float, ...]):
    """When each frame of a video is shown, in seconds, ascending; and when the last one ends."""

    end: float

    def __new__(cls, moments: Iterable[float], end: float) -> Self:
        times = super().__new__(cls, moments)
        times.end = end
        return times


def duration(times: Sequence[float]) -> float:
    """Seconds of a video whose frames are shown at `times`. Where these do not say when the last one ends, as `Times`
    do, it lasts as long as the others on average."""
    if isinstance(times, Times):
        return times.end - times[0]
    if len(times) < 2:
        return 1 / 30
    return (times[-1] - times[0]) * len(times) / (len(times) - 1)


def seen(clip: Clip, times: Sequence[float]) -> list[int]:
    """Numbers of all frames that training clips are made of, ascending."""
    length = duration(times)
    grid = length / (clip.frames * PHASES) if clip.sampling == "segments" else clip.step / PHASES
    count = clip.frames * PHASES if clip.sampling == "segments" else math.ceil((length - _EARLY) / grid)
    return sorted(set(frames_at(clip, times, [number * grid for number in range(max(count, 1))])))


def training_clip(clip: Clip, times: Sequence[float], draws: Sequence[float]) -> list[int]:
    """Numbers of the T frames of one training clip, all of them among those `seen`. `draws` are T numbers, each uniform
    in 0..1: a strided clip takes the first for its start, segments take one each."""
    length = duration(times)
    if clip.sampling == "segments":
        return snapped(
            _segmented(clip, times, [math.floor(draw * PHASES) / PHASES for draw in draws]), seen(clip, times)
        )
    phase = clip.step / PHASES
    starts = math.floor(max(length - clip.span + _EARLY, 0) / phase) + 1
    numbers = _strided(clip, times, math.floor(draws[0] * starts) * phase)
    return snapped(numbers, seen(clip, times))  # a short video's loop leaves the grid


def snapped(numbers: Sequence[int], known: Sequence[int]) -> list[int]:
    """For each frame the last one of `known` (ascending, from 0) that is not after it."""
    return [known[bisect_right(known, number) - 1] for number in numbers]


def evaluation_clips(clip: Clip, times: Sequence[float]) -> list[list[int]]:
    """Numbers of the frames of every clip in time, evenly spread over the video: `clip.clips` lists of T."""
    length, count = duration(times), clip.clips
    if clip.sampling == "segments":
        places = [(2 * view + 1) / (2 * count) for view in range(count)]
        return [_segmented(clip, times, [place] * clip.frames) for place in places]
    room = max(length - clip.span, 0)
    starts = [room / 2] if count == 1 else [room * view / (count - 1) for view in range(count)]
    return [_strided(clip, times, start) for start in starts]


def middle(total: int, part: int, parts: int) -> int:
    """The number of the frame in the middle of one of `parts` equal parts of `total` frames."""
    return (2 * part + 1) * total // (2 * parts)


def middles(total: int, parts: int) -> list[int]:
    """Numbers of the frames in the middle of `parts` equal parts of `total` frames; all when there are fewer."""
    return [middle(total, part, parts) for part in range(parts)] if total > parts else list(range(total))


def window(clip: Clip, times: Sequence[float], start: float, span: float) -> list[int]:
    """Numbers of the T frames of a clip that sees `span` seconds from `start` on; a strided one sees its own span."""
    if clip.sampling == "segments":
        part = span / clip.frames
        return frames_at(clip, times, [start + (number + 0.5) * part for number in range(clip.frames)])
    return _strided(clip, times, start)


def window_starts(length: float, span: float, every: float, *, after: float = 0.0) -> Iterator[float]:
    """Where the windows of a timeline begin: every `every` seconds, for as long as a whole `span` remains; one in any
    case. Those that begin before `after` are passed over."""
    number = math.ceil(after / every) if after else 0
    while number == 0 or number * every + span <= length + _EARLY:
        yield number * every
        number += 1


def frames_at(clip: Clip, times: Sequence[float], moments: Sequence[float]) -> list[int]:
    """The number of the frame on show at each moment, in seconds from the first frame."""
    length, first = duration(times), times[0]
    return [_frame_at(times, first + _within(moment, length, clip.short)) for moment in moments]


def _segmented(clip: Clip, times: Sequence[float], places: Sequence[float]) -> list[int]:
    """One frame of each segment, at a place in it, 0..1."""
    part = duration(times) / clip.frames
    moments = [(number + place) * part for number, place in enumerate(places)]
    return frames_at(clip, times, moments)


def _strided(clip: Clip, times: Sequence[float], start: float) -> list[int]:
    return frames_at(clip, times, [start + number * clip.step for number in range(clip.frames)])


def _within(moment: float, length: float, short: Short) -> float:
    return (moment + _EARLY) % length - _EARLY if short == "loop" and length else moment


def _frame_at(times: Sequence[float], moment: float) -> int:
    return max(bisect_right(times, moment + _EARLY) - 1, 0)
