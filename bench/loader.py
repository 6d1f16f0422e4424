"""Batches ready for the step, ours against torchvision's ImageFolder and DataLoader (two workers, PIL).

Both sides read the same files with the same transforms and batch size, shuffle, augment and normalise, and leave
float32 batches on the device. The files lie in the page cache. Epoch one starts from the list of files: ours decodes
and keeps, theirs starts its workers. From epoch two ours has every item decoded, and theirs keeps its workers.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Protocol

import torch
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from bench.data import Options
from bench.pairs import Effort, Figure, compare
from toolkit.api.contracts import Data
from toolkit.api.errors import DataError
from toolkit.build.plan import Plan, plan
from toolkit.data.images import ImageFiles
from toolkit.data.loader import Loader
from toolkit.data.store.images import ImageStore
from toolkit.data.store.storage import Memory, stored_shape
from toolkit.host.registry import discover
from toolkit.recipe.read import parse
from toolkit.system.device import choose_device, keep_freed_memory
from toolkit.training.network import Normalize

PAIRS = 5
BATCH = 32
SIZE = 224
WORKERS = 2
RECIPE = Path(__file__).parents[1] / "recipes" / "har_resnet50.toml"


@dataclass(frozen=True)
class Case:
    """The same transforms in a recipe's words and in torchvision's, and the least ratios asked for."""

    name: str
    stored: int
    augment: str
    theirs: Sequence[Callable[..., object]]
    first: float
    """In epoch one."""
    later: float
    """From epoch two."""


CASES = (
    Case(
        "random_resized_crop+flip",
        stored=256,
        augment='[{name="random_resized_crop", scale=[0.5, 1.0]}, "horizontal_flip"]',
        theirs=(transforms.RandomResizedCrop(SIZE, scale=(0.5, 1.0)), transforms.RandomHorizontalFlip()),
        first=1.5,
        later=3.0,
    ),
    Case(
        "pad_crop+flip",
        stored=SIZE,
        augment='[{name="random_crop", padding=4}, "horizontal_flip"]',
        theirs=(
            transforms.Resize(SIZE),
            transforms.CenterCrop(SIZE),
            transforms.RandomCrop(SIZE, padding=4, padding_mode="reflect"),
            transforms.RandomHorizontalFlip(),
        ),
        first=1.5,
        later=10.0,
    ),
)


def figures(options: Options) -> Iterator[Figure]:
    root = options.har()
    if root is None:
        raise DataError(
            "bench loader measures on real image files and was given none",
            next_step="name the folder that holds har-subset: python -m bench loader --data DIR",
        )
    torch.set_num_threads(WORKERS)
    keep_freed_memory()
    for case in CASES:
        yield from compared(case, root, options.effort(PAIRS))


def compared(case: Case, root: Path, effort: Effort, *, workers: int = WORKERS) -> Iterator[Figure]:
    """The first epoch and the later ones, from the files at `root`. Without `workers`, theirs decodes by itself."""
    planned = _plan(case, root)
    data = planned.data()
    device = choose_device("auto")
    with tempfile.TemporaryDirectory() as folder:
        link_by_class(data, Path(folder))
        ours = partial(Ours, planned, data, device, workers)
        theirs = partial(Theirs, Path(folder), case.theirs, data, device, workers)
        first = compare(partial(first_epoch, ours), partial(first_epoch, theirs), effort, case.first)
        yield Figure(f"loader/{case.name}/epoch_1", first, case.first)
        kept, running = ours(), theirs()
        kept.epoch()
        running.epoch()
        later = compare(partial(_timed, kept.epoch), partial(_timed, running.epoch), effort, case.later)
        yield Figure(f"loader/{case.name}/epoch_2+", later, case.later)


def _plan(case: Case, root: Path) -> Plan:
    overrides = (
        f"data.root={root}",
        "data.valid_share=0.0",
        "data.test_share=0.0",
        f"input.size={SIZE}",
        f"input.stored={case.stored}",
        f"augment={case.augment}",
    )
    return plan(parse(RECIPE, overrides), discover())


class Side(Protocol):
    def epoch(self) -> None:
        """Have every batch of an epoch ready on the device."""


class Ours:
    def __init__(self, planned: Plan, data: Data, device: torch.device, workers: int) -> None:
        assert isinstance(data.train, ImageFiles)
        storage = Memory((len(data.train), *stored_shape(data.spec)))
        self._loader = Loader(ImageStore(data.train, data.spec, storage, max(workers, 1)), data.spec, device)
        self._augmentations = planned.augmentations(data.spec)
        self._normalize = Normalize(data.spec.mean, data.spec.std).to(device)
        self._epochs = count()

    def epoch(self) -> None:
        for batch in self._loader.training(BATCH, self._augmentations, seed=0, epoch=next(self._epochs), start=0):
            self._normalize(batch.pixels)


class Theirs:
    def __init__(
        self,
        folder: Path,
        augmentations: Sequence[Callable[..., object]],
        data: Data,
        device: torch.device,
        workers: int,
    ) -> None:
        normalised = (transforms.ToTensor(), transforms.Normalize(data.spec.mean, data.spec.std))
        self._device = device
        self._loader = DataLoader(
            ImageFolder(str(folder), transforms.Compose([*augmentations, *normalised])),
            batch_size=BATCH,
            shuffle=True,
            num_workers=workers,
            drop_last=True,
            pin_memory=device.type == "cuda",
            persistent_workers=workers > 0,
        )

    def epoch(self) -> None:
        for pixels, targets in self._loader:
            pixels.to(self._device, non_blocking=True)
            targets.to(self._device, non_blocking=True)


def first_epoch(make: Callable[[], Side]) -> float:
    """Seconds from nothing to the end of an epoch; taking the side down again is not counted."""
    sides: list[Side] = []

    def run() -> None:
        sides.append(make())
        sides[0].epoch()

    return _timed(run)


def _timed(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def link_by_class(data: Data, folder: Path) -> None:
    """Arrange the training files under `folder` as ImageFolder wants them, by symbolic links."""
    assert isinstance(data.train, ImageFiles)
    for name in data.spec.classes:
        (folder / name).mkdir()
    for path, target in zip(data.train.paths, data.train.targets, strict=True):
        assert isinstance(target, int)
        (folder / data.spec.classes[target] / path.name).symlink_to(path)
