"""Pictures of items that flipped: those that a run has drawn, else decoded from its data."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.api.errors import ToolkitError
from toolkit.runs.files import RunFiles
from toolkit.runs.report.pictures import item_pictures

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from toolkit.api.contracts import Split, VideoSplit

SIDE = 128
"""Pixels of a picture's longer side, at most; of a clip, of each frame's."""
FRAMES = 6


def pictures_of(ids: Sequence[str], runs: Sequence[RunFiles], folder: Path) -> tuple[dict[str, Path], str]:
    """Pictures of these items by id, and why some are missing; empty where none is. What is decoded goes to
    `folder`."""
    found = {name: path for run in runs for name, path in _drawn(run)}
    lacking = [name for name in ids if name not in found]
    if not lacking:
        return {name: found[name] for name in ids}, ""
    try:
        found |= dict(_decoded(lacking, runs[0], folder))
    except ToolkitError as error:
        missing = f"No picture of {len(lacking)} of these items: {error.message}."
    else:
        missing = ""
    return {name: found[name] for name in ids if name in found}, missing


def _drawn(run: RunFiles) -> Iterator[tuple[str, Path]]:
    for place, path in item_pictures(run.directory.figures).items():
        if place < len(run.rows):
            yield run.rows[place].id, path


def _decoded(ids: Sequence[str], run: RunFiles, folder: Path) -> Iterator[tuple[str, Path]]:
    """Each item read from the run's data and written to `folder`."""
    from toolkit.api.contract_checks import read_image_of
    from toolkit.api.contracts import VideoSplit
    from toolkit.build.plan import plan
    from toolkit.host.registry import discover
    from toolkit.recipe.read import parse

    data = plan(parse(run.directory.recipe), discover()).data()
    split: Split | VideoSplit = getattr(data, run.split)
    places = {name: place for place, name in enumerate(split.ids)}
    for number, name in enumerate(ids):
        if name not in places:
            continue
        place = places[name]
        frames = _frames(split, place) if isinstance(split, VideoSplit) else [_pixels(read_image_of(split, place))]
        path = folder / f"{number:04}.webp"
        path.write_bytes(_webp(frames))
        yield name, path


def _frames(split: VideoSplit, place: int) -> list[NDArray[np.uint8]]:
    """Evenly spaced frames of a video."""
    from toolkit.api.contract_checks import read_frames_of

    count = len(split.times(place))
    wanted = sorted({at * (count - 1) // max(1, FRAMES - 1) for at in range(FRAMES)})
    return [_pixels(frame) for frame in read_frames_of(split, place, wanted)]


def _pixels(picture: Any) -> NDArray[np.uint8]:
    """uint8 `[H, W, 3]` of uint8 `[3, H, W]`."""
    pixels: NDArray[np.uint8] = picture.permute(1, 2, 0).numpy()
    return pixels


def _webp(frames: Sequence[NDArray[np.uint8]]) -> bytes:
    """The frames side by side, each at most `SIDE` pixels wide or high."""
    from PIL import Image

    images = [Image.fromarray(frame) for frame in frames]
    for image in images:
        image.thumbnail((SIDE, SIDE))
    strip = Image.new("RGB", (sum(image.width for image in images), max(image.height for image in images)))
    left = 0
    for image in images:
        strip.paste(image, (left, 0))
        left += image.width
    file = io.BytesIO()
    strip.save(file, "WEBP", quality=88, method=4)
    return file.getvalue()
