"""The official CIFAR-10 files, verified by their checksums before anything in them is read.

torchvision, which reads them, is imported where there are any: it takes seconds.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.api.errors import DataError
from toolkit.data.images import ArrayItems

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10

PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
SIZE = 32


def download(root: Path) -> None:
    """Get the archive into `root`, verify and unpack it, unless verified files are there; DataError when that fails."""
    from torchvision.datasets import CIFAR10

    try:
        root.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings(action="ignore"):
            CIFAR10(root, download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"CIFAR-10 could not be downloaded: {error}",
            path=root,
            next_step=f"Check the network and the space on disk and try again, or get {ARCHIVE} from {PAGE}, "
            f"put it into {root} and try again.",
        ) from error


def load(root: Path) -> tuple[ArrayItems, tuple[str, ...], ArrayItems]:
    """Training images, class names and test images of the files in `root`/cifar-10-batches-py.

    Raises DataError naming the files that are missing or whose checksum is not the published one.
    """
    damaged = _damaged(root)
    if damaged:
        raise DataError(
            f"incomplete: {', '.join(damaged)} missing or changed",
            path=root / FOLDER,
            next_step=f"Set data.download = true, or unpack {ARCHIVE} from {PAGE} into {root}.",
        )
    train, test = _read(root, train=True), _read(root, train=False)
    return _items("train", train), tuple(train.classes), _items("test", test)


def _damaged(root: Path) -> list[str]:
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    listed = [*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])]
    return [name for name, digest in listed if not check_integrity(str(root / FOLDER / name), digest)]


def _read(root: Path, *, train: bool) -> CIFAR10:
    from torchvision.datasets import CIFAR10

    with warnings.catch_warnings(action="ignore"):  # the files are pickles of 2009, of which newer numpy complains
        return CIFAR10(root, train=train)


def _items(split: str, found: CIFAR10) -> ArrayItems:
    import torch

    count = len(found.targets)
    return ArrayItems(
        ids=tuple(f"{split}/{number:05d}" for number in range(count)),
        targets=tuple(found.targets),
        keys=tuple(f"cifar10-official-{split}-{number:05d}" for number in range(count)),
        pixels=torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous(),
    )
