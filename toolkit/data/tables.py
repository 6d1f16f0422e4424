"""Reading the small text files that come with a dataset: CSV, and lists of lines."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from toolkit.api.errors import DataError

_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs"}


def read_table(path: Path, columns: Sequence[str]) -> list[tuple[int, tuple[str, ...]]]:
    """The rows of a CSV file in UTF-8 as (line number, values of `columns`); blank lines are passed over.

    The header names the columns, in any order and beside others. Raises DataError naming the file, and the line where
    there is one, when it cannot be read, lacks a column, or a row lacks a value.
    """
    with _opened(path) as file:
        reader = csv.reader(file, strict=True)
        try:
            places = _places(path, next(reader, []), columns)
            return [(reader.line_num, _values(path, reader.line_num, row, places, columns)) for row in reader if row]
        except csv.Error as error:
            raise DataError(f"line {reader.line_num}: is not CSV: {error}", path=path) from error


def read_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a text file in UTF-8 as (line number, text without blanks around it); blank ones are passed over.
    Raises DataError naming the file when it cannot be read."""
    with _opened(path) as file:
        return [(number, line.strip()) for number, line in enumerate(file, start=1) if line.strip()]


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError as error:
        raise DataError(f"is not UTF-8: {error.reason}", path=path, next_step="Save the file as UTF-8.") from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path=path) from error


def _places(path: Path, header: Sequence[str], columns: Sequence[str]) -> list[int]:
    names = [name.strip().lower() for name in header]
    missing = [column for column in columns if column not in names]
    if missing:
        raise DataError(
            f"line 1: the header has no column {', '.join(missing)}; it reads {','.join(header) or '(nothing)'}",
            path=path,
            next_step=_header_step(header, columns),
        )
    return [names.index(column) for column in columns]


def _header_step(header: Sequence[str], columns: Sequence[str]) -> str:
    for separator, words in _OTHER_SEPARATORS.items():
        if len(header) == 1 and separator in header[0]:
            return f"Separate the values by commas, not by {words}."
    return f"Make the first line {','.join(columns)}"


def _values(
    path: Path, line: int, row: Sequence[str], places: Sequence[int], columns: Sequence[str]
) -> tuple[str, ...]:
    values = tuple(row[place].strip() if place < len(row) else "" for place in places)
    for column, value in zip(columns, values, strict=True):
        if not value:
            raise DataError(f"line {line}: {column} is empty", path=path, next_step="Fill it in, or remove the line.")
    return values
