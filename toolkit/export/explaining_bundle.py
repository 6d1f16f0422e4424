"""`explain BUNDLE`: the maps that an exported graph gives, without torch and without the run."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from toolkit.api.clips import evaluation_clips, middles
from toolkit.api.errors import DataError, UsageError, printable
from toolkit.data.geometry import crop_start
from toolkit.data.pixels import read_pixels
from toolkit.export.explaining import Explained, Explainer, Meaning, resized
from toolkit.serving.bundle import Bundle
from toolkit.serving.bundle.manifest import export_command
from toolkit.serving.predict.inputs import Source
from toolkit.serving.predict.sources import read_frames, timeline
from toolkit.system.machine import allowed_cores

if TYPE_CHECKING:
    from numpy.typing import NDArray


def opened_bundle(path: Path) -> tuple[Meaning, Explainer]:
    """A bundle whose graph gives maps.

    Raises the errors of `Bundle.load`, and UsageError for a bundle without maps."""
    bundle = Bundle.load(path, device="auto")
    manifest = bundle.manifest
    if manifest.maps is None:
        raise UsageError(
            f"{path}: has no heat maps, which an export makes with export.maps=true",
            next_step=f"{export_command(path, manifest)} --set export.maps=true",
        )
    meaning = Meaning(
        classes=manifest.classes,
        form=manifest.form,
        thresholds=manifest.thresholds,
        sample=manifest.sample,
        clips=manifest.clip is not None,
        fit=manifest.input.fit,
        share=manifest.input.size / manifest.input.square,
    )
    return meaning, partial(_explained, bundle, manifest.maps.method)


def _explained(bundle: Bundle, method: str, source: Source, chosen: int | None) -> Explained:
    picture, seen, moments = _read(bundle, source)
    (row,) = bundle.rows(seen[None])
    answer, _ = bundle.manifest.parted(row)
    about = int(answer.argmax()) if chosen is None else chosen
    found = bundle.maps(seen[None])[0, about]
    map_ = found if bundle.manifest.clip is None else _of_frames(found, len(seen), bundle.manifest.input.size)
    return Explained(picture, map_, about, answer.tolist(), method, moments)


def _read(bundle: Bundle, source: Source) -> tuple[NDArray[np.uint8], NDArray[np.uint8], Sequence[float]]:
    """The picture as it is, uint8 `[H, W, 3]`, and the square of it that the model takes; for a model of clips what it
    sees of the clip in the middle, `[T, s, s, 3]`, the squares of that clip, and the second at which each is shown."""
    clip = bundle.manifest.clip
    if source.kind != "video":
        if clip is not None:
            raise DataError(f"{printable(source.name)}: an image, but this bundle takes video clips")
        image = read_pixels(Path(source.place))
        return image, bundle.square(image), ()
    times = timeline(source).times
    if clip is None:
        (image,) = _frames(source, middles(len(times), 1))
        return image, bundle.square(image), ()
    (numbers,) = evaluation_clips(replace(clip, clips=1), times)
    squares = dict(zip(sorted({*numbers}), map(bundle.square, _frames(source, sorted({*numbers}))), strict=True))
    seen = np.stack([squares[at] for at in numbers])
    size = bundle.manifest.input.size
    start = crop_start(seen.shape[-2], size)
    central = seen[:, start : start + size, start : start + size]
    return central, seen, [times[at] - times[0] for at in numbers]


def _frames(source: Source, numbers: Sequence[int]) -> list[NDArray[np.uint8]]:
    threads = len(allowed_cores())
    return list(read_frames(source, timeline(source), numbers, threads=threads, stop=threading.Event()))


def _of_frames(map_: NDArray[np.float32], frames: int, size: int) -> NDArray[np.float32]:
    """`[t, h, w]` as `[T, size, size]`: linear in time, the middle of the first and the last map held to the ends."""
    places = ((np.arange(frames) + 0.5) * len(map_) / frames - 0.5).clip(0, len(map_) - 1)
    before = np.floor(places).astype(int)
    after = np.minimum(before + 1, len(map_) - 1)
    part = (places - before).astype(np.float32)[:, None, None]
    between = map_[before] * (1 - part) + map_[after] * part
    return np.stack([resized(one, (size, size)) for one in between])
