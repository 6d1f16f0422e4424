"""Where a run's answers to files come from: a picture of each, with the map drawn over it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from toolkit.api.answers import NONE, named_classes, number
from toolkit.api.errors import EXIT_DATA, EXIT_DONE, DataError, UsageError, counted, printable, unknown_name
from toolkit.api.files import replaced
from toolkit.data.geometry import crop_start
from toolkit.data.images import read_image
from toolkit.data.store.clips import ClipStore, middle_of
from toolkit.data.store.resampling import centre_crop, to_square
from toolkit.data.videos import FramesOf, VideoFiles
from toolkit.runs.reopen import Trained, open_answering
from toolkit.runs.report import drawn_map, overlaid
from toolkit.serving.predict.captions import Layout, Line
from toolkit.serving.predict.inputs import Source, find_sources, settled
from toolkit.serving.predict.saving import Names, check_save
from toolkit.system import device as devices
from toolkit.system.machine import allowed_cores
from toolkit.system.notices import note, show
from toolkit.training.answers import answers_of
from toolkit.training.explain import Maps, explain

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.console import Console
    from torch import Tensor

    from toolkit.api.contracts import DataSpec

DECIDING = 0.8
"""A frame counts as deciding from this share of the most important one's weight on."""
ENLARGED = 256
"""Pixels of the short side up to which a small picture is enlarged: a map on 32 pixels has no room for a caption."""


@dataclass(frozen=True)
class Explained:
    """One file and where the answer to it comes from."""

    picture: Image.Image
    line: str
    """The answer, and what the map is about."""


@devices.enough_memory()
def explain_files(
    run: Path, words: Sequence[str], overrides: Sequence[str], *, named: str | None, save: Path, console: Console
) -> int:
    """Write a picture for each image and video that `words` name into the folder `save`; the exit code.

    named: the class, or the number, that maps are about; None for the likeliest class, or the first number.

    Raises UsageError for words that have no meaning, live sources, a folder that is not empty, an unknown class and a
    model without maps; DataError if no file can be read; the errors of `open_answering`.
    """
    sources = _sources(run, words)
    check_save(save, sources, stream=False)
    trained = open_answering(run, overrides)
    chosen = _number_of(named, trained.assembly.spec.classes)
    names, failed, done = Names(sources), 0, 0
    for source in sources:
        try:
            explained = _explained(trained, source, chosen)
        except DataError as error:
            failed += 1
            note(error.message)
            continue
        with replaced(save / names.take(source, ".png")) as path:
            explained.picture.save(path, "PNG")
        done += 1
        show(f"{printable(source.title)}  {explained.line}", console=console)
    if not done:
        raise DataError(
            f"none of the {counted(len(sources), 'input')} could be explained", next_step="see the lines above"
        )
    show(f"{save}: {counted(done, 'picture')}", file=sys.stderr)
    return EXIT_DATA if failed else EXIT_DONE


def _sources(run: Path, words: Sequence[str]) -> list[Source]:
    found = find_sources(words, sys.stdin.buffer if "-" in words else (), command="explain")
    for text in found.notes:
        note(text)
    live = next((source for source in found.sources if source.endless), None)
    if live is not None:
        raise UsageError(
            f"explain: takes images and videos from files, not {printable(live.name)}",
            next_step=f"python -m toolkit predict {shlex.quote(str(run))} {shlex.quote(live.place)}",
        )
    return list(found.sources)


def _number_of(name: str | None, classes: Sequence[str]) -> int | None:
    if name is None:
        return None
    if name not in classes:
        raise UsageError(
            unknown_name(f"--class {name}: the model has no such class", name, classes),
            next_step=f"choose from {', '.join(classes)}",
        )
    return list(classes).index(name)


