"""Where answers come from, drawn over the pictures that they answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.api.files import write_atomically
from toolkit.runs.report.pictures import chosen_frames, encoded, numbered_pictures

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

MAPS = "maps"
"""The folder, below that of the figures, of maps of single items."""
GREY, HEAT = 0.75, 0.8
"""How bright the picture below a map is, and how much of it the warmest place covers."""
BAR = 16
"""The bars below the frames of a clip are one of so many parts of a frame high."""
_LUMA = (0.299, 0.587, 0.114)
_ACCENT, _TRACK = (242, 120, 20), (70, 70, 70)


def draw_maps(directory: Path, pictures: Tensor, maps: Tensor, places: Sequence[int]) -> None:
    """Write `directory/maps/000012.webp` for the item in row 12, from 0, of predictions.csv, and so on. Removes the
    maps of an earlier call.

    `pictures` is uint8 `[K, 3, S, S]` or clips `[K, T, 3, S, S]`; `maps` is float32 `[K, s, s]` or `[K, T, s, s]` in
    0..1, of the central square of each picture; both have an item for each of the K `places`.
    """
    for earlier in map_pictures(directory).values():
        earlier.unlink()
    for place, picture, one in zip(places, pictures, maps, strict=True):
        write_atomically(directory / MAPS / f"{place:06}.webp", encoded(drawn_map(picture, one)))


def map_pictures(directory: Path) -> dict[int, Path]:
    """What `draw_maps` has written, by the row of predictions.csv."""
    return numbered_pictures(directory / MAPS)


def drawn_map(picture: Tensor, map_: Tensor) -> NDArray[np.uint8]:
    """uint8 `[H, W, 3]`: a map over its picture in grey, or what `side_by_side` makes of a clip. Shapes are those of
    one item of `draw_maps`."""
    pixels, heat = picture.movedim(-3, -1).cpu().numpy(), map_.cpu().numpy()
    if picture.ndim == 4:
        return side_by_side(pixels, heat)
    return overlaid(pixels, _centred(heat, pixels.shape[1]))


def side_by_side(frames: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """uint8 `[H, W, 3]`: frames `[T, S, S, 3]` of a clip in grey below their maps, `[T, s, s]` in 0..1 of the central
    square, each above a bar that is as long as the frame counts."""
    import numpy as np

    counts = heat.mean(axis=(-2, -1))
    counts = counts / max(float(counts.max()), np.finfo(np.float32).tiny)
    columns = []
    for number in chosen_frames(len(frames)):
        over = overlaid(frames[number], _centred(heat[number], frames.shape[1]))
        columns.append(np.concatenate([over, _bar(over.shape[1], float(counts[number]))]))
    return np.concatenate(columns, axis=1)


def overlaid(picture: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A picture `[H, W, 3]` in grey with `heat`, `[H, W]` in 0..1, in colours over it. NaN is what the model does not
    see: it stays dark."""
    import matplotlib
    import numpy as np

    grey = (picture @ np.array(_LUMA, np.float32))[..., None] * GREY
    unseen = np.isnan(heat)
    known = np.where(unseen, 0, heat)
    colours = matplotlib.colormaps["inferno"](0.25 + 0.75 * known)[..., :3] * 255
    cover = HEAT * known[..., None]
    mixed = np.where(unseen[..., None], grey / 3, grey * (1 - cover) + colours * cover)
    result: NDArray[np.uint8] = np.rint(mixed).astype(np.uint8)
    return result


def _centred(heat: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """`[s, s]` in the middle of `[side, side]`, NaN around it."""
    import numpy as np

    from toolkit.data.geometry import crop_start

    whole = np.full((side, side), np.nan, np.float32)
    start, seen = crop_start(side, len(heat)), len(heat)
    whole[start : start + seen, start : start + seen] = heat
    return whole


def _bar(width: int, share: float) -> NDArray[np.uint8]:
    import numpy as np

    height = max(width // BAR, 3)
    bar = np.empty((height, width, 3), np.uint8)
    bar[:] = _TRACK
    bar[1:-1, 1 : 1 + round(share * (width - 2))] = _ACCENT
    return bar
