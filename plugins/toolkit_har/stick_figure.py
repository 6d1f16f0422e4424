"""Short clips of an animated stick figure, drawn by code from a seed: the built-in sample of human actions.

A figure is some twenty capsules (lines with round ends), placed by the angles of its joints; an action is a track of
poses. Body, clothes, speed, camera, light, room and noise differ from clip to clip and say nothing about the action.
Clothes are darker than rooms, so that an untrained network finds the figure within a few hundred steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float32]
    Pixels: TypeAlias = NDArray[np.uint8]

REVERSED_PAIRS = (("sitting_down", "standing_up"), ("falling", "getting_up"))
"""Pairs of actions of which one is the other run backwards: a single frame cannot distinguish them."""


@dataclass(frozen=True)
class _Track:
    """Poses at even intervals. A cycle leads from the last back to the first; other tracks happen once."""

    poses: tuple[tuple[float, ...], ...]
    cycle: bool = False
    seat: bool = False


# Joints of a pose, in this order. Angles are in degrees: for limbs 0 hangs down, 90 points ahead and 180 up; for the
# trunk 0 is upright and 90 bent ahead. `hip` is the height of the hips and `ahead` their place, both in leg lengths.
_JOINTS = (
    *("hip", "ahead", "trunk"),
    *("near_arm", "near_fore", "far_arm", "far_fore"),
    *("near_thigh", "near_shin", "far_thigh", "far_shin"),
)
_STAND = (0.98, 0, 2, 8, 14, -10, -4, 5, 2, -7, -9)
_SIT = (0.5, -0.32, 6, 30, 80, 24, 74, 88, 4, 82, -4)
_HALF_SAT = (0.74, -0.22, 38, 52, 76, 44, 68, 56, -16, 50, -20)
_LIE = (0.14, -0.1, -86, -70, -50, -110, -125, 84, 88, 98, 74)
_TOPPLE = (0.62, -0.05, -42, 70, 100, -80, -60, 50, 4, 28, -34)
_CRUMPLE = (0.24, -0.14, -62, -20, 10, -95, -84, 112, 24, 88, 2)
_SIT_DOWN = (_STAND, _HALF_SAT, _SIT)
_FALL = (_STAND, _TOPPLE, _CRUMPLE, _LIE)

_TRACKS: Mapping[str, _Track] = {
    "bowing": _Track(
        (
            (0.98, -0.05, 30, 24, 26, 18, 20, 5, 2, -7, -9),
            (0.98, -0.12, 62, 40, 36, 30, 30, 5, 2, -7, -9),
            (0.98, -0.18, 88, 52, 44, 40, 36, 5, 2, -7, -9),
            (0.98, -0.12, 62, 40, 36, 30, 30, 5, 2, -7, -9),
        ),
        cycle=True,
    ),
    "clapping": _Track(
        (
            (0.98, 0, 2, 54, 92, 60, 98, 5, 2, -7, -9),
            (0.98, 0, 2, 26, 62, 84, 132, 5, 2, -7, -9),
        ),
        cycle=True,
    ),
    "falling": _Track(_FALL),
    "getting_up": _Track(_FALL[::-1]),
    "jumping": _Track(
        (
            (1, 0, 2, 150, 168, 196, 186, 20, 16, -20, -16),
            (1.38, 0, 2, 158, 172, 206, 190, 34, 28, -34, -28),
        ),
        cycle=True,
    ),
    "kicking": _Track(
        (
            (0.98, 0, -4, -30, 10, 50, 84, 30, -30, -4, -6),
            (0.98, 0, -22, -46, -6, 60, 96, 100, 96, -6, -8),
        ),
        cycle=True,
    ),
    "punching": _Track(
        (
            (0.92, 0, 12, 88, 90, 32, 128, 30, -4, -26, -34),
            (0.92, 0, 8, 34, 130, 88, 90, 28, -6, -28, -36),
        ),
        cycle=True,
    ),
    "running": _Track(
        (
            (0.97, 0, 18, -56, 34, 44, 122, 62, 4, -30, -84),
            (1.06, 0, 16, -6, 80, -4, 82, 14, -18, 26, -88),
            (0.97, 0, 18, 44, 122, -56, 34, -30, -84, 62, 4),
            (1.06, 0, 16, -4, 82, -6, 80, 26, -88, 14, -18),
        ),
        cycle=True,
    ),
    "sitting_down": _Track(_SIT_DOWN, seat=True),
    "standing_up": _Track(_SIT_DOWN[::-1], seat=True),
    "waving": _Track(
        (
            (0.98, 0, 2, 138, 148, -10, -4, 5, 2, -7, -9),
            (0.98, 0, 2, 146, 208, -10, -4, 5, 2, -7, -9),
        ),
        cycle=True,
    ),
}

ACTIONS = tuple(_TRACKS)
"""Names of the actions, in order of name."""

_MARGIN = 0.12


@dataclass(frozen=True)
class _Camera:
    """What turns places in leg lengths above the floor into pixels."""

    unit: float
    origin: Floats
    tilt: float
    mirrored: bool
    pan: NDArray[np.int64]
    size: int

    def pixels(self, places: Floats) -> Floats:
        """Pixel coordinates (x, y) of places `[T, ..., 2]` (ahead, above the floor)."""
        flip = np.array([-1.0 if self.mirrored else 1.0, -1.0], np.float32)
        turn = _rotation(self.tilt)
        moved = (self.origin + places * flip * self.unit - self.size / 2) @ turn + self.size / 2
        pan = self.pan.reshape(len(self.pan), *[1] * (places.ndim - 2), 2)
        return (moved - pan).astype(np.float32)


@dataclass(frozen=True)
class _Capsule:
    """A line with round ends, seen for T frames: ends `[T, 2]` in pixels, radius in pixels, colour 0..255."""

    start: Floats
    end: Floats
    radius: float
    colour: Floats


def clip(action: str, seed: int, *, frames: int = 16, size: int = 96) -> Pixels:
    """Draw one clip: uint8 `[frames, 3, size, size]`, frames evenly spaced over the whole action.

    action: one of `ACTIONS` (ValueError otherwise); seed: 0 or more, any number gives another clip.
    """
    if action not in _TRACKS:
        raise ValueError(f"action: must be one of {', '.join(ACTIONS)}, got {action}")
    rng = np.random.default_rng((ACTIONS.index(action), seed))
    track = _TRACKS[action]
    camera = _camera(rng, frames, size)
    wall, floor = _muted(_colour(rng, 150, 235)), _muted(_colour(rng, 130, 200))
    room = _room(rng, wall, floor, camera)
    canvas = _seen(room, camera, frames)
    for capsule in (*_chairs(rng, track, camera), *_body(rng, _angles(rng, track, frames), camera)):
        _draw(canvas, capsule)
    return _exposed(rng, canvas)


def _camera(rng: np.random.Generator, frames: int, size: int) -> _Camera:
    unit = size * rng.uniform(0.29, 0.32)
    origin = np.array([size * rng.uniform(0.4, 0.6), size * rng.uniform(0.86, 0.95)], np.float32)
    drift = np.linspace(-0.5, 0.5, frames)[:, None] * rng.uniform(-0.1, 0.1, 2) + rng.normal(0, 0.004, (frames, 2))
    limit = _MARGIN * 0.9
    pan = np.rint(np.clip(drift, -limit, limit) * size).astype(np.int64)
    return _Camera(unit, origin, rng.normal(0, 2.5), bool(rng.random() < 0.5), pan, size)


def _angles(rng: np.random.Generator, track: _Track, frames: int) -> dict[str, Floats]:
    """The value of each joint in each frame, in this person's style and speed."""
    poses = np.array(track.poses)
    time = (np.arange(frames) + 0.5) / frames
    place = _cycling(rng, time, len(poses)) if track.cycle else _passing(rng, time, len(poses))
    before = np.floor(place).astype(int)
    weight = (0.5 - 0.5 * np.cos(np.pi * (place - before)))[:, None]
    values = poses[before % len(poses)] * (1 - weight) + poses[(before + 1) % len(poses)] * weight
    style = rng.normal(0, 4.0, len(_JOINTS)) + rng.normal(0, 0.8, values.shape)
    style[:, :2] *= 0.003
    moved = (values + style).astype(np.float32)
    joints = dict(zip(_JOINTS, moved.T, strict=True))
    joints["ahead"] = joints["ahead"] + (rng.uniform(-0.35, 0.35) * (time - 0.5)).astype(np.float32)
    return joints


