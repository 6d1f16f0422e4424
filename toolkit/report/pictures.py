"""Sheets of pictures that need pixels or the model: drawn once, at the end of a run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from toolkit.report.figures import SHEET, WHOLE, Theme, figure, save, shorten

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec
    from torch import Tensor, nn

    Pixels: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]

ACROSS = 8
"""Pictures, or frames of clips, side by side on a sheet."""
LAYERS, CHANNELS = 4, 12
"""Rows and columns of the sheet of feature maps."""
CAPTION = 0.40
"""Inches a caption of two lines takes."""
GAP = 0.06
"""Inches between pictures."""


class Predicted(Protocol):
    """One prediction, as a sheet of errors needs it."""

    @property
    def id(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def prediction(self) -> str: ...
    @property
    def confidence(self) -> float: ...


def draw_augmented(directory: Path, before: Tensor, after: Tensor, labels: Sequence[str]) -> Path | None:
    """Write `directory/augmented.png`: each training sample above what augmentation made of it.

    `before` and `after` are uint8 `[K, 3, H, W]` or clips `[K, T, 3, H, W]`; their sizes may differ. `labels` holds K
    texts, the targets after augmentation ("cat", or "60 % cat, 40 % dog": a comma ends the first line). Returns None
    when K is 0.
    """
    pairs = [(_strip(one), _strip(other)) for one, other in zip(before, after, strict=True)]

    def draw(theme: Theme) -> Figure:
        drawn, cells = _sheet(pairs[0][1], len(pairs), stacked=2)
        for (upper, lower), (one, other), label in zip(cells, pairs, labels, strict=True):
            _show(upper, one)
            _show(lower, other)
            for line, part in enumerate(label.split(", ", 1)):
                _write_below(lower, line, part, theme.ink)
        return drawn

    return save(directory, "augmented", draw, SHEET) if pairs else None


def draw_worst_errors(directory: Path, pictures: Tensor, rows: Sequence[Predicted]) -> Path | None:
    """Write `directory/worst_errors.png`: wrong predictions in the order given, most confident first.

    `pictures` is uint8 `[K, 3, H, W]` or clips `[K, T, 3, H, W]`, one for each of the K `rows`. Returns None when K
    is 0.
    """
    strips = [_strip(picture) for picture in pictures]

    def draw(theme: Theme) -> Figure:
        drawn, cells = _sheet(strips[0], len(strips), stacked=1)
        for (axes,), strip, row in zip(cells, strips, rows, strict=True):
            _show(axes, strip)
            said, target = f"{100 * row.confidence:.0f} % {row.prediction}", f"is {row.target}"
            _write_below(axes, 0, said, theme.bad)
            _write_below(axes, 1, target, theme.good)
        return drawn

    return save(directory, "worst_errors", draw, SHEET) if strips else None


def _strip(picture: Tensor) -> Pixels:
    """uint8 `[H, W, 3]` of an image, or of up to `ACROSS` evenly spaced frames of a clip side by side."""
    import torch

    frames = picture.cpu() if picture.ndim == 4 else picture.cpu()[None]
    chosen = torch.linspace(0, len(frames) - 1, min(len(frames), ACROSS)).round().long()
    strip: Pixels = torch.cat(list(frames[chosen]), dim=-1).permute(1, 2, 0).numpy()
    return strip


def _sheet(picture: Pixels, count: int, *, stacked: int) -> tuple[Figure, list[list[Axes]]]:
    """A figure with room for `count` cells, each of `stacked` pictures shaped as `picture` above a caption."""
    height, width = picture.shape[:2]
    columns = min(count, max(1, round(ACROSS * height / width)))
    cell = (WHOLE - GAP) / max(columns, 4) - GAP
    line = stacked * (cell * height / width + GAP) + CAPTION
    size = (GAP + columns * (cell + GAP), GAP + math.ceil(count / columns) * line)
    drawn = figure(*size)
    drawn.set_layout_engine("none")
    return drawn, [_cell(drawn, divmod(place, columns), (cell, cell * height / width), line, stacked)
                   for place in range(count)]  # fmt: skip


def _cell(drawn: Figure, place: tuple[int, int], size: tuple[float, float], line: float, stacked: int) -> list[Axes]:
    (row, column), (width, height), (across, down) = place, size, drawn.get_size_inches()
    left = GAP + column * (width + GAP)
    tops = [GAP + row * line + level * (height + GAP) for level in range(stacked)]
    bounds = [(left / across, 1 - (top + height) / down, width / across, height / down) for top in tops]
    return [drawn.add_axes(bound) for bound in bounds]


def _show(axes: Axes, picture: Pixels) -> None:
    axes.imshow(picture, interpolation="antialiased")
    axes.set_axis_off()


def _write_below(axes: Axes, line: int, text: str, colour: str) -> None:
    """Write one line of a caption under a picture, cut to what its width has room for."""
    inches = axes.bbox.width / axes.figure.dpi
    axes.annotate(
        shorten(text, max(12, int(inches * 17))), (0, 0), xycoords="axes fraction", xytext=(0, -3 - 10 * line),
        textcoords="offset points", va="top", fontsize=7.5, color=colour, annotation_clip=False,
    )  # fmt: skip


def draw_feature_maps(directory: Path, model: nn.Module, picture: Tensor, normalised: Tensor) -> Path | None:
    """Write `directory/feature_maps.png`: what early, middle and late convolutions of `model` answer to a picture.

    `picture` is uint8 `[3, H, W]`; `normalised` is what the model takes, float `[1, 3, h, w]` on its device. Of each
    layer the channels that vary most across the picture are shown. Returns None when `model` has no `Conv2d` whose
    output has an extent. The model is run in eval mode and left as it was.
    """
    layers = _spread(_answers(model, normalised))

    def draw(theme: Theme) -> Figure:
        drawn = figure(WHOLE, max(2.0, 1.02 * len(layers)))
        grid = drawn.add_gridspec(len(layers), CHANNELS + 3)
        _show(drawn.add_subplot(grid[:, :3]), _strip(picture))
        for row, (name, channels) in enumerate(layers):
            _draw_channels(drawn, grid, row, channels)
            _, height, width = channels.shape
            drawn.axes[-len(channels)].set_title(
                f"{name}  ·  {height} x {width}", loc="left", fontsize=8, color=theme.muted
            )
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

    answers: list[tuple[str, Tensor]] = []
    with _listening(model, answers), _evaluating(model), torch.no_grad():
        model(normalised)
    return answers


@contextmanager
def _listening(model: nn.Module, answers: list[tuple[str, Tensor]]) -> Iterator[None]:
    from torch import nn

    def listen(name: str, module: nn.Module) -> Any:
        return module.register_forward_hook(lambda _module, _inputs, output: _keep(answers, name, output))

    hooks = [listen(name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _keep(answers: list[tuple[str, Tensor]], name: str, output: Tensor) -> None:
    if min(output.shape[-2:]) < 2:
        return  # squeeze-and-excitation and other convolutions of pooled features have nothing to show
    channels = output[0].detach().float().cpu()
    varied = channels.var(dim=(-2, -1)).topk(min(CHANNELS, len(channels))).indices
    answers.append((name, channels[varied]))


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():  # not model.train(): frozen parts stay in eval mode
            module.training = training


def _draw_channels(drawn: Figure, grid: GridSpec, row: int, channels: Tensor) -> None:
    for column, channel in enumerate(channels):
        axes = drawn.add_subplot(grid[row, 3 + column])
        low, high = channel.quantile(0.01).item(), channel.quantile(0.99).item()
        axes.imshow(channel.numpy(), cmap="magma", vmin=low, vmax=max(high, low + 1e-12), interpolation="nearest")
        axes.set_axis_off()
