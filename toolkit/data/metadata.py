"""What a CSV says about the items of a dataset (light, camera, hospital), so that scores can be given by it.

No score changes by it, so the protocol does not mention it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from toolkit.api.contracts import Data
from toolkit.api.errors import DataError, first_few
from toolkit.data.columns import BRIGHTNESS, SIZE, SOURCE
from toolkit.data.review import ITEM, check_known
from toolkit.data.splits import SPLITS
from toolkit.data.tables import Table, open_table
from toolkit.data.videos import FramesOf


def with_metadata(data: Data, file: Path | None) -> Data:
    """`data` with the columns of `file` in `Data.metadata`; empty values say nothing of an item.

    file: a CSV with a column `item` and at least one other. Where items are frames of videos, it names videos.

    Raises DataError naming the file, and the line where there is one, where it cannot be read, names an item that the
    data does not have, or names one twice.
    """
    if file is None:
        return data
    frames = _frames(data)
    table = open_table(file)
    columns = _columns(table, min(frames, default=None))
    place = [name.lower() for name in table.header].index(ITEM)
    check_known(table, [(line, values[place]) for line, values in table.rows], frames.keys())
    _check_once(table, place)
    read = {
        name: {item: values[at] for _, values in table.rows if values[at] for item in frames[values[place]]}
        for name, at in columns.items()
    }
    return replace(data, metadata={**data.metadata, **read})


def _frames(data: Data) -> dict[str, tuple[str, ...]]:
    """The items behind each name that a file may have: an item itself, or the frames of a video."""
    found: dict[str, tuple[str, ...]] = {}
    for split in (getattr(data, name) for name in SPLITS):
        found |= _frames_by_video(split) if isinstance(split, FramesOf) else {name: (name,) for name in split.ids}
    return found


def _frames_by_video(split: Any) -> dict[str, tuple[str, ...]]:
    frames, each = split.ids, split.per_video
    return {name: frames[each * at : each * (at + 1)] for at, name in enumerate(split.videos.ids)}


def _columns(table: Table, example: str | None) -> Mapping[str, int]:
    """The place of each column besides `item`, by name."""
    names = [name.lower() for name in table.header]
    if ITEM not in names:
        named = f", such as {example}" if example else ""
        raise DataError(
            f"line 1: the header has no column {ITEM}; it reads {table.said}",
            path=table.path,
            next_step=f"Call the column of the items {ITEM}; names are those of the data{named}.",
        )
    _check_names(table, names)
    columns = {name: place for place, name in enumerate(table.header) if name and names[place] != ITEM}
    if not columns:
        message = f"line 1: the header has no column besides {ITEM}"
        raise DataError(message, path=table.path, next_step=f"Add a column: {ITEM}{table.separator}light")
    return columns


def _check_names(table: Table, names: list[str]) -> None:
    repeated = [name for name, count in Counter(names).items() if name and count > 1]
    if repeated:
        message = f"line 1: several columns are called {first_few(repeated)}"
        raise DataError(message, path=table.path, next_step="Give each column a name of its own.")
    taken = [name for name in names if name in (SOURCE, SIZE, BRIGHTNESS)]
    if taken:
        message = f"line 1: the column {taken[0]} has the name of a slice that scores have in any case"
        raise DataError(message, path=table.path, next_step=f"Rename it, such as my_{taken[0]}.")
    unnamed = [place for place, name in enumerate(names) if not name]
    if unnamed and any(values[place] for _, values in table.rows for place in unnamed):
        message = f"line 1: column {unnamed[0] + 1} has no name"
        raise DataError(message, path=table.path, next_step="Name it, or remove its values.")


def _check_once(table: Table, place: int) -> None:
    first: dict[str, int] = {}
    for line, values in table.rows:
        earlier = first.setdefault(values[place], line)
        if earlier != line:
            message = f"line {line}: names {values[place]} again, after line {earlier}"
            raise DataError(message, path=table.path, next_step="Keep one of the lines.")
