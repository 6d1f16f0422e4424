"""Which items of an index are in which split."""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.api.errors import DataError, counted, first_few
from toolkit.data.shards.index import ABSENT, Index
from toolkit.data.splits import SPLITS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev"), "valid"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""What people call splits, in names of shards, of folders, and in columns."""
_NO_SPLIT = 3
_AT_A_TIME = 1 << 20


@dataclass(frozen=True)
class Parts:
    """The ascending places of the items of each split."""

    items: Mapping[str, NDArray[Any]]
    rule: str
    """What gives them: `lists`, `column split`, `names` or `hash`."""
    taken: tuple[str, ...]
    """The splits that are taken from train by shares."""
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Division:
    """How items are divided."""

    lists: Mapping[str, str | None]
    """Patterns of names of shards, by split."""
    column: str | None
    group: str | None
    valid_share: float
    test_share: float
    seed: int

    def __post_init__(self) -> None:
        if self.valid_share + self.test_share >= 1:
            raise ValueError(
                f"test_share: valid_share + test_share must be below 1, got {self.valid_share:g} + {self.test_share:g}"
            )
        if self.column and any(self.lists.values()):
            raise ValueError("split: cannot be combined with train, valid or test")

    def divide(self, index: Index, place: str) -> Parts:
        """Take the splits that are given, and the others from train by hash. Raises DataError where a pattern fits no
        shard, or nothing is left to train on."""
        import numpy as np

        rule, given, notes = self._given(index, place)
        shares = {"valid": self.valid_share, "test": self.test_share}
        taken = tuple(name for name, share in shares.items() if share and not (given == SPLITS.index(name)).any())
        for part in _pieces(given) if taken else ():
            self._take(index, given, part, {name: shares[name] for name in taken})
        kind = np.uint32 if len(index) < 1 << 32 else np.uint64
        items = {name: _places(given, number, kind) for number, name in enumerate(SPLITS)}
        return Parts(items, rule, taken, notes)

    def protocol(self, parts: Parts) -> dict[str, str | int | float]:
        """How the splits were made, with all that it depends on."""
        shares = {"valid": self.valid_share, "test": self.test_share}
        taken: dict[str, str | int | float] = {f"{name}_share": shares[name] for name in parts.taken}
        return {
            "split": parts.rule,
            **({"split_seed": self.seed, "grouping": self.group or "content"} if taken else {}),
            **taken,
        }

    def _given(self, index: Index, place: str) -> tuple[str, NDArray[np.uint8], tuple[str, ...]]:
        """The rule, the number of each item's split, and notes."""
        if self.column:
            return (f"column {self.column}", *_by_column(index, place, self.column))
        named = self._by_shard(index, place)
        if named is None:
            import numpy as np

            return "hash", np.zeros(len(index), np.uint8), ()
        skipped = [name for name, split in zip(index.shards, named, strict=True) if split is None]
        notes = (f"skipped {counted(len(skipped), 'shard')} of no split: {first_few(skipped)}",) if skipped else ()
        numbers = [_NO_SPLIT if split is None else SPLITS.index(split) for split in named]
        return "lists" if any(self.lists.values()) else "names", _by_item(index, numbers), notes

    def _by_shard(self, index: Index, place: str) -> list[str | None] | None:
        """The split of each shard; None where all are for training."""
        patterns = {name: pattern for name, pattern in self.lists.items() if pattern}
        if not patterns:
            found = [_split_in(name) for name in index.shards]
            return found if any(found) else None
        named: list[str | None] = []
        for shard in index.shards:
            fitting = [name for name, pattern in patterns.items() if fnmatch.fnmatchcase(shard, pattern)]
            if len(fitting) > 1:
                raise DataError(
                    f"{place}: shard {shard} fits data.{fitting[0]} and data.{fitting[1]}",
                    next_step=f"use a narrower pattern: --set data.{fitting[1]}=PATTERN",
                )
            named.append(fitting[0] if fitting else None if "train" in patterns else "train")
        for name, pattern in patterns.items():
            if name not in named:
                raise DataError(
                    f"{place}: no shard fits data.{name} = {pattern}; there are {first_few(index.shards)}",
                    next_step=f"use another pattern: --set data.{name}=PATTERN",
                )
        return named

    def _take(self, index: Index, given: NDArray[np.uint8], part: slice, shares: Mapping[str, float]) -> None:
        """Move shares of the items of train in `part` to other splits: items of one group or content together."""
        drawn, train, first = self._drawn(index, part), given[part] == 0, 0.0
        for name, share in shares.items():
            given[part][train & (drawn >= first) & (drawn < first + share)] = SPLITS.index(name)
            first += share

    def _drawn(self, index: Index, part: slice) -> NDArray[np.float64]:
        """A number from 0 to 1 for each item in `part`."""
        import numpy as np

        keys = index.arrays["content"][part]
        if self.group:
            column = index.columns[self.group]
            hashes = np.array([_hash(str(value)) for value in column.values] + [0], dtype=np.uint32)
            codes = column.codes[part]
            keys = np.where(codes == ABSENT, keys, hashes[np.minimum(codes, len(hashes) - 1)])
        return _mixed(keys, self.seed)


