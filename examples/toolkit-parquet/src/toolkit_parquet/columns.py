"""What the columns of a Parquet file hold: encoded images, and labels with their names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from toolkit.api.errors import DataError, nearest


@dataclass(frozen=True)
class Columns:
    """The names of the two columns that are read."""

    image: str
    """`datasets` writes a struct of the encoded image, `bytes`, and its `path`; plain binary is taken too."""
    label: str
    """Class indices, whose names are in the file's metadata where `datasets` knows them, or texts."""


@dataclass(frozen=True)
class Labels:
    """The labels of one file."""

    values: tuple[int | str | None, ...]
    """One a row; None where it has none."""
    names: tuple[str, ...] | None
    """Class names, by index; None where the file has none."""


@contextmanager
def opened(path: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file for reading; DataError naming it where it is damaged or cannot be read."""
    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise DataError(f"cannot be read: {reason}", path=path, next_step="fetch or write the file again") from error


def read_labels(path: Path, columns: Columns) -> Labels:
    """The label of each row. Raises DataError where a column is absent or holds something else."""
    with opened(path) as file:
        schema = file.schema_arrow
        _check(path, schema, "image", columns.image, _is_image(schema, columns.image))
        _check(path, schema, "label", columns.label, _is_label(schema, columns.label))
        names = _class_names(schema, columns.label)
        values = file.read(columns=[columns.label]).column(0).to_pylist()
    return Labels(tuple(values) if names is None else tuple(_named(path, columns.label, values, names)), names)


def _named(path: Path, column: str, values: Sequence[int | str | None], names: Sequence[str]) -> Iterator[str | None]:
    """The class name of each label; `datasets` writes -1 where it is unknown."""
    known: dict[int | str | None, str | None] = {None: None, -1: None}
    known.update(enumerate(names))
    known.update(zip(names, names, strict=True))
    for row, value in enumerate(values):
        if value in known:
            yield known[value]
        else:
            what = f"row {row}: column {column} holds {value}, expected one of its {len(names)} classes"
            raise DataError(what, path=path, next_step="write the file again")


def read_images(file: pq.ParquetFile, row_group: int, column: str) -> pa.ChunkedArray:
    """The encoded images of a row group, as binary; null where a row has none."""
    field = file.schema_arrow.field(column)
    name = f"{column}.bytes" if pa.types.is_struct(field.type) else column
    found = file.read_row_group(row_group, columns=[name]).column(0)
    return pc.struct_field(found, "bytes") if pa.types.is_struct(field.type) else found


def _is_image(schema: pa.Schema, name: str) -> bool:
    if name not in schema.names:
        return False
    held = schema.field(name).type
    if pa.types.is_struct(held):
        return bool(held.get_field_index("bytes") >= 0)
    return bool(pa.types.is_binary(held) or pa.types.is_large_binary(held))


def _is_label(schema: pa.Schema, name: str) -> bool:
    if name not in schema.names:
        return False
    held = schema.field(name).type
    held = held.value_type if pa.types.is_dictionary(held) else held
    return bool(pa.types.is_integer(held) or pa.types.is_string(held) or pa.types.is_large_string(held))


def _check(path: Path, schema: pa.Schema, key: str, name: str, fits: bool) -> None:
    """Raise DataError, naming columns that would fit, unless this one exists and fits."""
    if fits:
        return
    held = f"holds {schema.field(name).type}, no {key}s" if name in schema.names else "is not there"
    able = [other for other in schema.names if {"image": _is_image, "label": _is_label}[key](schema, other)]
    meant = able[0] if len(able) == 1 else nearest(name, able)
    raise DataError(
        f"column {name} {held}; the columns are {', '.join(schema.names)}",
        path=path,
        next_step=f"--set data.{key}={meant or 'COLUMN'}",
    )


def _class_names(schema: pa.Schema, label: str) -> tuple[str, ...] | None:
    """What `datasets` wrote into the metadata of the file, if it did."""
    written = (schema.metadata or {}).get(b"huggingface")
    found: Any = json.loads(written) if written else None
    for key in ("info", "features", label, "names"):
        found = found.get(key) if isinstance(found, dict) else None
    return tuple(map(str, found)) if isinstance(found, Sequence) and found else None
