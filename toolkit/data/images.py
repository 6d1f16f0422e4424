"""Images as splits: files that are decoded when read, and pixels already in memory.

What becomes of a file that is not as it should be:

| file | what is read |
| --- | --- |
| grey, black and white, with a palette, or CMYK | RGB |
| with an alpha channel | its colours, as if none were transparent |
| 16 bits a channel | the upper eight |
| turned by its EXIF data | an upright image |
| another suffix than its format (JPEG, PNG, WebP, GIF) | as if the suffix were right |
| animated (WebP or GIF), or of another format | `DataError` |
| empty, cut short, or no image (text, say) | `DataError` |
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.api.contracts import Targets
from toolkit.api.errors import DataError
from toolkit.data.regular import require_regular

if TYPE_CHECKING:
    from torch import Tensor

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})


@dataclass(frozen=True)
class ImageFiles:
    """A split of N image files (JPEG, PNG, WebP)."""

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
    """Pixels of an image file, uint8 `[3, H, W]`, turned upright as its EXIF says.

    Grey and palette images become RGB, an alpha channel is dropped, 16 bits become 8. Raises DataError naming the file
    when it is missing, damaged, cut short or of another format.
    """
    import numpy as np
    import torch

    require_regular(path)
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path=path) from error
    try:
        return decode_image(torch.from_numpy(data))
    except RuntimeError as error:
        raise DataError(
            f"cannot be decoded: {_cause(error)}",
            path=path,
            next_step='Replace or remove the file, or set input.on_corrupt = "skip".',
        ) from error


def decode_image(data: Tensor) -> Tensor:
    """Pixels, uint8 `[3, H, W]`, of an encoded image given as its bytes, uint8 `[L]`; RuntimeError when damaged."""
    import torch

    # The operator, not torchvision's function around it: that one warns since 0.29 that TorchCodec is to replace it,
    # which does not bring its own FFmpeg.
    pixels: Tensor = _operators().decode_image(data, _RGB, True)
    if pixels.ndim != 3:
        raise RuntimeError(f"it holds {len(pixels)} pictures, not one")
    return (pixels.to(torch.int32) >> 8).to(torch.uint8) if pixels.dtype == torch.uint16 else pixels


_IN_OTHER_WORDS = {
    "Animated webp": "it holds several pictures, not one",
    "Expected a non empty": "it is empty",
    "Unsupported image file": "it is not a JPEG, PNG, WebP or GIF image",
}
_RGB = 3
"""torchvision's `ImageReadMode.RGB`."""


@cache
def _operators() -> Any:
    """torchvision's operators for images, without its rest, which imports torch's compiler: that takes seconds."""
    import torch

    for library in _libraries():
        with suppress(OSError):
            torch.ops.load_library(library)
    if not hasattr(torch.ops.image, "decode_image"):
        importlib.import_module("torchvision.io")
    return torch.ops.image


def _libraries() -> list[Path]:
    """The files of torchvision that hold these operators; their name is not the same in all of its versions."""
    found = importlib.util.find_spec("torchvision")
    return sorted(Path(found.origin).parent.glob("image*.so")) if found and found.origin else []


def _cause(error: Exception) -> str:
    """What the decoder said, without the place in its source that it puts in front; in other words where it speaks of
    its own arguments and functions."""
    said = str(error).strip().partition("\n")[0].rpartition("cpp:")[2].lstrip("0123456789, ")
    return next((words for start, words in _IN_OTHER_WORDS.items() if said.startswith(start)), said)
