"""Learned positions fitted to another input: a model for larger images, or more frames, has more of them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

Axes: TypeAlias = Literal["square", "line", "frames", "distances"]
Grid: TypeAlias = tuple[int, int]
"""Frames, and places on each side of a frame."""

TOKENS = 5
"""Most rows of a table that belong to no place: a class token, and up to four registers."""
BEHIND = (0, 3)
"""Rows of tokens in a table of distances: from the class token to a place, from a place to it, from it to itself."""


@dataclass(frozen=True)
class Fitted:
    """A table with the rows that another input needs."""

    value: Tensor
    given: str
    """Its places before, as text: `14x14`."""
    wanted: str


@dataclass(frozen=True)
class Positions:
    """Tables of learned positions among a model's parameters: `[N, C]` or `[1, N, C]`, a row for each place.

    A `square` has the places of an image, row by row, behind the rows of tokens without a place. They are interpolated
    bicubically and antialiased, as timm does (`resample_abs_pos_embed`). A `line` has the places of frames, or
    distances; they are interpolated linearly, as in MViTv2 (arXiv 2112.01526). `frames` are squares, one of each frame.
    `distances` are those between two places of a window in both directions, row by row, before the rows of tokens; they
    are interpolated as a square is, which Swin does too (arXiv 2103.14030).
    """

    names: str
    """A regular expression for the last parts of a parameter's name."""
    axes: Axes = "square"
    count: int = 1
    """Of `frames`: how many the model's own table has."""
    published: int | None = None
    """Of `frames`: how many the published table has."""

    def has(self, name: str) -> bool:
        """Whether the parameter of this name is such a table."""
        return re.fullmatch(rf"(?:.+\.)?(?:{self.names})", name) is not None

    def fitted(self, value: Tensor, wanted: torch.Size) -> Fitted | None:
        """The table `value` for the places of one of shape `wanted`, in float32; None where its rows do not show their
        places."""
        if value.ndim < 2 or value.ndim != len(wanted) or not value.is_floating_point():
            return None
        if value.shape[:-2].numel() != 1 or wanted[:-2].numel() != 1 or value.shape[-1] != wanted[-1]:
            return None
        rows = value.flatten(0, -2).float()
        match self.axes:
            case "line":
                found: Fitted | None = _on_a_line(rows, wanted[-2])
            case "distances":
                found = _on_distances(rows, wanted[-2])
            case _:
                found = self._on_squares(rows, wanted[-2])
        return found and Fitted(found.value.reshape(wanted), found.given, found.wanted)

    def _on_squares(self, rows: Tensor, count: int) -> Fitted | None:
        for tokens in range(TOKENS + 1):
            wanted = _grid(count - tokens, self.count)
            given = wanted and self._given(len(rows) - tokens, wanted)
            if wanted and given:
                value = torch.cat((rows[:tokens], _resampled(rows[tokens:], given, wanted)))
                return Fitted(value, _named(given), _named(wanted))
        return None

    def _given(self, places: int, wanted: Grid) -> Grid | None:
        """The grid of a table that is given: the published one, else the only one with our frames or our side."""
        frames, side = wanted
        if self.published and (found := _grid(places, self.published)):
            return found
        possible = {_grid(places, frames)}
        if self.axes == "frames" and places % side**2 == 0:
            possible.add((places // side**2, side))
        known = [one for one in possible if one]
        return known[0] if len(known) == 1 else None


def _on_a_line(rows: Tensor, count: int) -> Fitted:
    value = functional.interpolate(rows.T[None], count, mode="linear", align_corners=False)[0].T
    return Fitted(value, str(len(rows)), str(count))


def _on_distances(rows: Tensor, count: int) -> Fitted | None:
    for tokens in BEHIND:
        distances, behind = rows[: len(rows) - tokens], rows[len(rows) - tokens :]
        given, wanted = _grid(len(distances), 1), _grid(count - tokens, 1)
        if given and wanted and given[1] % 2 and wanted[1] % 2:  # of n places in a row: 1 - n to n - 1
            value = torch.cat((_resampled(distances, given, wanted), behind))
            return Fitted(value, _named(given), _named(wanted))
    return None


def _resampled(rows: Tensor, given: Grid, wanted: Grid) -> Tensor:
    """`[N, C]` of one grid as `[M, C]` of another."""
    frames, side = given
    squares = rows.reshape(frames, side, side, -1).permute(0, 3, 1, 2)
    if side != wanted[1]:
        shape = (wanted[1], wanted[1])
        squares = functional.interpolate(squares, shape, mode="bicubic", align_corners=False, antialias=True)
    places = squares.permute(0, 2, 3, 1)  # [frames, side, side, C]
    if frames != wanted[0]:
        lines = places.flatten(1).T[None]
        places = functional.interpolate(lines, wanted[0], mode="linear", align_corners=False)[0].T
    return places.reshape(-1, rows.shape[-1])


def _grid(places: int, frames: int) -> Grid | None:
    """That of a table with so many places in so many frames; None where these are not squares."""
    if places < 1 or places % frames:
        return None
    side = math.isqrt(places // frames)
    return (frames, side) if frames * side**2 == places else None


def _named(grid: Grid) -> str:
    frames, side = grid
    return f"{side}x{side}" if frames == 1 else f"{frames}x{side}x{side}"
