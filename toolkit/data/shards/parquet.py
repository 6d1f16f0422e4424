"""Images or videos in Parquet files: their rows, and what one row group holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from toolkit.api.errors import DataError, first_few
from toolkit.data.kinds import LOOKED_AT, format_of
from toolkit.data.shards.index import Medium, Value
from toolkit.data.shards.part import Part, other_column
from toolkit.data.shards.places import RangeFile, Shard


def scan_parquet(shard: Shard, columns: Sequence[str], *, content: str) -> Part:
    """The rows of a Parquet file that have an image or a video."""
    part = Part()
    with _opened(shard.place, shard.size) as file:
        schema = file.schema_arrow
        part.content = _content_column(shard, schema, content)
        for column in columns:
            _check_column(shard, schema, column)
            if names := _class_names(schema, column):
                part.class_names[column] = names
        row = 0
        for number in range(file.num_row_groups):
            table = file.read_row_group(number, columns=[_leaf(schema, part.content), *columns])
            values = {column: table.column(column).to_pylist() for column in columns}
            contents = _binary(table.column(part.content))
            at = 0
            for place, data in enumerate(contents):
                if data is None:
                    part.skipped["without an image or a video"] += 1
                else:
                    known = {c: _labelled(values[c][place], part.class_names.get(c)) for c in columns}
                    part.add(at, data, str(row), known, _medium(data))
                    at += len(data)
                row += 1
            part.close_block(number, b"".join(data for data in contents if data is not None))
    return part


def read_row_group(place: str, size: int, number: int, content: str) -> bytes:
    """The images or videos of a row group, one behind the other."""
    with _opened(place, size) as file:
        table = file.read_row_group(number, columns=[_leaf(file.schema_arrow, content)])
    return b"".join(data for data in _binary(table.column(content)) if data is not None)


def _opened(place: str, size: int) -> Any:
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DataError(
            "Parquet files need the package pyarrow", next_step='pip install "vision-toolkit[shards]"'
        ) from error
    return pq.ParquetFile(RangeFile(place, size))


def _leaf(schema: Any, content: str) -> str:
    import pyarrow as pa

    return f"{content}.bytes" if pa.types.is_struct(schema.field(content).type) else content


def _medium(data: bytes) -> Medium | None:
    form = format_of(data[:LOOKED_AT])
    return None if form is None else form.kind


def _binary(column: Any) -> list[bytes | None]:
    import pyarrow as pa
    import pyarrow.compute as pc

    found: list[bytes | None] = (
        pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column
    ).to_pylist()
    return found


def _content_column(shard: Shard, schema: Any, asked: str) -> str:
    import pyarrow as pa

    def may_hold_them(name: str) -> bool:
        held = schema.field(name).type
        if pa.types.is_struct(held):
            return bool(held.get_field_index("bytes") >= 0)
        return bool(pa.types.is_binary(held) or pa.types.is_large_binary(held))

    able: list[str] = [name for name in schema.names if may_hold_them(name)]
    fitting = [name for name in able if name == asked or not asked]
    if len(fitting) == 1:
        return fitting[0]
    what = f"column {asked} holds no images or videos" if asked else f"{len(able)} columns may hold images or videos"
    raise DataError(
        f"{shard.place}: {what}; the columns are {first_few(schema.names, 10)}",
        next_step=f"name the column of images or videos: data.content, or --content {able[0] if able else 'COLUMN'}",
    )


def _check_column(shard: Shard, schema: Any, name: str) -> None:
    import pyarrow as pa

    if name in schema.names:
        held = schema.field(name).type
        held = held.value_type if pa.types.is_dictionary(held) else held
        if pa.types.is_integer(held) or pa.types.is_string(held) or pa.types.is_large_string(held):
            return
        what = f"column {name} holds {held}, expected integers or texts"
    else:
        what = f"column {name} not found"
    raise DataError(
        f"{shard.place}: {what}; the columns are {first_few(schema.names, 10)}",
        next_step=other_column(shard.place, name, schema.names),
    )


def _labelled(value: Any, names: tuple[str, ...] | None) -> Value | None:
    """A value; -1 stands for an unknown class where classes have names."""
    if value is None or (names and value == -1):
        return None
    found: Value = value
    return found


def _class_names(schema: Any, column: str) -> tuple[str, ...] | None:
    """What `datasets` of Hugging Face writes into the metadata of a file."""
    written = (schema.metadata or {}).get(b"huggingface")
    found: Any = json.loads(written) if written else None
    for key in ("info", "features", column, "names"):
        found = found.get(key) if isinstance(found, dict) else None
    return tuple(map(str, found)) if isinstance(found, list) and found else None
