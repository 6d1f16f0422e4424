"""Mean average precision of segments, as ActivityNet scores detections, and its files of annotations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.api.errors import UsageError
from toolkit.serving.predict.segments import Segment

OVERLAPS = (0.3, 0.5, 0.7)
"""Least IoU in time at which a segment counts as found."""


def read_annotations(path: Path) -> dict[str, list[Segment]]:
    """The annotated segments of each video, by the name of its file without suffix, from JSON of ActivityNet's form:
    `{"database": {VIDEO: {"annotations": [{"label": CLASS, "segment": [START, END]}]}}}`. Raises UsageError."""
    try:
        database = json.loads(path.read_text(encoding="utf-8"))["database"]
        return {str(name): [_annotated(one) for one in found["annotations"]] for name, found in database.items()}
    except OSError as error:
        raise UsageError(f"--truth {path}: {error.strerror}", next_step="name a file of annotations") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"--truth {path}: not annotations of ActivityNet's form: {type(error).__name__}: {error}",
            next_step='expected {"database": {VIDEO: {"annotations": [{"label": CLASS, "segment": [START, END]}]}}}',
        ) from error


def _annotated(claimed: Mapping[str, Any]) -> Segment:
    start, end = map(float, claimed["segment"])
    if not 0 <= start < end:
        raise ValueError(f"segment [{start:g}, {end:g}]")
    return Segment(str(claimed["label"]), start, end, 1.0)


def mean_average_precision(
    found: Mapping[str, Sequence[Segment]], truth: Mapping[str, Sequence[Segment]], overlap: float
) -> float:
    """The mean over the annotated classes of the area under the curve of precision over recall, where precision is
    made monotonous. NaN where nothing is annotated."""
    labels = sorted({one.label for segments in truth.values() for one in segments})
    return float(np.mean([_average_precision(label, found, truth, overlap) for label in labels])) if labels else np.nan


def _average_precision(
    label: str, found: Mapping[str, Sequence[Segment]], truth: Mapping[str, Sequence[Segment]], overlap: float
) -> float:
    wanted = {video: _of(label, segments) for video, segments in truth.items()}
    total, taken = sum(map(len, wanted.values())), {video: set[int]() for video in wanted}
    ranked = sorted(
        ((one, video) for video, segments in found.items() for one in _of(label, segments)),
        key=lambda pair: -pair[0].score,
    )
    hits = np.array([_hits(one, wanted.get(video, []), taken.get(video, set()), overlap) for one, video in ranked])
    if not len(hits):
        return 0.0
    right = np.cumsum(hits)
    recall = np.concatenate([[0], right / total, [1]])
    precision = np.concatenate([[0], right / np.arange(1, len(hits) + 1), [0]])
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return float(((recall[steps] - recall[steps - 1]) * precision[steps]).sum())


def _of(label: str, segments: Iterable[Segment]) -> list[Segment]:
    return [one for one in segments if one.label == label]


def _hits(one: Segment, wanted: Sequence[Segment], taken: set[int], overlap: float) -> bool:
    """Whether a segment finds an annotated one that no surer segment has found, which is then taken."""
    for number in sorted(range(len(wanted)), key=lambda number: -iou(one, wanted[number])):
        if iou(one, wanted[number]) < overlap:
            return False
        if number not in taken:
            taken.add(number)
            return True
    return False


def iou(one: Segment, other: Segment) -> float:
    """Seconds that both have, as a share of those that either has."""
    both = min(one.end, other.end) - max(one.start, other.start)
    return max(both, 0.0) / (max(one.end, other.end) - min(one.start, other.start))
