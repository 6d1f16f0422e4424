"""Answers drawn on pictures. Every pixel of a picture keeps its size: where the text does not fit on it, a strip below
holds the text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from PIL import Image, ImageDraw, ImageFont

from toolkit.api.answers import NONE, UNKNOWN, named_classes, number, percent
from toolkit.api.errors import printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from toolkit.serving.bundle import Manifest

SMALLEST, LARGEST = 12, 40
"""Pixels of the font, which grows with the picture between the two."""
LINES_A_SIDE = 18
"""Lines of text that would fill the short side of a picture of middling size."""
WIDE, HIGH = 0.95, 0.5
"""The part of a picture that text may cover."""
LETTERS = 40
"""Of a class's name at most."""
_GROUND, _BAR, _TEXT = (12, 17, 25, 165), (46, 134, 214, 190), (255, 255, 255, 255)

Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont


class Line(NamedTuple):
    """A line of a caption."""

    text: str
    share: float = 0.0
    """0..1: how far the bar behind the text reaches."""


def caption(manifest: Manifest, probabilities: NDArray[np.float32], top: int) -> list[Line]:
    """The lines for an answer, one row of `Bundle.rows`: the `top` likeliest classes, every class of a set, or every
    number. One that is declined says so first."""
    probabilities, score = manifest.parted(probabilities)
    row = probabilities.tolist()
    sample = [Line("SAMPLE model")] if manifest.sample else []
    if manifest.form == "number":
        pairs = zip(manifest.classes, row, strict=True)
        return [*(Line(f"{_short(name)}  {number(value)}") for name, value in pairs), *sample]
    if manifest.thresholds is None:
        numbers = (-probabilities).argsort(kind="stable")[:top].tolist()
    else:
        numbers = sorted(named_classes(row, manifest.thresholds), key=lambda place: -row[place])
    lines = [Line(f"{_short(manifest.classes[place])}  {percent(row[place])}", row[place]) for place in numbers]
    declined = [Line(UNKNOWN)] if manifest.trust.declines(row, score) else []
    return [*declined, *(lines or [Line(NONE)]), *sample]


def _short(name: str) -> str:
    shown = printable(name)
    return shown if len(shown) <= LETTERS else f"{shown[: LETTERS - 1]}…"


@dataclass(frozen=True)
class Layout:
    """The place of the captions on one picture, or on all frames of a video."""

    size: tuple[int, int]
    """Of the result, in pixels."""
    panel: tuple[int, int, int, int]
    """Left, top, right and bottom of the text's ground."""
    picture: tuple[int, int]
    """Left and top of the picture."""
    font: Font
    pitch: int
    """Pixels from one line to the next."""

    @classmethod
    def of(
        cls, size: tuple[int, int], captions: Iterable[Sequence[Line]], *, even: bool = False, below: bool = False
    ) -> Layout:
        """The layout of pictures of this size for any of `captions`; `even` sides are what video coders take. `below`
        keeps the text off the picture, whether or not it fits."""
        width, height = size
        letters = min(max(min(size) // LINES_A_SIDE, SMALLEST), LARGEST)
        font, pitch, margin = _font(letters), round(letters * 1.4), letters // 2
        all_lines = [list(lines) for lines in captions]
        widest = max(font.getlength(line.text) for lines in all_lines for line in lines)
        across, down = round(widest) + 2 * margin, pitch * max(map(len, all_lines)) + margin
        if not below and across + margin <= WIDE * width and down + margin <= HIGH * height:
            left, top, whole, panel = 0, 0, size, (margin, margin, margin + across, margin + down)
        else:
            whole = max(width, across), height + down
            left, top, panel = (whole[0] - width) // 2, 0, (0, height, whole[0], height + down)
        if even:
            whole = whole[0] + whole[0] % 2, whole[1] + whole[1] % 2
        return cls(whole, panel, (left, top), font, pitch)

    def draw(self, picture: Image.Image, lines: Sequence[Line]) -> Image.Image:
        """`picture` with a caption, as a new image in RGB."""
        result = Image.new("RGB", self.size, _GROUND[:3])
        result.paste(picture, self.picture)
        ink = ImageDraw.Draw(result, "RGBA")
        left, top, right, bottom = self.panel
        ink.rectangle((left, top, right - 1, bottom - 1), fill=_GROUND)
        margin = self.pitch // 4
        for place, line in enumerate(lines):
            above = top + margin + place * self.pitch
            reach = left + round((right - left) * line.share)
            if reach > left:
                ink.rectangle((left, above, reach - 1, above + self.pitch - 2), fill=_BAR)
            ink.text((left + margin, above + self.pitch // 2), line.text, fill=_TEXT, font=self.font, anchor="lm")
        return result


@lru_cache(maxsize=8)
def _font(size: int) -> Font:
    """matplotlib's, which knows more scripts, else Pillow's own."""
    found = find_spec("matplotlib")
    if found is not None and found.origin is not None:
        path = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.is_file():
            return ImageFont.truetype(path, size)
    return ImageFont.load_default(size)