def _explained(trained: Trained, source: Source, chosen: int | None) -> Explained:
    assembly = trained.assembly
    spec = assembly.spec
    (source,) = settled([source], moving=spec.clip is not None)
    if source.kind == "unusable":
        raise DataError(f"{printable(source.name)}: {source.problem}")
    whole, pixels, moments = _read(source, spec)
    if chosen is None and spec.targets == "number":
        chosen = 0
    maps = explain(
        assembly.network, assembly.objective, pixels.to(assembly.device), None if chosen is None else [chosen]
    )
    if maps is None:
        raise UsageError(
            f"the model {assembly.recipe.model.name} has no map: no gradient of its answers reaches the pixels"
        )
    answer = _answer(trained, maps)
    about = spec.classes[int(maps.classes[0])]
    timed = f"  {_deciding(maps, moments)}" if spec.clip is not None else ""
    picture = _enlarged(Image.fromarray(_drawn(whole, pixels[0], maps.values[0], spec)))
    caption = [Line(answer), Line(f"{maps.method}: {about}"), *([Line("SAMPLE model")] if spec.sample else [])]
    layout = Layout.of(picture.size, [caption], below=True)
    return Explained(layout.draw(picture, caption), f"{answer}  {maps.method} of {about}{timed}")


def _read(source: Source, spec: DataSpec) -> tuple[Tensor, Tensor, Sequence[float]]:
    """The picture as it is, uint8 `[3, H, W]`, and what the model sees of it, `[1, 3, S, S]`; for a model of clips the
    one in the middle, `[T, 3, S, S]` and `[1, T, 3, S, S]`, and the second at which each frame is shown."""
    path = Path(source.place)
    if spec.clip is None:
        image = FramesOf(_single(path), 1).read(0) if source.kind == "video" else read_image(path)
        square = to_square(image, spec.stored_size, spec.fit)
        return image, centre_crop(square, spec.size)[None], ()
    if source.kind != "video":
        raise DataError(f"{printable(source.name)}: an image, but this model takes video clips")
    store = ClipStore(_single(path), spec, None, len(allowed_cores()), training=False)
    times = store.split.times(0)
    (view,) = middle_of(spec.clip, times)
    clip, _ = store.fetch(torch.tensor([0]))
    seen = centre_crop(clip, spec.size)
    return seen[0], seen, [times[at] - times[0] for at in view.frames]


def _single(path: Path) -> VideoFiles:
    return VideoFiles((str(path),), (0,), (str(path),), (path,))


def _answer(trained: Trained, maps: Maps) -> str:
    """The answer of the pass that the map is of."""
    spec, objective = trained.assembly.spec, trained.assembly.objective
    row = answers_of(maps.logits, objective.targets)[0].tolist()
    if spec.targets == "number":
        return ", ".join(f"{name} {number(value)}" for name, value in zip(spec.classes, row, strict=True))
    if spec.targets == "set":
        thresholds = objective.thresholds
        limits = [0.5] * len(row) if thresholds is None else thresholds.tolist()
        return ", ".join(f"{spec.classes[at]} {row[at]:.1%}" for at in named_classes(row, limits)) or NONE
    best = max(range(len(row)), key=row.__getitem__)
    return f"{spec.classes[best]} {row[best]:.1%}"


def _deciding(maps: Maps, moments: Sequence[float]) -> str:
    """When the frames are shown that count most."""
    frames = maps.frames[0].tolist()
    shown = sorted({round(at, 2) for at, share in zip(moments, frames, strict=True) if share >= DECIDING})
    return f"deciding frames at {', '.join(f'{at:g} s' for at in shown)}" if shown else "no frame speaks for it"


def _drawn(whole: Tensor, seen: Tensor, map_: Tensor, spec: DataSpec) -> NDArray[np.uint8]:
    if spec.clip is not None:
        return drawn_map(seen, map_)
    return overlaid(whole.movedim(0, -1).numpy(), _over_whole(map_, whole.shape[-2:], spec))


def _over_whole(map_: Tensor, size: Sequence[int], spec: DataSpec) -> NDArray[np.float32]:
    """A map of what the model sees, on the whole picture: NaN where the model does not look."""
    share = spec.size / spec.stored_size
    height, width = size
    sides = [min(size)] * 2 if spec.fit == "crop" else [height, width]
    tall, wide = (max(round(side * share), 1) for side in sides)
    resized = torch.nn.functional.interpolate(map_[None, None], size=(tall, wide), mode="bilinear")[0, 0]
    heat = np.full((height, width), np.nan, np.float32)
    top, left = crop_start(height, tall), crop_start(width, wide)
    heat[top : top + tall, left : left + wide] = resized.clamp(0, 1).numpy()
    return heat


def _enlarged(picture: Image.Image) -> Image.Image:
    factor = ENLARGED // min(picture.size)
    return (
        picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
        if factor > 1
        else picture
    )