def _places(given: NDArray[np.uint8], number: int, kind: type[np.unsignedinteger[Any]]) -> NDArray[Any]:
    """Where `given` has this number."""
    import numpy as np

    return np.concatenate(
        [(np.flatnonzero(given[part] == number) + part.start).astype(kind) for part in _pieces(given)]
    )


def _pieces(given: NDArray[np.uint8]) -> list[slice]:
    """Parts of so few items that what is computed of one takes little memory."""
    return [slice(start, start + _AT_A_TIME) for start in range(0, max(len(given), 1), _AT_A_TIME)]


def _mixed(keys: NDArray[np.uint32], seed: int) -> NDArray[np.float64]:
    """Numbers from 0 to 1 by SplitMix64 (Steele, Lea and Flood 2014), of which each depends on key and seed alone."""
    import numpy as np

    state = keys.astype(np.uint64) | (np.uint64(_hash(f"split {seed}")) << np.uint64(32))
    state += np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    shares: NDArray[np.float64] = ((state ^ (state >> np.uint64(31))) >> np.uint64(40)).astype(np.float64) * 2.0**-24
    return shares


def _hash(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=4).digest()
    return int.from_bytes(digest, "little")


def _split_in(name: str) -> str | None:
    """The split that the name of a shard, or of its folder, begins with."""
    folder, _, file = name.rpartition("/")
    for text in (file, folder.rpartition("/")[2]):
        match = re.match(r"[a-z]+(?![a-z])", text.lower())
        if match and match[0] in WORDS:
            return WORDS[match[0]]
    return None


def _by_item(index: Index, of_shards: list[int]) -> NDArray[np.uint8]:
    import numpy as np

    of_blocks = np.array(of_shards, np.uint8)[index.arrays["shard"]]
    return np.repeat(of_blocks, index.arrays["items"])


def _by_column(index: Index, place: str, name: str) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    import numpy as np

    column = index.columns[name]
    known = [WORDS.get(str(value).lower()) for value in column.values]
    if not any(known):
        raise DataError(
            f"{place}: column {name} holds no split: {first_few([str(value) for value in column.values])}",
            next_step="use a column of train, valid and test, or data.group with data.valid_share and data.test_share",
        )
    numbers = np.array([_NO_SPLIT if split is None else SPLITS.index(split) for split in known] + [_NO_SPLIT], np.uint8)
    given = numbers[np.minimum(column.codes, len(numbers) - 1)]
    outside = int((given == _NO_SPLIT).sum())
    return given, ((f"skipped {counted(outside, index.medium)} of no split in column {name}",) if outside else ())
