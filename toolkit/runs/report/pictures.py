"""Sheets of pictures that need pixels or the model: drawn once, at the end of a run."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from toolkit.api.files import write_atomically
from toolkit.runs.report.figures import SHEET, WHOLE, Theme, figure, save, shorten
from toolkit.runs.rows import Row

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor, nn

    Rgb: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]

T = TypeVar("T")
ACROSS = 8
"""Pictures, or frames of clips, side by side on a sheet."""
ITEMS = "items"
"""The folder, below that of the figures, of pictures of single items."""
SMALL = 64
"""Pixels of the longer side up to which a picture is kept exactly."""
LAYERS, CHANNELS = 4, 12
"""Rows and columns of the sheet of feature maps."""
CAPTION, TITLE = 0.40, 0.20
"""Inches that a caption of two lines takes, and the name of a layer."""
GAP = 0.06
"""Inches between pictures."""


class Box(NamedTuple):
    """The place of a picture on its sheet, in inches from the top left corner."""

    left: float
    top: float
    width: float
    height: float


def draw_augmented(directory: Path, before: Tensor, after: Tensor, labels: Sequence[str]) -> Path | None:
    """Write `directory/augmented.png`: each training sample above what augmentation made of it.

    `before` and `after` are uint8 `[K, 3, H, W]` or clips `[K, T, 3, H, W]`; their sizes may differ. `labels` holds K
    texts, the targets after augmentation ("cat", or "60 % cat, 40 % dog": a comma ends the first line). Returns None
    when K is 0.
    """
    pairs = [(_strip(one), _strip(other)) for one, other in zip(before, after, strict=True)]

    def draw(theme: Theme) -> Figure:
        drawn, axes, cells = _sheet(pairs[0][1], len(pairs), stacked=2)
        for (upper, lower), (one, other), label in zip(cells, pairs, labels, strict=True):
            _show(axes, upper, one)
            _show(axes, lower, other)
            for line, part in enumerate(label.split(", ", 1)):
                _write_below(axes, lower, line, part, theme.ink)
        return drawn

    return save(directory, "augmented", draw, SHEET) if pairs else None


def draw_worst_errors(directory: Path, pictures: Tensor, rows: Sequence[Row]) -> Path | None:
    """Write `directory/worst_errors.png`: wrong predictions in the order given, worst first.

    `pictures` is uint8 `[K, 3, H, W]` or clips `[K, T, 3, H, W]`, one for each of the K `rows`. Returns None when K
    is 0.
    """
    strips = [_strip(picture) for picture in pictures]

    def draw(theme: Theme) -> Figure:
        drawn, axes, cells = _sheet(strips[0], len(strips), stacked=1)
        for (box,), strip, row in zip(cells, strips, rows, strict=True):
            _show(axes, box, strip)
            said, target = row.captions
            _write_below(axes, box, 0, said, theme.bad)
            _write_below(axes, box, 1, target, theme.good)
        return drawn

    return save(directory, "worst_errors", draw, SHEET) if strips else None


def draw_items(directory: Path, pictures: Tensor, places: Sequence[int]) -> None:
    """Write `directory/items/000012.webp` for the item in row 12, from 0, of predictions.csv, and so on. Removes the
    pictures of an earlier call.

    `pictures` is uint8 `[K, 3, H, W]` or clips `[K, T, 3, H, W]`, one for each of the K `places`.
    """
    for earlier in item_pictures(directory).values():
        earlier.unlink()
    for place, picture in zip(places, pictures, strict=True):
        write_atomically(directory / ITEMS / f"{place:06}.webp", encoded(_strip(picture)))


def item_pictures(directory: Path) -> dict[int, Path]:
    """What `draw_items` has written, by the row of predictions.csv."""
    return numbered_pictures(directory / ITEMS)


def numbered_pictures(folder: Path) -> dict[int, Path]:
    """The pictures in a folder whose names are numbers, by these."""
    return {int(path.stem): path for path in sorted(folder.glob("*.webp")) if path.stem.isdecimal()}


def encoded(picture: Rgb) -> bytes:
    """The WebP file of a picture, uint8 `[H, W, 3]`; exact if the picture is small."""
    from PIL import Image

    file = io.BytesIO()
    small = max(picture.shape[:2]) <= SMALL
    Image.fromarray(picture).save(file, "WEBP", lossless=small, quality=90, method=4)
    return file.getvalue()


def _strip(picture: Tensor) -> Rgb:
    """uint8 `[H, W, 3]` of an image, or of up to `ACROSS` evenly spaced frames of a clip side by side."""
    import torch

    frames = picture.cpu() if picture.ndim == 4 else picture.cpu()[None]
    strip: Rgb = torch.cat(list(frames[chosen_frames(len(frames))]), dim=-1).permute(1, 2, 0).numpy()
    return strip


def evenly_spaced(items: Sequence[T], count: int) -> list[T]:
    """At most `count` of the items."""
    shown = min(count, len(items))
    return [items[(2 * place + 1) * len(items) // (2 * shown)] for place in range(shown)]


def chosen_frames(count: int) -> list[int]:
    """Numbers of up to `ACROSS` evenly spaced frames of a clip."""
    chosen = min(count, ACROSS)
    return [round(number * (count - 1) / max(chosen - 1, 1)) for number in range(chosen)]


def _sheet(picture: Rgb, count: int, *, stacked: int) -> tuple[Figure, Axes, list[list[Box]]]:
    """Room for `count` cells, each of `stacked` pictures shaped as `picture` above a caption."""
    height, width = picture.shape[:2]
    columns = min(count, max(1, round(ACROSS * height / width)))
    side = (WHOLE - GAP) / max(columns, 4) - GAP
    tall = side * height / width
    line = stacked * (tall + GAP) + CAPTION

    def cell(place: int) -> list[Box]:
        row, column = divmod(place, columns)
        left, top = GAP + column * (side + GAP), GAP + row * line
        return [Box(left, top + level * (tall + GAP), side, tall) for level in range(stacked)]

    drawn, axes = _canvas(GAP + columns * (side + GAP), GAP + math.ceil(count / columns) * line)
    return drawn, axes, [cell(place) for place in range(count)]


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure that is one system of coordinates, inches from the top left corner: axes of its own for each picture
    would take nine tenths of the time."""
    drawn = figure(width, height)
    drawn.set_layout_engine("none")
    axes = drawn.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return drawn, axes


