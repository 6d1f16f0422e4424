"""Dividing items into train, valid and test: as lists or folders give them, and by shares where they do not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from toolkit.api.contracts import Targets
from toolkit.api.errors import DataError, first_few
from toolkit.data.splits import SPLITS, Partition, classes_of, fold_partition, partition, split_hash


@dataclass(frozen=True)
class Given:
    """What lists or folders say of N items."""

    splits: tuple[str, ...]
    """The split of each item: train, valid or test."""
    rule: str
    """What gives them."""


@dataclass(frozen=True)
class Division:
    """The shares of the items that become the splits which nothing gives."""

    valid_share: float
    test_share: float
    seed: int
    folds: int | None = None
    """Parts of all items for cross-validation; None: shares alone."""
    fold: int = 0
    """Which of the parts, from 0, is the test split."""

    def __post_init__(self) -> None:
        if self.folds is not None and self.fold >= self.folds:
            raise ValueError(f"fold: must be below folds = {self.folds}, got {self.fold}")
        if self.valid_share + self.test_share >= 1:
            raise ValueError(
                f"test_share: valid_share + test_share must be below 1, got {self.valid_share:g} + {self.test_share:g}"
            )

    def divide(
        self,
        ids: Sequence[str],
        targets: Targets,
        classes: Sequence[str],
        groups: Sequence[str] | None = None,
        given: Given | None = None,
    ) -> Partition:
        """Take the splits that are given, and the others from the items to train on, in which the items of one group
        stay together (None: each item alone)."""
        splits = given.splits if given else ("train",) * len(ids)
        places = {name: [position for position, split in enumerate(splits) if split == name] for name in SPLITS}
        pool = places["train"]
        if self.folds is not None:
            return self._folded(self.folds, ids, targets, classes, groups, given)
        shares = self._shares(given)
        cut = partition(
            [ids[position] for position in pool],
            [targets[position] for position in pool],
            classes=classes,
            valid_share=shares.get("valid_share", 0),
            test_share=shares.get("test_share", 0),
            seed=self.seed,
            groups=[groups[position] for position in pool] if groups else None,
        )
        return Partition(
            train=tuple(pool[position] for position in cut.train),
            valid=tuple(places["valid"]) or tuple(pool[position] for position in cut.valid),
            test=tuple(places["test"]) or tuple(pool[position] for position in cut.test),
            notes=(*_lacking(places, targets, classes), *cut.notes),
        )

    def _folded(
        self,
        folds: int,
        ids: Sequence[str],
        targets: Targets,
        classes: Sequence[str],
        groups: Sequence[str] | None,
        given: Given | None,
    ) -> Partition:
        if given is not None:
            raise DataError(
                f"the splits are given ({given.rule}), so the items cannot be divided into folds",
                next_step="remove data.folds, or put all items into one folder or list",
            )
        return fold_partition(
            ids,
            targets,
            classes=classes,
            folds=folds,
            fold=self.fold,
            valid_share=self.valid_share,
            seed=self.seed,
            groups=groups,
        )

    def protocol(
        self, ids: Sequence[str], parts: Partition, grouping: str, given: Given | None = None
    ) -> dict[str, str | int | float]:
        """How the splits were made, with all that it depends on."""
        shares = self._shares(given)
        named = {name: [ids[position] for position in getattr(parts, name)] for name in SPLITS}
        return {
            "split": given.rule if given else "stratified",
            "split_hash": split_hash(named),
            **({"split_seed": self.seed} if shares else {}),
            **shares,
            **({"folds": self.folds, "fold": self.fold} if self.folds is not None else {}),
            "grouping": grouping,
        }

    def _shares(self, given: Given | None) -> dict[str, float]:
        """Of the splits that nothing gives."""
        shares = {"valid": self.valid_share} | ({"test": self.test_share} if self.folds is None else {})
        return {f"{name}_share": share for name, share in shares.items() if not given or name not in given.splits}


def _lacking(places: Mapping[str, Sequence[int]], targets: Targets, classes: Sequence[str]) -> Iterator[str]:
    """Which classes a given split for validation or test has no item of."""
    for split in ("valid", "test"):
        held = {target for position in places[split] for target in classes_of(targets[position])}
        if held and (absent := [name for target, name in enumerate(classes) if target not in held]):
            yield f"the given {split} split has no item of {first_few(absent)}"
