"""The built-in sample: shards of shapes, drawn by code and written into the cache once. Images show which shape it is,
videos where it moves, which no single frame shows."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from toolkit.api.files import cache_directory, exclusive, replaced_folder

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.floating[Any]]

VERSION = 1
"""Goes up when what is drawn changes."""
SHARDS = ("train-000", "train-001", "train-002", "train-003", "validation-000", "test-000")
IMAGES, VIDEOS = 100, 40
"""Of each shard."""
IMAGE_SIDE, VIDEO_SIDE = 32, 48
FRAMES, FPS = 12, 12
TRAVEL = 20.0
"""Pixels that a shape moves in a video."""


def sample(*, clips: bool) -> str:
    """The folder of the sample's shards: images, or videos where `clips`. It is written if it is missing."""
    medium, count = ("videos", VIDEOS) if clips else ("images", IMAGES)
    folder = cache_directory() / "samples" / f"shards-{medium}-{VERSION}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(folder.with_name(f".{folder.name}.lock")):
        if not folder.is_dir():
            with replaced_folder(folder) as coming:
                for number, name in enumerate(SHARDS):
                    _write(coming / f"{name}.tar", range(number * count, (number + 1) * count), clips=clips)
    return str(folder)


def _write(path: Path, numbers: range, *, clips: bool) -> None:
    import numpy as np

    classes, suffix, encoded = (tuple(_WAYS), "mp4", _video) if clips else (tuple(_SHAPES), "png", _image)
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for number in numbers:
            name = classes[number % len(classes)]
            rng = np.random.default_rng((VERSION, clips, number))
            for ending, data in ((suffix, encoded(name, rng)), ("cls", name.encode())):
                member = tarfile.TarInfo(f"{number:05}.{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def _image(shape: str, rng: np.random.Generator) -> bytes:
    from PIL import Image

    x, y = rng.uniform(10, 22, 2)
    scene = _Scene(rng, IMAGE_SIDE)
    written = io.BytesIO()
    Image.fromarray(scene.drawn(_SHAPES[shape], x, y)).save(written, "png")
    return written.getvalue()


def _video(way: str, rng: np.random.Generator) -> bytes:
    import av
    import numpy as np

    scene, shape = _Scene(rng, VIDEO_SIDE), _SHAPES[str(rng.choice(list(_SHAPES)))]
    middle, (right, down) = rng.uniform(20, 28, 2), _WAYS[way]
    written = io.BytesIO()
    with av.open(written, "w", format="mp4") as container:
        stream: Any = container.add_stream("mpeg4", rate=FPS)
        stream.width = stream.height = VIDEO_SIDE
        stream.pix_fmt, stream.bit_rate, stream.codec_context.thread_count = "yuv420p", 2_000_000, 1
        for gone in np.linspace(-TRAVEL / 2, TRAVEL / 2, FRAMES):
            pixels = scene.drawn(shape, middle[0] + right * gone, middle[1] + down * gone)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return written.getvalue()


class _Scene:
    """Colours, light and size, by which no class can be known."""

    def __init__(self, rng: np.random.Generator, side: int) -> None:
        import numpy as np

        self._rng, self._radius = rng, rng.uniform(6, 9)
        self._y, self._x = np.mgrid[:side, :side].astype(np.float32)
        dark, bright = rng.uniform(20, 100, 3), rng.uniform(150, 235, 3)
        self._behind, self._front = (dark, bright) if rng.random() < 0.5 else (bright, dark)
        slope = rng.uniform(-0.5, 0.5, 2)
        self._light = ((self._x - side / 2) * slope[0] + (self._y - side / 2) * slope[1])[..., None]

    def drawn(self, shape: Shape, x: float, y: float) -> NDArray[np.uint8]:
        """uint8 `[side, side, 3]`, with the shape's middle at (x, y)."""
        import numpy as np

        covered = shape((self._x - x) / self._radius, (self._y - y) / self._radius)[..., None]
        scene = np.where(covered, self._front, self._behind) + self._light
        noisy = scene + self._rng.normal(0, 6, scene.shape)
        pixels: NDArray[np.uint8] = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
        return pixels


Shape: TypeAlias = "Callable[[Floats, Floats], NDArray[np.bool_]]"
"""Which points it covers, by their distance to the right of its middle and below it, in radii."""


def _circle(x: Floats, y: Floats) -> NDArray[np.bool_]:
    return x**2 + y**2 < 1


def _cross(x: Floats, y: Floats) -> NDArray[np.bool_]:
    return (abs(x) < 1) & (abs(y) < 1) & ((abs(x) < 0.35) | (abs(y) < 0.35))


def _square(x: Floats, y: Floats) -> NDArray[np.bool_]:
    return (abs(x) < 0.85) & (abs(y) < 0.85)


def _triangle(x: Floats, y: Floats) -> NDArray[np.bool_]:
    return (y < 0.8) & (y > 2 * abs(x) - 1)


_SHAPES: Mapping[str, Shape] = {"circle": _circle, "cross": _cross, "square": _square, "triangle": _triangle}
_WAYS = {"down": (0, 1), "left": (-1, 0), "right": (1, 0), "up": (0, -1)}
"""Pixels to the right and down for each that a shape moves."""
