"""Views of a video: which frames they see, how these become inputs of the model, and one answer from those to many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from toolkit.api.clips import Averaged, evaluation_clips, middles
from toolkit.serving.bundle.manifest import ClipSampling, VideoSampling

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from toolkit.api.contracts import TargetForm

T = TypeVar("T")


def views(sampling: VideoSampling, times: Sequence[float]) -> list[list[int]]:
    """Numbers of the frames of each view in time that the answer to a whole video is made of."""
    if isinstance(sampling, ClipSampling):
        return evaluation_clips(sampling.clip, times)
    return [[number] for number in middles(len(times), sampling.frames)]


def needed(wanted: Iterable[Sequence[int]]) -> list[int]:
    """The numbers of all frames in `wanted`, ascending, each once."""
    return sorted({number for numbers in wanted for number in numbers})


def gathered(wanted: Sequence[Sequence[int]], frames: Iterable[tuple[int, T]]) -> Iterator[list[T]]:
    """The frames of each list of numbers in `wanted`, in its order, as soon as the last of them has come. `frames` are
    all that are needed, ascending; one is forgotten when no list to come wants it."""
    held: dict[int, T] = {}
    earliest = [*accumulate(map(min, reversed(wanted)), min)][::-1]
    place = 0
    for number, frame in frames:
        held[number] = frame
        while place < len(wanted) and max(wanted[place]) <= number:
            yield [held[index] for index in wanted[place]]
            place += 1
            for index in [index for index in held if place == len(wanted) or index < earliest[place]]:
                del held[index]


def inputs(frames: Sequence[Sequence[NDArray[np.uint8]]], *, clips: bool) -> list[NDArray[np.uint8]]:
    """The model's inputs, one for each crop, of T frames with the same number of crops each: clips `[T, S, S, 3]`, or
    for a model of images the crops of the one frame."""
    if not clips:
        return [*frames[0]]
    return [np.stack(crop) for crop in zip(*frames, strict=True)]


def average_views(
    probabilities: NDArray[np.float32], average: Averaged, form: TargetForm = "index", *, scores: int = 0
) -> NDArray[np.float32]:
    """`[..., V, C]` to `[..., C]`: the mean over V views of the probabilities, or of the logits; of numbers always
    their own mean. The last `scores` columns are no probabilities: of these it is their own mean too.

    These are known from the probabilities. Where an item has one class (`index`), that is but for a number that all
    classes of a view share and that no answer depends on. Where it has a set of them, each has its own logit.
    """
    if scores:
        whole = [
            average_views(probabilities[..., :-scores], average, form),
            average_views(probabilities[..., -scores:], "probabilities"),
        ]
        return np.concatenate(whole, -1)
    if average == "probabilities" or form == "number":
        mean: NDArray[np.float32] = probabilities.mean(-2, dtype=np.float64).astype(np.float32)
        return mean
    if form == "set":
        eps = np.finfo(np.float32).eps
        clipped = probabilities.clip(eps, 1 - eps).astype(np.float64)
        sigmoid: NDArray[np.float32] = (1 / (1 + np.exp(-np.log(clipped / (1 - clipped)).mean(-2)))).astype(np.float32)
        return sigmoid
    logits = np.log(probabilities.clip(np.finfo(np.float32).tiny), dtype=np.float64).mean(-2)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    answers: NDArray[np.float32] = (weights / weights.sum(-1, keepdims=True)).astype(np.float32)
    return answers
