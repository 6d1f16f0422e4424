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
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.api.contracts import Targets
from toolkit.api.errors import DataError

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


@dataclass(frozen=True)
class Listing:
    """N labelled files below `root`; ids are their paths relative to it, with forward slashes."""

    root: Path
    ids: tuple[str, ...]
    targets: Targets
    classes: tuple[str, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(self.root / item for item in self.ids)


def read_image(path: Path) -> Tensor:
    """Pixels of an image file, uint8 `[3, H, W]`, turned upright as its EXIF says.

    Grey and palette images become RGB, an alpha channel is dropped, 16 bits become 8. Raises DataError naming the file
    when it is missing, damaged, cut short or of another format.
    """
    import numpy as np
    import torch

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
    "Unsupported image file": "it is no JPEG, PNG, WebP or GIF image",
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


def list_class_folders(root: Path, suffixes: frozenset[str] = IMAGE_SUFFIXES, *, kind: str = "image") -> Listing:
    """The files of `<root>/<class>/**` whose suffix, in lower case, is among `suffixes`; classes in order of name.

    Hidden files and folders are passed over. Raises DataError when there is no such folder, it has no class folders, or
    a class has no such file; `kind` names what was looked for.
    """
    if not root.is_dir():
        raise DataError("is no folder" if root.exists() else "does not exist", path=root, next_step=_layout(root, kind))
    classes = folders(root)
    if not classes:
        raise DataError(f"there are no class folders, only {_summary(root)}", path=root, next_step=_layout(root, kind))
    ids: list[str] = []
    targets: list[int] = []
    for target, name in enumerate(classes):
        found = sorted(files_below(root / name, suffixes, f"{name}/"))
        if not found:
            raise DataError(
                f"the class folder has no {kind} file, only {_summary(root / name)}",
                path=root / name,
                next_step=f"Put {kind} files ({', '.join(sorted(suffixes))}) there, or remove the folder.",
            )
        ids += found
        targets += [target] * len(found)
    return Listing(root, tuple(ids), tuple(targets), tuple(classes))


def folders_with(root: Path, suffixes: frozenset[str]) -> list[str]:
    """The folders of `root` that hold a file with one of these suffixes, in order of name."""
    return [name for name in folders(root) if any(True for _ in files_below(root / name, suffixes))]


def folders(root: Path) -> list[str]:
    """The names of the folders of `root`, in order, without hidden ones."""
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def files_below(
    folder: Path, suffixes: Collection[str] | None, prefix: str = "", above: tuple[tuple[int, int], ...] = ()
) -> Iterator[str]:
    """The paths, relative to `folder` and with `prefix` before them, of the files with one of these suffixes (None:
    any); hidden ones are left out. Links are followed, but not back into a folder that lies above."""
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from files_below(Path(entry.path), suffixes, f"{prefix}{entry.name}/", (*above, here))
            elif suffixes is None or os.path.splitext(entry.name)[1].lower() in suffixes:  # noqa: PTH122 (a Path a file costs seconds at 60k)
                yield f"{prefix}{entry.name}"


def _summary(folder: Path, limit: int = 3) -> str:
    names = sorted(os.listdir(folder))  # noqa: PTH208 (names are all that is needed)
    if not names:
        return "an empty folder"
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _layout(root: Path, kind: str) -> str:
    return f"Arrange the {kind} files as {root}/<class>/<file>."


def _cause(error: Exception) -> str:
    """What the decoder said, without the place in its source that it puts in front; in other words where it speaks of
    its own arguments and functions."""
    said = str(error).strip().partition("\n")[0].rpartition("cpp:")[2].lstrip("0123456789, ")
    return next((words for start, words in _IN_OTHER_WORDS.items() if said.startswith(start)), said)
