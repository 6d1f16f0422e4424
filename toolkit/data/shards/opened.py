"""The index of the shards at a place: from a file, from the cache, or of local shards made now."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from toolkit.api.errors import DataError
from toolkit.api.files import exclusive
from toolkit.data.shards.index import Index, read_index, usual_place, write_index
from toolkit.data.shards.places import Shard, ShardKind, find_shards, is_local, settled
from toolkit.data.shards.scan import scan

USUAL_LABEL: dict[ShardKind, str] = {"tar": "cls", "parquet": "label"}
"""The column of labels where none is named."""


def open_index(place: str, columns: Sequence[str], *, content: str = "", file: Path | None = None) -> Index:
    """The index of the shards at a path or URL, with these columns; an empty name means the usual one of labels.

    It is `file`, or else the one that `make_index` has kept. An index of local shards is made if it is missing.

    Raises DataError where it is missing or lacks a column.
    """
    place = settled(place)
    if file is not None:
        index = read_index(file)
        if missing := [name for name in named(columns, index.kind) if name not in index.columns]:
            raise DataError(
                f"has no column {missing[0]}",
                path=file,
                next_step=f"{command(place, columns, content)} --output {shlex.quote(str(file))} --force",
            )
        return index
    if is_local(place):
        return read_index(make_index(place, columns, content=content))
    kept = usual_place(place, columns, content)
    if not kept.is_file():
        raise DataError(f"{place}: not indexed yet", next_step=command(place, columns, content))
    return read_index(kept)


def make_index(
    place: str,
    columns: Sequence[str],
    *,
    content: str = "",
    output: Path | None = None,
    force: bool = False,
    progress: Callable[[Shard], None] = lambda _: None,
) -> Path:
    """Index the shards at a path or URL into `output`, or into the cache; returns the file.

    What is there stays, unless `force`. An index of local shards in the cache is made again once they change.

    Raises DataError as `scan` does.
    """
    place = settled(place)
    shards = find_shards(place)
    path = output or usual_place(place, columns, content, shards if is_local(place) else None)
    path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(path.with_name(f".{path.name}.lock")):
        if force or not path.is_file():
            write_index(scan(shards, named(columns, shards.kind), content=content, progress=progress), path)
    return path


def named(columns: Sequence[str], kind: ShardKind) -> list[str]:
    """The columns by name."""
    return list(dict.fromkeys(name or USUAL_LABEL[kind] for name in columns))


def command(place: str, columns: Sequence[str], content: str) -> str:
    """The command that makes an index of these columns."""
    words = ["python", "-m", "toolkit", "data", "index", place]
    for name in columns:
        words += ["--column", name] if name or len(columns) > 1 else []
    return shlex.join([*words, *(["--content", content] if content else [])])
