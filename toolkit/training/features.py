"""Features of a frozen backbone: computed once for each item, kept in the cache, and trained on in place of pixels.

What is kept changes no draw and no order of items. A batch holds the features that the backbone would give for its
pixels, up to the rounding of another batch size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor, nn

from toolkit.api.contracts import Augmentation, Batch, Headed, Objective
from toolkit.api.errors import DataError, RunFailed
from toolkit.api.files import replaced
from toolkit.data.loader import Loader, Share
from toolkit.data.store.storage import remove_oldest, warn_unwritten
from toolkit.data.store.store import Store
from toolkit.training.asked import Question, Recorded
from toolkit.training.modes import evaluating, is_frozen
from toolkit.training.network import Network

CHECKED = 4
"""Items whose kept features are compared with the backbone's before a file is used: its code may have changed."""
AGREES = 1e-2
"""Largest difference of these, as a share of the largest feature: threads and batch sizes round differently."""


@dataclass(frozen=True)
class Featuring:
    """Emitted while features are computed, or a teacher's answers, and once when they are there."""

    epoch: int
    """Epoch under way, from 1."""
    done: int
    """Views of items so far."""
    count: int
    seconds: float
    kept: Path | None = None
    """The file that already had them."""
    taught: bool = False
    """Whether they are a teacher's answers."""