def _cycling(rng: np.random.Generator, time: NDArray[np.float64], poses: int) -> NDArray[np.float64]:
    return (time * rng.uniform(1.3, 3.2) + rng.random()) * poses


def _passing(rng: np.random.Generator, time: NDArray[np.float64], poses: int) -> NDArray[np.float64]:
    begin, end = rng.uniform(0.0, 0.15), rng.uniform(0.85, 1.0)
    return np.clip((time - begin) / (end - begin), 0, 1 - 1e-6) * (poses - 1)


def _body(rng: np.random.Generator, joints: Mapping[str, Floats], camera: _Camera) -> list[_Capsule]:
    """The capsules of a person, from the farthest to the nearest."""
    girth = rng.uniform(0.8, 1.3)
    arm, trunk, head = rng.uniform(0.31, 0.38), rng.uniform(0.62, 0.76), rng.uniform(0.15, 0.185)
    shirt, trousers, hair = (_colour(rng, 10, 110) for _ in range(3))
    skin = np.array([235, 190, 160], np.float32) * rng.uniform(0.4, 1.0)
    shoes = _colour(rng, 10, 90)

    hips = np.stack([joints["ahead"], joints["hip"]], axis=-1)
    neck = hips + _along(180 - joints["trunk"]) * trunk
    crown = neck + _along(180 - joints["trunk"] * 0.9) * (head + 0.1)

    def limb(side: str, upper: str, lower: str, root: Floats, reach: float) -> tuple[Floats, Floats]:
        middle = root + _along(joints[f"{side}_{upper}"]) * reach
        return middle, middle + _along(joints[f"{side}_{lower}"]) * reach

    def line(start: Floats, end: Floats, radius: float, colour: Floats, light: float = 1.0) -> _Capsule:
        return _Capsule(camera.pixels(start), camera.pixels(end), radius * camera.unit, colour * np.float32(light))

    def one_arm(side: str, light: float) -> list[_Capsule]:
        elbow, hand = limb(side, "arm", "fore", neck, arm)
        return [
            line(neck, elbow, 0.072 * girth, shirt, light),
            line(elbow, hand, 0.056 * girth, skin, light),
            line(hand, hand, 0.075, skin, light),
        ]

    def one_leg(side: str, light: float) -> list[_Capsule]:
        knee, ankle = limb(side, "thigh", "shin", hips, 0.5)
        toe = ankle + _along(joints[f"{side}_shin"] + 80) * 0.15
        return [
            line(hips, knee, 0.098 * girth, trousers, light),
            line(knee, ankle, 0.075 * girth, trousers, light),
            line(ankle, toe, 0.062, shoes, light),
        ]

    back = crown + _along(270 - joints["trunk"]) * 0.035
    return [
        *one_arm("far", 0.72),
        *one_leg("far", 0.72),
        line(back, back, head * 1.08, hair),
        line(crown, neck, 0.06, skin),
        line(crown, crown, head, skin),
        *one_leg("near", 1.0),
        line(hips, neck, 0.13 * girth, shirt),
        *one_arm("near", 1.0),
    ]


