"""The index of shards: where each item lies, and what is known of it. Written once, then mapped into memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from toolkit.api.errors import DataError
from toolkit.api.files import cache_directory, replaced
from toolkit.data.shards.places import ShardKind, Shards

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

FORMAT = 2
ABSENT = 0xFFFFFFFF
"""The code of an item that has nothing in a column."""
SUFFIX = ".index"
Value: TypeAlias = int | str
Medium: TypeAlias = Literal["image", "video"]


@dataclass(frozen=True)
class Column:
    """What N items have in one column."""

    codes: NDArray[np.uint32]
    """`[N]`: which of the values, or `ABSENT`."""
    values: tuple[Value, ...]
    names: tuple[str, ...] | None = None
    """Names of the classes that values count, where the files have them."""


@dataclass(frozen=True)
class Index:
    """N images, or N videos, in the blocks of shards. Arrays may be mapped from a file."""

    kind: ShardKind
    base: str
    """Where the shards were when the index was written."""
    shards: tuple[str, ...]
    medium: Medium
    """What each item is."""
    content: str
    """Of Parquet files, the column of encoded images or videos."""
    side: int | None
    """Median of the short sides of some items, in pixels; None where none could be read."""
    notes: tuple[str, ...]
    columns: Mapping[str, Column]
    arrays: Mapping[str, NDArray[Any]]
    """Of blocks: `shard`, `start` (of tars the first byte, else the row group), `bytes`, `items`, and `digest`, their
    BLAKE2b `[blocks, 16]`. Of items: `offset` in the block, `length`, `content` (a hash), `name_end`; and `names`."""

    def __len__(self) -> int:
        return len(self.arrays["offset"])

    @cached_property
    def block_ends(self) -> NDArray[np.int64]:
        """`[blocks]`: the item after the last of each."""
        import numpy as np

        return np.cumsum(self.arrays["items"], dtype=np.int64)

    def shard_of(self, block: int) -> str:
        return self.shards[int(self.arrays["shard"][block])]

    def digest_of(self, block: int) -> str:
        return bytes(self.arrays["digest"][block]).hex()

    def block_of(self, item: int) -> int:
        import numpy as np

        return int(np.searchsorted(self.block_ends, item, side="right"))

    def name_of(self, item: int) -> str:
        """The shard and the name in it: `train-000.tar:00017`."""
        ends = self.arrays["name_end"]
        name = bytes(self.arrays["names"][int(ends[item - 1]) if item else 0 : int(ends[item])])
        return f"{self.shard_of(self.block_of(item))}:{name.decode('utf-8', 'backslashreplace')}"


def usual_place(shards_at: str, columns: Iterable[str], content: str, files: Shards | None = None) -> Path:
    """The file in the cache directory that an index of these columns is kept in. Of local `files` it is another one
    once any of them changes."""
    found = [(one.name, one.size, one.changed) for one in files.files] if files else []
    decided = json.dumps([FORMAT, shards_at.rstrip("/"), sorted(columns), content, found])
    name = hashlib.blake2b(decided.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    return cache_directory() / "indexes" / f"{name}{SUFFIX}"


def write_index(index: Index, path: Path) -> None:
    """Write an index, whole or not at all."""
    from safetensors.numpy import save_file

    described = {
        "format": FORMAT,
        "kind": index.kind,
        "base": index.base,
        "shards": index.shards,
        "medium": index.medium,
        "content": index.content,
        "side": index.side,
        "notes": index.notes,
        "columns": {name: {"values": one.values, "names": one.names} for name, one in index.columns.items()},
    }
    arrays = {**index.arrays, **{f"column {name}": column.codes for name, column in index.columns.items()}}
    with replaced(path) as temporary:
        save_file(dict(arrays), temporary, metadata={"toolkit": json.dumps(described)})


def read_index(path: Path) -> Index:
    """Map an index into memory. Raises DataError where it is damaged or of another version."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:  # torch's tensors share the mapped memory, NumPy's are copies
            described = json.loads((file.metadata() or {}).get("toolkit", "{}"))
            arrays = {name: file.get_tensor(name).numpy() for name in file.keys()}  # noqa: SIM118 - not a mapping
        if described.get("format") != FORMAT:
            raise _unusable(path, "of another version" if described else "not an index of shards")
        columns = {
            name: Column(arrays.pop(f"column {name}"), tuple(one["values"]), _names(one["names"]))
            for name, one in described["columns"].items()
        }
        return Index(
            kind=described["kind"],
            base=described["base"],
            shards=tuple(described["shards"]),
            medium=described["medium"],
            content=described["content"],
            side=described["side"],
            notes=tuple(described["notes"]),
            columns=columns,
            arrays=arrays,
        )
    except FileNotFoundError as error:
        raise DataError("not found", path=path, next_step="python -m toolkit data index URL") from error
    except DataError:
        raise
    except Exception as error:  # a damaged file makes the reader raise almost anything
        raise _unusable(path, f"damaged: {str(error).partition(chr(10))[0]}") from error


def _names(found: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if found is None else tuple(found)


def _unusable(path: Path, what: str) -> DataError:
    return DataError(what, path=path, next_step="write it again: python -m toolkit data index URL --force")
