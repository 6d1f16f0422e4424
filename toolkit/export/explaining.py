"""Where answers to files come from: a picture of each, with the map drawn over it. No torch here: the maps are those of
a run (`explaining_run`), or of a bundle that carries them (`explaining_bundle`)."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from toolkit.api.answers import NONE, named_classes, number, percent
from toolkit.api.errors import EXIT_DATA, EXIT_DONE, DataError, UsageError, counted, printable, unknown_name
from toolkit.api.files import replaced
from toolkit.data.geometry import crop_start
from toolkit.runs.report import overlaid, side_by_side
from toolkit.serving.predict.captions import Layout, Line
from toolkit.serving.predict.inputs import Source, find_sources, settled
from toolkit.serving.predict.saving import Names, check_save
from toolkit.system.notices import note, show

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.console import Console

    from toolkit.api.contracts import Fit, TargetForm

DECIDING = 0.8
"""A frame counts as deciding from this share of the most important one's weight on."""
ENLARGED = 256
"""Pixels of the short side up to which a small picture is enlarged: a map on 32 pixels has no room for a caption."""


@dataclass(frozen=True)
class Meaning:
    """What a model sees and says, whether it is a run or a bundle."""

    classes: Sequence[str]
    form: TargetForm
    thresholds: Sequence[float] | None
    sample: bool
    clips: bool
    fit: Fit
    share: float
    """Of the side of a stored square, the central part that the model sees."""

    def number_of(self, name: str | None) -> int | None:
        """The class that maps are about, if one is named; of numbers the first. Raises UsageError."""
        if name is None:
            return 0 if self.form == "number" else None
        if name not in self.classes:
            raise UsageError(
                unknown_name(f"--class {name}: the model has no such class", name, self.classes),
                next_step=f"choose from {', '.join(self.classes)}",
            )
        return list(self.classes).index(name)

    def answer(self, row: Sequence[float]) -> str:
        """The answer of C probabilities, or numbers, in words."""
        if self.form == "number":
            return ", ".join(f"{name} {number(value)}" for name, value in zip(self.classes, row, strict=True))
        limits = [0.5] * len(row) if self.form == "set" and self.thresholds is None else self.thresholds
        return ", ".join(f"{self.classes[at]} {percent(row[at])}" for at in named_classes(row, limits)) or NONE


@dataclass(frozen=True)
class Explained:
    """One file, what the model sees of it, and where its answer comes from."""

    picture: NDArray[np.uint8]
    """The whole picture, `[H, W, 3]`, or the squares of the frames of a clip, `[T, S, S, 3]`."""
    map: NDArray[np.float32]
    """Of what the model sees, 0..1: `[h, w]` of a picture, `[T, s, s]` of a clip whose s central pixels it sees."""
    about: int
    """The class, or the number, of the map."""
    row: Sequence[float]
    """The answer: C probabilities or numbers."""
    method: str
    moments: Sequence[float] = ()
    """When each frame of a clip is shown, in seconds."""


Explainer = Callable[[Source, "int | None"], Explained]
"""Explains the class of this number, or the likeliest one. Raises DataError for a file that cannot be read."""


