"""All items of a dataset in one row, split after split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.api.contracts import Data, DataSpec, Split, Target, VideoSplit
from toolkit.data.splits import SPLITS
from toolkit.data.targets import FORMS
from toolkit.data.videos import FramesOf


@dataclass(frozen=True, eq=False)
class Items:
    """N items: images, or whole videos where the recipe sees single frames of them."""

    data: Data
    parts: tuple[Split | VideoSplit, ...]
    """One a split, in the order of `SPLITS`."""

    @classmethod
    def of(cls, data: Data) -> Items:
        splits = (getattr(data, name) for name in SPLITS)
        return cls(data, tuple(split.videos if isinstance(split, FramesOf) else split for split in splits))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def spec(self) -> DataSpec:
        return self.data.spec

    @property
    def videos(self) -> bool:
        return isinstance(self.parts[0], VideoSplit)

    @cached_property
    def ids(self) -> Sequence[str]:
        return [name for part in self.parts for name in part.ids]

    @cached_property
    def targets(self) -> Sequence[Target]:
        return [target for part in self.parts for target in part.targets]

    @cached_property
    def keys(self) -> Sequence[str]:
        return [key for part in self.parts for key in part.keys]

    @cached_property
    def splits(self) -> NDArray[np.int8]:
        """int8 `[N]`: the number of each item's split."""
        return np.repeat(np.arange(len(SPLITS), dtype=np.int8), [len(part) for part in self.parts])

    @property
    def counts(self) -> dict[str, int]:
        """Items of each split."""
        return {split: len(part) for split, part in zip(SPLITS, self.parts, strict=True)}

    @cached_property
    def paths(self) -> Sequence[Path | None]:
        """The file of each item; None where the dataset does not say."""
        found: list[Path | None] = []
        for part in self.parts:
            paths: Sequence[Any] = getattr(part, "paths", ())
            found += paths if len(paths) == len(part) else [None] * len(part)
        return found

    @cached_property
    def labels(self) -> Sequence[str]:
        """What a table says of each item's target."""
        in_words = FORMS[self.spec.targets].in_words
        return [in_words(self.spec.classes, target) for target in self.targets]

    def place(self, item: int) -> tuple[Split | VideoSplit, int]:
        """The split that holds the item, and its position there."""
        for part in self.parts:
            if item < len(part):
                return part, item
            item -= len(part)
        raise IndexError(item)

    def split_name(self, item: int) -> str:
        return SPLITS[self.splits[item]]

    def places(self) -> Iterator[tuple[Split | VideoSplit, int]]:
        """As `place`, of all items in order."""
        return ((part, index) for part in self.parts for index in range(len(part)))
