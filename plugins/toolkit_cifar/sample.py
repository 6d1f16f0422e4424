"""The built-in sample: ten kinds of coloured objects at 32 pixels, drawn by code from a seed.

Colour, texture, place, size, angle, background and noise are drawn alike for every kind, so only the shape shows
which it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from toolkit.data.images import ArrayItems

Floats: TypeAlias = NDArray[np.floating[Any]]

SIZE = 32


def draw_objects(split: str, per_class: int) -> ArrayItems:
    """`per_class` objects of each kind: pixels are uint8 `[10 * per_class, 3, 32, 32]`; each split has other ones."""
    drawn = [
        _draw(name, np.random.default_rng((number, *split.encode())), per_class) for number, name in enumerate(KINDS)
    ]
    names = [f"{split}/{name}/{number:04d}" for name in KINDS for number in range(per_class)]
    return ArrayItems(
        ids=tuple(names),
        targets=tuple(target for target in range(len(KINDS)) for _ in range(per_class)),
        keys=tuple(f"coloured-object-1-{per_class}-{name.replace('/', '-')}" for name in names),
        pixels=torch.from_numpy(np.concatenate(drawn)),
    )


def _draw(name: str, rng: np.random.Generator, count: int) -> NDArray[np.uint8]:
    """uint8 `[count, 3, 32, 32]`."""
    cover = _covers(name, rng, count)[:, None]
    x, y = _grid()
    behind, front = _apart(rng, count)
    scene = behind * _texture(rng, x, y, count)
    scene += cover * (front * _texture(rng, x, y, count) - scene)
    scene += rng.standard_normal(scene.shape, np.float32) * rng.uniform(3, 14, (count, 1, 1, 1))
    return np.clip(np.rint(scene), 0, 255).astype(np.uint8)


def _covers(name: str, rng: np.random.Generator, count: int) -> Floats:
    """How much of each pixel the object covers: `[count, 32, 32]`, 0..1; the first that is drawn of an object."""
    x, y = _grid()
    radius = rng.uniform(7, 13, (count, 1, 1))
    right, down = (x - rng.uniform(-5, 5, (count, 1, 1))) / radius, (y - rng.uniform(-5, 5, (count, 1, 1))) / radius
    angle = rng.uniform(-0.6, 0.6, (count, 1, 1))
    across, along = right * np.cos(angle) + down * np.sin(angle), down * np.cos(angle) - right * np.sin(angle)
    covers: Floats = np.clip(_SHAPES[name](across, along) * radius + 0.5, 0, 1)
    return covers


def _grid() -> tuple[Floats, Floats]:
    side = np.arange(SIZE, dtype=np.float32) - (SIZE - 1) / 2
    return side[None, None, :], side[None, :, None]


def _apart(rng: np.random.Generator, count: int, draws: int = 4) -> tuple[Floats, Floats]:
    """Colours `[count, 3, 1, 1]` of background and object: the object's is the one of a few that stands out most."""
    behind = rng.uniform(20, 235, (count, 1, 3)).astype(np.float32)
    drawn = rng.uniform(15, 245, (count, draws, 3)).astype(np.float32)
    best = np.abs(drawn - behind).sum(axis=-1).argmax(axis=1)
    return behind[:, 0, :, None, None], drawn[np.arange(count), best][:, :, None, None]


def _texture(rng: np.random.Generator, x: Floats, y: Floats, count: int) -> Floats:
    """Light from one side, and waves or chequers: factors around 1, `[count, 1, 32, 32]`."""

    def draw(low: float, high: float) -> Floats:
        return rng.uniform(low, high, (count, 1, 1)).astype(np.float32)

    light = draw(-0.012, 0.012) * x + draw(-0.012, 0.012) * y
    first = np.sin(draw(-1.3, 1.3) * x + draw(-1.3, 1.3) * y + draw(0, 6))
    second = np.sin(draw(-1.3, 1.3) * x + draw(-1.3, 1.3) * y + draw(0, 6))
    chequered = np.where(draw(0, 1) < 0.5, first, first * second)
    textured: Floats = (1 + light + draw(0, 0.22) * chequered)[:, None]
    return textured


def _ball(x: Floats, y: Floats) -> Floats:
    return 0.9 - np.hypot(x, y)


def _ring(x: Floats, y: Floats) -> Floats:
    return 0.22 - np.abs(np.hypot(x, y) - 0.72)


def _box(x: Floats, y: Floats) -> Floats:
    return 0.75 - np.maximum(np.abs(x), np.abs(y))


def _triangle(x: Floats, y: Floats) -> Floats:
    return 0.45 - np.maximum(y, np.abs(x) * np.float32(0.866) - y / 2)


def _star(x: Floats, y: Floats) -> Floats:
    turn = np.mod(np.arctan2(x, -y) * 5 / (2 * np.pi) + 0.5, 1) - 0.5
    return (0.95 - 1.15 * np.abs(turn) - np.hypot(x, y)) * 0.7


def _cross(x: Floats, y: Floats) -> Floats:
    wide, high = np.abs(x), np.abs(y)
    return _both(_either(0.24 - wide, 0.24 - high), _both(0.9 - wide, 0.9 - high))


def _crescent(x: Floats, y: Floats) -> Floats:
    return _both(0.95 - np.hypot(x, y), np.hypot(x - 0.5, y) - 0.72)


def _heart(x: Floats, y: Floats) -> Floats:
    lobes = 0.5 - np.hypot(np.abs(x) - 0.38, y + 0.3)
    point = (0.82 - np.abs(x) - np.abs(y - 0.03)) * np.float32(0.707)
    return _either(lobes, _both(point, y + 0.35))


def _arrow(x: Floats, y: Floats) -> Floats:
    shaft = _both(0.18 - np.abs(y), 0.5 - np.abs(x + 0.4))
    head = _both(x - 0.05, (0.95 - x) * 0.8 - np.abs(y))
    return _either(shaft, head)


def _bow_tie(x: Floats, y: Floats) -> Floats:
    return _both(0.9 - np.abs(x), 0.08 + 0.65 * np.abs(x) - np.abs(y))


def _both(first: Floats, second: Floats) -> Floats:
    shared: Floats = np.minimum(first, second)
    return shared


def _either(first: Floats, second: Floats) -> Floats:
    joined: Floats = np.maximum(first, second)
    return joined


_SHAPES: Mapping[str, Callable[[Floats, Floats], Floats]] = {
    "arrow": _arrow,
    "ball": _ball,
    "bow tie": _bow_tie,
    "box": _box,
    "crescent": _crescent,
    "cross": _cross,
    "heart": _heart,
    "ring": _ring,
    "star": _star,
    "triangle": _triangle,
}
"""How deep inside its shape a point (right, down) is, in object radii; below 0 outside."""

KINDS = tuple(_SHAPES)
"""Class names of the sample."""