def explain_files(
    words: Sequence[str],
    opened: Callable[[], tuple[Meaning, Explainer]],
    place: Path,
    *,
    named: str | None,
    save: Path,
    console: Console,
) -> int:
    """Write a picture for each image and video that `words` name into the folder `save`; the exit code.

    opened: opens the model at `place`, once the words are known to have a meaning
    named: the class, or the number, that maps are about; None for the likeliest class, or the first number.

    Raises UsageError for words that have no meaning, live sources, a folder that is not empty and an unknown class;
    DataError if no file can be read; the errors of `opened`.
    """
    sources = _sources(place, words)
    check_save(save, sources, stream=False)
    meaning, explain = opened()
    chosen = meaning.number_of(named)
    names, failed, done = Names(sources), 0, 0
    for source in sources:
        try:
            (usable,) = settled([source], moving=meaning.clips)
            if usable.kind == "unusable":
                raise DataError(f"{printable(usable.name)}: {usable.problem}")
            explained = explain(usable, chosen)
        except DataError as error:
            failed += 1
            note(error.message)
            continue
        with replaced(save / names.take(source, ".png")) as path:
            drawn(explained, meaning).save(path, "PNG")
        done += 1
        show(f"{printable(source.title)}  {in_words(explained, meaning)}", console=console)
    if not done:
        raise DataError(
            f"none of the {counted(len(sources), 'input')} could be explained", next_step="see the lines above"
        )
    show(f"{save}: {counted(done, 'picture')}", file=sys.stderr)
    return EXIT_DATA if failed else EXIT_DONE


def _sources(place: Path, words: Sequence[str]) -> list[Source]:
    found = find_sources(words, sys.stdin.buffer if "-" in words else (), command="explain")
    for text in found.notes:
        note(text)
    live = next((source for source in found.sources if source.endless), None)
    if live is not None:
        raise UsageError(
            f"explain: takes images and videos from files, not {printable(live.name)}",
            next_step=f"python -m toolkit predict {shlex.quote(str(place))} {shlex.quote(live.place)}",
        )
    return list(found.sources)


def in_words(explained: Explained, meaning: Meaning) -> str:
    """The answer, and what the map is about."""
    timed = f"  {_deciding(explained)}" if meaning.clips else ""
    return f"{meaning.answer(explained.row)}  {explained.method} of {meaning.classes[explained.about]}{timed}"


def drawn(explained: Explained, meaning: Meaning) -> Image.Image:
    """The picture in grey with the map over it, above the answer."""
    if meaning.clips:
        pixels = side_by_side(explained.picture, explained.map)
    else:
        height, width = explained.picture.shape[:2]
        pixels = overlaid(explained.picture, over_whole(explained.map, height, width, meaning.fit, meaning.share))
    picture = _enlarged(Image.fromarray(pixels))
    about = Line(f"{explained.method}: {meaning.classes[explained.about]}")
    caption = [Line(meaning.answer(explained.row)), about, *([Line("SAMPLE model")] if meaning.sample else [])]
    return Layout.of(picture.size, [caption], below=True).draw(picture, caption)


def over_whole(map_: NDArray[np.float32], height: int, width: int, fit: Fit, share: float) -> NDArray[np.float32]:
    """A map `[h, w]` of what the model sees, on the whole picture, `[height, width]`: NaN where it does not look.

    share: of a side of the square, what the centre crop keeps, 0..1
    """
    sides = [min(height, width)] * 2 if fit == "crop" else [height, width]
    tall, wide = (max(round(side * share), 1) for side in sides)
    heat = np.full((height, width), np.nan, np.float32)
    top, left = crop_start(height, tall), crop_start(width, wide)
    heat[top : top + tall, left : left + wide] = resized(map_, (tall, wide))
    return heat


def resized(map_: NDArray[np.float32], sides: tuple[int, int]) -> NDArray[np.float32]:
    """A map `[h, w]` of 0..1 on so many pixels, bilinearly."""
    height, width = sides
    image = Image.fromarray(np.ascontiguousarray(map_, np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image).clip(0, 1)


def _deciding(explained: Explained) -> str:
    """When the frames are shown that count most."""
    counts = explained.map.mean(axis=(1, 2))
    pairs = zip(explained.moments, counts.tolist(), strict=True)
    shown = sorted({round(at, 2) for at, count in pairs if count > 0 and count >= DECIDING * counts.max()})
    return f"deciding frames at {', '.join(f'{at:g} s' for at in shown)}" if shown else "no frame speaks for it"


def _enlarged(picture: Image.Image) -> Image.Image:
    factor = ENLARGED // min(picture.size)
    return (
        picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
        if factor > 1
        else picture
    )