def _chairs(rng: np.random.Generator, track: _Track, camera: _Camera) -> list[_Capsule]:
    """The seat an action needs; elsewhere now and then a chair that nobody uses."""
    spare = rng.random() < 0.3
    if not track.seat and not spare:
        return []
    ahead = -0.36 if track.seat else rng.uniform(0.7, 1.2) * rng.choice([-1, 1])
    colour = _colour(rng, 30, 180)
    frames = len(camera.pan)

    def bar(start: tuple[float, float], end: tuple[float, float]) -> _Capsule:
        ends = (np.tile(np.array([ahead + x, y], np.float32), (frames, 1)) for x, y in (start, end))
        first, second = (camera.pixels(places) for places in ends)
        return _Capsule(first, second, 0.045 * camera.unit, colour)

    return [bar((-0.24, 0.38), (0.24, 0.38)), bar((-0.24, 0.0), (-0.3, 1.0)), bar((0.24, 0.0), (0.24, 0.38))]


def _room(rng: np.random.Generator, wall: Floats, floor: Floats, camera: _Camera) -> Floats:
    """The background `[3, H, W]`, larger than a frame by a margin on each side so that the camera can pan."""
    margin = round(_MARGIN * camera.size)
    side = np.arange(-margin, camera.size + margin, dtype=np.float32) - camera.size / 2
    grid = np.stack(np.meshgrid(side, side), axis=-1) @ _rotation(-camera.tilt)
    across, down = (grid / camera.size).transpose(2, 0, 1).astype(np.float32)
    horizon = camera.origin[1] / camera.size - 0.5 - rng.uniform(0.04, 0.12)
    room: Floats = wall[:, None, None] * (1 + rng.uniform(-0.5, 0.5) * across + rng.uniform(-0.5, 0.5) * down)
    below = np.clip((down - horizon) * camera.size + 0.5, 0, 1)
    ground = floor[:, None, None] * (0.8 + 0.5 * down)
    room = room + below * (ground - room)
    return (room * (1 + 0.06 * _clouds(rng, len(side)))).astype(np.float32)


