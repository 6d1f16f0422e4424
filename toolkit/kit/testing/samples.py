"""What tests need: class folders of images and of videos, written in an instant, and draws."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from toolkit.api.contracts import Draws

CLASSES = ("bright", "dark")


def draws(items: Iterable[int], seed: int = 0) -> Draws:
    """What an augmentation draws for the items with these numbers, as a global batch of their own, on the CPU. Another
    seed, as another epoch, gives other numbers."""
    import torch

    from toolkit.system.draws import draws_of

    return draws_of(torch.tensor(list(items), dtype=torch.int64), seed)


def image_folders(folder: Path, *, classes: Sequence[str] = CLASSES, per_class: int = 12) -> Path:
    """Write PNG files of 24 x 32 pixels at `<folder>/<class>/NN.png`, each of noise of its own; returns `folder`."""
    from PIL import Image

    for target, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            Image.fromarray(_noise((target, number), (24, 32, 3))).save(folder / name / f"{number:02}.png")
    return folder


def video_folders(folder: Path, *, classes: Sequence[str] = CLASSES, per_class: int = 6, frames: int = 12) -> Path:
    """Write MP4 files of 64 x 48 pixels and 10 frames a second at `<folder>/<class>/NN.mp4`, each of coarse noise of
    its own; returns `folder`."""
    for target, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            write_video(folder / name / f"{number:02}.mp4", _noise((target, number), (frames, 6, 8, 3)))
    return folder


def write_video(path: Path, coarse: NDArray[np.uint8]) -> None:
    """Encode frames uint8 `[T, H, W, 3]`, each pixel of which becomes 8 x 8, at 10 frames a second."""
    import av

    frames = coarse.repeat(8, axis=1).repeat(8, axis=2)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _noise(seed: tuple[int, ...], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    import numpy as np

    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
