"""Images as splits: files that are decoded when read, and pixels already in memory."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.api.contracts import Targets

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class ImageFiles:
    """A split of N image files."""

    ids: tuple[str, ...]
    targets: Targets
    keys: tuple[str, ...]
    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int) -> Tensor:
        """Pixels, uint8 `[3, H, W]`; DataError naming the file when it cannot be decoded."""
        return read_image(self.paths[index])

    def select(self, positions: Sequence[int]) -> ImageFiles:
        """The split of the items at these positions."""
        return ImageFiles(
            tuple(self.ids[position] for position in positions),
            tuple(self.targets[position] for position in positions),
            tuple(self.keys[position] for position in positions),
            tuple(self.paths[position] for position in positions),
        )


@dataclass(frozen=True, eq=False)
class ArrayItems:
    """A split of N images in memory; `pixels` is uint8 `[N, 3, H, W]`."""

    ids: tuple[str, ...]
    targets: Targets
    keys: tuple[str, ...]
    pixels: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int) -> Tensor:
        """Pixels of one item, uint8; shares memory with `pixels`."""
        return self.pixels[index]

    def select(self, positions: Sequence[int]) -> ArrayItems:
        """The split of the items at these positions; copies their pixels."""
        return ArrayItems(
            tuple(self.ids[position] for position in positions),
            tuple(self.targets[position] for position in positions),
            tuple(self.keys[position] for position in positions),
            self.pixels[list(positions)],
        )


def read_image(path: Path) -> Tensor:
    """Pixels of an image file, uint8 `[3, H, W]`, by the rule of `toolkit.data.pixels`. Raises DataError naming the
    file when it is missing, damaged, cut short or of another format."""
    import torch

    from toolkit.data.pixels import read_pixels

    return torch.from_numpy(read_pixels(path, _decode_jpeg)).movedim(-1, 0)


def decode_image(data: bytes) -> Tensor:
    """As `read_image`, of the content of a file; ValueError that says what is wrong with "it"."""
    import torch

    from toolkit.data.pixels import decode_pixels

    return torch.from_numpy(decode_pixels(data, _decode_jpeg)).movedim(-1, 0)


def _decode_jpeg(data: bytes) -> NDArray[np.uint8]:
    """By torchvision, which takes two thirds of Pillow's time. Its decoder of PNG ends the process where a file is
    damaged; that of JPEG raises."""
    import numpy as np
    import torch

    # The operator, not torchvision's function around it: that one warns since 0.29 that TorchCodec is to replace it,
    # which does not bring its own FFmpeg.
    encoded = torch.from_numpy(np.frombuffer(data, np.uint8).copy())
    pixels: NDArray[np.uint8] = _operators().decode_jpeg(encoded, _RGB, False).movedim(0, -1).numpy()
    return pixels


_RGB = 3
"""torchvision's `ImageReadMode.RGB`."""


@cache
def _operators() -> Any:
    """torchvision's operators for images, without its rest, which imports torch's compiler: that takes seconds."""
    import torch

    for library in _libraries():
        with suppress(OSError):
            torch.ops.load_library(library)
    if not hasattr(torch.ops.image, "decode_jpeg"):
        importlib.import_module("torchvision.io")
    return torch.ops.image


def _libraries() -> list[Path]:
    """The files of torchvision that hold these operators; their name is not the same in all of its versions."""
    found = importlib.util.find_spec("torchvision")
    return sorted(Path(found.origin).parent.glob("image*.so")) if found and found.origin else []