def _clouds(rng: np.random.Generator, side: int, cells: int = 7) -> Floats:
    """Soft blotches: a coarse grid of random values, drawn out to `[side, side]` without steps."""
    coarse = rng.uniform(-1, 1, (cells, cells))
    places = np.linspace(0, cells - 1, side)
    spread = np.clip(1 - np.abs(places[:, None] - np.arange(cells)), 0, 1)
    clouds: Floats = (spread @ coarse @ spread.T).astype(np.float32)
    return clouds


def _seen(room: Floats, camera: _Camera, frames: int) -> Floats:
    """The part of the room in each frame, `[T, 3, size, size]`."""
    margin = round(_MARGIN * camera.size)
    canvas = np.empty((frames, 3, camera.size, camera.size), np.float32)
    for frame, (right, down) in enumerate(camera.pan + margin):
        canvas[frame] = room[:, down : down + camera.size, right : right + camera.size]
    return canvas


def _draw(canvas: Floats, capsule: _Capsule) -> None:
    """Paint a capsule over all frames, with smooth edges and darker flanks, within the box it moves in."""
    size = canvas.shape[-1]
    ends = np.stack([capsule.start, capsule.end])
    low = np.clip(np.floor(ends.min(axis=(0, 1)) - capsule.radius - 1), 0, size).astype(int)
    high = np.clip(np.ceil(ends.max(axis=(0, 1)) + capsule.radius + 2), 0, size).astype(int)
    if (low >= high).any():
        return
    xs = np.arange(low[0], high[0], dtype=np.float32)[None, None, :] + np.float32(0.5)
    ys = np.arange(low[1], high[1], dtype=np.float32)[None, :, None] + np.float32(0.5)
    squared = _squared_distance(xs, ys, capsule.start, capsule.end)
    radius = np.float32(capsule.radius)
    cover = np.clip(radius + np.float32(0.5) - np.sqrt(squared), 0, 1)[:, None]
    shade = (1 - np.float32(0.35) * np.minimum(squared / radius**2, 1))[:, None]
    part = canvas[:, :, low[1] : high[1], low[0] : high[0]]
    part += cover * (capsule.colour[:, None, None] * shade - part)


def _squared_distance(xs: Floats, ys: Floats, start: Floats, end: Floats) -> Floats:
    """Squared distances `[T, H, W]` of the pixels `[1, 1, W]`, `[1, H, 1]` to the lines from start to end `[T, 2]`."""
    (x, y), (along_x, along_y) = start.T[:, :, None, None], (end - start).T[:, :, None, None]
    length = np.maximum(along_x**2 + along_y**2, np.float32(1e-6))
    right, down = xs - x, ys - y
    share = np.clip((right * along_x + down * along_y) / length, 0, 1)
    squared: Floats = (right - share * along_x) ** 2 + (down - share * along_y) ** 2
    return squared


def _exposed(rng: np.random.Generator, canvas: Floats) -> Pixels:
    """Light, contrast and sensor noise, then whole numbers."""
    canvas -= 128
    canvas *= np.float32(rng.uniform(0.7, 1.05))
    canvas += np.float32(128 + rng.uniform(-22, 22))
    canvas += rng.standard_normal(canvas.shape, np.float32) * np.float32(rng.uniform(1, 6))
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def _colour(rng: np.random.Generator, low: float, high: float) -> Floats:
    return rng.uniform(low, high, 3).astype(np.float32)


def _muted(colour: Floats, share: float = 0.6) -> Floats:
    muted: Floats = colour + np.float32(share) * (colour.mean() - colour)
    return muted


def _along(degrees: Floats) -> Floats:
    """Unit vectors `[T, 2]` (ahead, up): 0 hangs down, 90 points ahead, 180 up."""
    radians = np.deg2rad(degrees)
    return np.stack([np.sin(radians), -np.cos(radians)], axis=-1)


def _rotation(degrees: float) -> Floats:
    sin, cos = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
    return np.array([[cos, sin], [-sin, cos]], np.float32)
