"""Reading the small text files that come with a dataset: CSV, and lists of lines."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TextIO

from toolkit.api.errors import DataError, counted
from toolkit.data.regular import require_regular

_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs"}


class Table(NamedTuple):
    """A CSV file: the names in its first line, and its other rows, each with the number of its line."""

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]

    def select(
        self, columns: Sequence[str], *, may_be_empty: Collection[str] = ()
    ) -> list[tuple[int, tuple[str, ...]]]:
        """The rows as (line number, values of `columns`). Case of a column's name means nothing. Raises DataError that
        names the line where a column is missing, or a value that must not be empty is."""
        names = [name.lower() for name in self.header]
        if missing := [column for column in columns if column not in names]:
            raise DataError(
                f"line 1: the header has no column {', '.join(missing)}; it reads {self.said}",
                path=self.path,
                next_step=_header_step(self.header, columns),
            )
        places = [names.index(column) for column in columns]
        chosen = [(line, tuple(row[place] for place in places)) for line, row in self.rows]
        for line, values in chosen:
            for column, value in zip(columns, values, strict=True):
                if not value and column not in may_be_empty:
                    message = f"line {line}: {column} is empty"
                    raise DataError(message, path=self.path, next_step="Fill it in, or remove the line.")
        return chosen

    @property
    def said(self) -> str:
        """The first line."""
        return ",".join(self.header) or "(nothing)"


def open_table(path: Path) -> Table:
    """The CSV file in UTF-8 at `path`, without blanks around values; blank lines are skipped, and rows that end early
    are filled with empty values. Raises DataError naming the file, and the line where there is one, when it cannot be
    read or a row has more values than the header."""
    with _opened(path) as file:
        reader = csv.reader(file, strict=True)
        try:
            header = tuple(name.strip() for name in next(reader, []))
            read = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
        except csv.Error as error:
            raise DataError(f"line {reader.line_num}: is not CSV: {error}", path=path) from error
    rows = []
    for line, row in read:
        if any(row[len(header) :]):
            raise DataError(
                f"line {line}: has {counted(len(row), 'value')}, the header names {counted(len(header), 'column')}",
                path=path,
                next_step='Put a value that holds commas in quotes ("a, b"), or name all columns in the first line.',
            )
        rows.append((line, tuple((*row, *[""] * len(header))[: len(header)])))
    return Table(path, header, tuple(rows))


def read_table(
    path: Path, columns: Sequence[str], *, may_be_empty: Collection[str] = ()
) -> list[tuple[int, tuple[str, ...]]]:
    """The rows of a CSV file in UTF-8 as (line number, values of `columns`); blank lines are passed over.

    The header names the columns, in any order; others are ignored. Raises DataError naming the file, and the line where
    there is one, when it cannot be read, lacks a column, or a row lacks a value of another column than `may_be_empty`.
    """
    return open_table(path).select(columns, may_be_empty=may_be_empty)


def read_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a text file in UTF-8 as (line number, text without blanks around it); blank ones are passed over.
    Raises DataError naming the file when it cannot be read."""
    with _opened(path) as file:
        return [(number, line.strip()) for number, line in enumerate(file, start=1) if line.strip()]


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    require_regular(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError as error:
        raise DataError(f"is not UTF-8: {error.reason}", path=path, next_step="Save the file as UTF-8.") from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path=path) from error


def _header_step(header: Sequence[str], columns: Sequence[str]) -> str:
    for separator, words in _OTHER_SEPARATORS.items():
        if len(header) == 1 and separator in header[0]:
            return f"Separate the values by commas, not by {words}."
    return f"Make the first line {','.join(columns)}"