def _show(axes: Axes, box: Box, picture: Any, **how: Any) -> None:
    extent = (box.left, box.left + box.width, box.top + box.height, box.top)
    axes.imshow(picture, extent=extent, aspect="auto", **{"interpolation": "antialiased", **how})


def _write_below(axes: Axes, box: Box, line: int, text: str, colour: str) -> None:
    """Write one line of a caption under a picture, cut to what its width has room for."""
    axes.annotate(
        shorten(text, max(12, int(box.width * 17))), (box.left, box.top + box.height), xytext=(0, -3 - 10 * line),
        textcoords="offset points", va="top", fontsize=7.5, color=colour, annotation_clip=False,
    )  # fmt: skip


def draw_feature_maps(directory: Path, model: nn.Module, picture: Tensor, normalised: Tensor) -> Path | None:
    """Write `directory/feature_maps.png`: what early, middle and late convolutions of `model` answer to a picture.

    `picture` is uint8 `[3, H, W]`; `normalised` is what the model takes, float `[1, 3, h, w]` on its device. Of each
    layer the channels that vary most across the picture are shown. Returns None when `model` has no `Conv2d` whose
    output has an extent. The model is run in eval mode and left as it was.
    """
    layers = _spread(_answers(model, normalised))

    side = (WHOLE - GAP) / (CHANNELS + 2) - GAP
    shown = 2 * side + GAP
    line = TITLE + side + GAP

    def draw(theme: Theme) -> Figure:
        drawn, axes = _canvas(WHOLE, GAP + max(TITLE + shown + GAP, line * len(layers)))
        _show(axes, Box(GAP, GAP + TITLE, shown, shown), _strip(picture))
        for row, (name, channels) in enumerate(layers):
            first = Box(3 * GAP + shown, GAP + row * line + TITLE, side - GAP / CHANNELS, side)
            title = f"{name}  ·  {channels.shape[1]} x {channels.shape[2]}"
            axes.annotate(
                title, (first.left, first.top), xytext=(0, 3), textcoords="offset points", fontsize=8, color=theme.muted
            )
            for place, channel in enumerate(channels):
                box = first._replace(left=first.left + place * (first.width + GAP))
                low, high = channel.quantile(0.01).item(), channel.quantile(0.99).item()
                colours = {"cmap": "magma", "vmin": low, "vmax": max(high, low + 1e-12), "interpolation": "nearest"}
                _show(axes, box, channel.numpy(), **colours)
        return drawn

    return save(directory, "feature_maps", draw, SHEET) if layers else None


def _spread(answers: Sequence[tuple[str, Tensor]]) -> list[tuple[str, Tensor]]:
    """The first, the last and evenly spaced ones between, `LAYERS` at most."""
    steps = LAYERS - 1
    places = {round((len(answers) - 1) * step / steps) for step in range(LAYERS)} if answers else set()
    return [answers[place] for place in sorted(places)]


def _answers(model: nn.Module, normalised: Tensor) -> list[tuple[str, Tensor]]:
    """Name and most varied channels `[<= CHANNELS, h, w]` of each `Conv2d`, in the order they ran."""
    import torch
    from torch import nn

    from toolkit.training.modes import evaluating

    answers: list[tuple[str, Tensor]] = []

    def keep(name: str, output: Tensor) -> None:
        if min(output.shape[-2:]) < 2:
            return  # squeeze-and-excitation and other convolutions of pooled features have nothing to show
        channels = output[0].detach().float().cpu()
        varied = channels.var(dim=(-2, -1)).topk(min(CHANNELS, len(channels))).indices
        answers.append((name, channels[varied]))

    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output, name=name: keep(name, output))
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    try:
        with torch.no_grad(), evaluating(model):
            model(normalised)
    finally:
        for hook in hooks:
            hook.remove()
    return answers