@dataclass
class Features:
    """The features of the training and the validation split, by a network whose backbone is frozen.

    `rows` are asked for once the network has its weights: a resumed run loads them after it is built.
    """

    network: Network
    train: Loader
    valid: Loader
    augmentations: Sequence[Augmentation]
    autocast: Callable[[], AbstractContextManager[None]]
    seed: int
    batch: int
    views: int
    """Of each training item: epoch e has view e modulo this number."""
    decided: str
    """Whatever decides features besides the weights, the items and the fields above."""
    folder: Path
    limit: int
    """Bytes that the files of all features may take."""
    _rows: dict[str, Tensor] = field(default_factory=dict)

    def loaders(self) -> tuple[FeatureLoader, FeatureLoader]:
        """The training and the validation split, with features in place of pixels."""
        train = FeatureStore(self, "train", self.train.store, self._each)
        valid = FeatureStore(self, "valid", self.valid.store)
        return (
            FeatureLoader(train, self.train.spec, self.train.device),
            FeatureLoader(valid, self.valid.spec, self.valid.device),
        )

    def ready(self, epoch: int) -> Iterator[Featuring]:
        """Read the features, or compute and keep them; nothing where they are there."""
        if self._rows:
            return
        started = time.perf_counter()
        count = self._count
        path = self.folder / f"{self._name()}.safetensors"
        if found := self._read(path):
            self._rows = found
            yield Featuring(epoch, count, count, time.perf_counter() - started, path)
            return
        parts: dict[str, list[Tensor]] = {"train": [], "valid": []}
        done = 0
        with evaluating(self.network):
            for split, batch in self._batches():
                parts[split].append(self._of(batch))
                done += len(batch.pixels)
                yield Featuring(epoch, min(done, count - 1), count, time.perf_counter() - started)
        self._rows = {split: self._placed(split, found) for split, found in parts.items() if any(map(len, found))}
        if not any(store.skipped.reasons or store.skipped.damaged for store in (self.train.store, self.valid.store)):
            # A run that reads the file decodes nothing, and so would not report damage.
            self._write(path)
        yield Featuring(epoch, count, count, time.perf_counter() - started)

    def rows(self, split: str) -> Tensor:
        """`[V, N, ...]` of the training items; of the validation split `[N * V, ...]`, an item's views together. On the
        device. Raises DataError where no item of the split can be read."""
        for _ in self.ready(0):
            pass
        if split not in self._rows:
            raise DataError(
                f"no item of the {split} split can be read, so it has no features", next_step="repair the data"
            )
        return self._rows[split]

    def require_fixed(self) -> None:
        """Raise RunFailed where the backbone may change from here on, so that its features do not hold."""
        if not is_fixed(self.network):
            raise RunFailed(
                "the backbone is trained from this epoch on, but its features were computed once",
                next_step="compute them in each step: --set train.feature_views=0",
            )

    @property
    def _each(self) -> int:
        """Training clips of a video."""
        return self.train.training_items // max(len(self.train.store), 1)

    @property
    def _count(self) -> int:
        clip = self.valid.spec.clip
        return self.views * self.train.training_items + len(self.valid.store) * (clip.views if clip else 1)

    def _batches(self) -> Iterator[tuple[str, Batch]]:
        for view in range(self.views):
            for batch in self.train.in_order(self.batch, self.augmentations, seed=self.seed, epoch=view):
                yield "train", batch
        for batch in self.valid.evaluation(self.batch):
            yield "valid", batch

    def _of(self, batch: Batch) -> Tensor:
        with torch.no_grad(), self.autocast():
            return self.network.features(batch.pixels)

    def _placed(self, split: str, found: Sequence[Tensor]) -> Tensor:
        """All features of a split, by the places that `FeatureStore` looks them up by. Skipped items have zeros."""
        rows = torch.cat([part for part in found if len(part)])
        store, each = (self.train.store, self._each) if split == "train" else (self.valid.store, 1)
        there = _there(store, each)
        rows = rows.view(self.views if split == "train" else len(there), -1, *rows.shape[1:])
        if split == "valid":
            return _spread(rows, there, len(store)).flatten(0, 1)
        return _spread(rows.transpose(0, 1), there, len(store) * each).transpose(0, 1).contiguous()

    def _name(self) -> str:
        """The name of the file: changes with the weights, the items and how they become features."""
        digest = blake2b(digest_size=16)
        said = (self.decided, torch.__version__, str(self.train.device.type), self.train.spec, self.batch, self.views)
        digest.update(repr((*said, self.seed if self.augmentations or self.train.spec.clip else None)).encode())
        for name, tensor in self.network.normalize.named_buffers():
            _add(digest, name, tensor)
        for name, tensor in backbone_of(self.network).state_dict().items():
            _add(digest, name, tensor)
        for loader in (self.train, self.valid):
            digest.update(b"\1")
            for key in loader.store.split.keys:
                digest.update(b"\0" + key.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def _read(self, path: Path) -> dict[str, Tensor]:
        """What the file has; nothing where it is missing, damaged, or not what the backbone gives today."""
        from safetensors import SafetensorError, safe_open

        if not path.is_file():
            return {}
        with suppress(SafetensorError, OSError, KeyError):
            with safe_open(path, framework="pt") as file:
                rows = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
                sums = file.metadata() or {}
            if all(sums[name] == _sum(tensor) for name, tensor in rows.items()) and self._agrees(rows["train"]):
                path.touch()
                return {name: tensor.to(self.train.device) for name, tensor in rows.items()}
        return {}

    def _agrees(self, rows: Tensor) -> bool:
        drawn = self.train.in_order(CHECKED, self.augmentations, seed=self.seed, epoch=0)
        with evaluating(self.network), closing(drawn):
            first = next(drawn)
            now = self._of(first).cpu()
        kept = rows[0, : len(now)]
        if not len(now) or kept.shape != now.shape or kept.dtype != now.dtype:
            return False
        return bool((kept - now).abs().max() <= AGREES * now.abs().max())

    def _write(self, path: Path) -> None:
        from safetensors.torch import save_file

        rows = {name: tensor.cpu().contiguous() for name, tensor in self._rows.items()}
        size = sum(tensor.nbytes for tensor in rows.values())
        if size > self.limit:
            return
        try:
            remove_oldest(self.folder.glob("*.safetensors"), self.limit - size)
            with replaced(path) as temporary:
                save_file(rows, temporary, metadata={name: _sum(tensor) for name, tensor in rows.items()})
        except OSError as error:
            warn_unwritten(self.folder, error)


class FeatureStore(Store):
    """The features of a split by index, in the place of its pixels."""

    def __init__(self, features: Features, name: str, pixels: Store, each: int = 1, view: int = 0) -> None:
        self._features, self._name, self._pixels, self._each, self._view = features, name, pixels, each, view
        self.split, self.skipped, self.sides = pixels.split, pixels.skipped, pixels.sides

    def of_epoch(self, epoch: int) -> FeatureStore:
        """The view of every training item that this epoch sees."""
        return FeatureStore(self._features, self._name, self._pixels, self._each, epoch % self._features.views)

    def fetch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        return self.drawn(index, 0)

    def views(self, index: Tensor) -> tuple[Tensor, Tensor]:
        rows, index = self._features.rows(self._name), self.skipped.without(index)
        each = len(rows) // max(len(self), 1)
        places = (index[:, None] * each + torch.arange(each)).flatten()
        return rows.index_select(0, places.to(rows.device)), index

    def drawn(self, items: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        del seed  # drawn when the features were computed
        rows = self._features.rows(self._name)[self._view]
        items = items[torch.isin(items // self._each, self.skipped.without((items // self._each).unique()))]
        return rows.index_select(0, items.to(rows.device)), items

    def expect(self, blocks: Sequence[int]) -> None:
        """Nothing: no pixel is read any more."""
        del blocks

    def resident(self, device: torch.device, share: float) -> bool:
        del device, share
        return True


@dataclass(frozen=True)
class FeatureLoader(Loader):
    """Batches whose pixels are features: nothing is cropped, and augmentations were applied before."""

    store: FeatureStore

    def training(
        self, size: int, augmentations: Sequence[Augmentation], *, seed: int, epoch: int, start: int, views: int = 1
    ) -> Iterator[Share]:
        del augmentations, views
        of_epoch = FeatureLoader(self.store.of_epoch(epoch), self.spec, self.device)
        return super(FeatureLoader, of_epoch).training(size, (), seed=seed, epoch=epoch, start=start)

    def _cropped(self, batch: Batch) -> Batch:
        return batch


def backbone_of(network: Network) -> nn.Module:
    """The backbone of a network whose model is `Headed`."""
    model = network.model
    if not isinstance(model, Headed):
        raise AssertionError("only a model with a head of its own has features")
    return model.parts()["backbone"]


def is_fixed(network: Network) -> bool:
    """Whether the backbone stays as it is while the network is trained, in which mode it is now."""
    return is_frozen(backbone_of(network))


def asks_once(objective: Objective, trained: Network, batch: Share) -> bool:
    """Whether the loss asks the network in training, and nothing else, for the outputs of exactly the pixels it gets:
    then features may take their place."""
    with torch.no_grad(), evaluating(trained):
        asked = Recorded.of(objective, trained, batch)
    return bool(asked) and all(one == Question(batch.pixels, None, features=False) for one in asked)


def _there(store: Store, each: int) -> Tensor:
    """The numbers of the items that were not skipped."""
    numbers = torch.arange(len(store) * each)
    return numbers[torch.isin(numbers // each, store.skipped.without(torch.arange(len(store))))]


def _spread(rows: Tensor, there: Tensor, count: int) -> Tensor:
    """Rows of the items `there` among `count` items; zeros in the place of others."""
    if len(there) == count:
        return rows
    spread = rows.new_zeros((count, *rows.shape[1:]))
    spread[there.to(rows.device)] = rows
    return spread


def _add(digest: blake2b, name: str, tensor: Tensor) -> None:
    digest.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(_bytes(tensor))


def _sum(tensor: Tensor) -> str:
    return blake2b(_bytes(tensor), digest_size=16).hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
