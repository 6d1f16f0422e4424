"""Reading the small text files that come with a dataset: CSV, and lists of lines.

Spreadsheets and systems write them in several ways, and all of these are read: UTF-8 with or without a byte order
mark, UTF-16 with one, any ends of lines, and commas, semicolons or tabs between the values. Text is in Unicode's normal
form C, so that names compare as they look.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from toolkit.api.errors import DataError, counted, first_few
from toolkit.api.files import read_regular
from toolkit.data.names import normal
from toolkit.data.regular import require_regular

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before that of UTF-16, with which it begins
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
PATH_COLUMNS = ("path", "filename")
"""What the column of a table is called that names files."""
_LISTS = frozenset({".csv", ".tsv", ".txt"})
_SAVE = "Save the file as UTF-8."


class Table(NamedTuple):
    """A CSV file: the names in its first line, and its other rows, each with the number of its line."""

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    separator: str = ","
    """Stands between the values."""

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
                next_step=f"Make the first line {self.separator.join(columns)}",
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
        return self.separator.join(self.header) or "(nothing)"


def open_table(path: Path) -> Table:
    """The CSV file at `path`, without blanks around values; blank lines are skipped, and rows that end early are filled
    with empty values. Raises DataError naming the file, and the line where there is one, when it cannot be read or a
    row has more values than the header."""
    return _parsed(path, _read(path))


def _parsed(path: Path, text: str) -> Table:
    separator, before = _separator_of(text)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    try:
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except csv.Error as error:
        raise DataError(f"line {reader.line_num}: is not CSV: {error}", path=path) from error
    _, header = rows[before] if len(rows) > before else (0, [])
    filled = tuple(_filled(path, line, row, len(header), separator) for line, row in rows[before + 1 :])
    return Table(path, tuple(header), filled, separator)


def _filled(path: Path, line: int, row: Sequence[str], columns: int, separator: str) -> tuple[int, tuple[str, ...]]:
    """A row with a value for each column."""
    if any(row[columns:]):
        raise DataError(
            f"line {line}: has {counted(len(row), 'value')}, the header names {counted(columns, 'column')}",
            path=path,
            next_step=f"Put values that hold {_SEPARATORS[separator]} in quotes, or name all columns in line 1.",
        )
    return line, tuple((*row, *[""] * columns)[:columns])


def read_header(path: Path) -> tuple[str, ...]:
    """The values of the first line that is not blank, whether this is a table or a list. Raises DataError where the
    file cannot be read."""
    return _header(_read(path))


def _header(text: str) -> tuple[str, ...]:
    separator, before = _separator_of(text)
    lines = (line for _, line in lines_of(text) if line.strip())
    with suppress(csv.Error):  # a list of lines holds any text
        row = next(islice(csv.reader(lines, delimiter=separator), before, None), [])
        return tuple(cell.strip() for cell in row)
    return ()


def _separator_of(text: str) -> tuple[str, int]:
    """What stands between values, and how many rows say so: of the separators the one that is most often in the header,
    outside of quotes; or the one in a first line `sep=;`, as spreadsheets write it."""
    first = re.split(r"[\r\n]", text.lstrip("\r\n"), maxsplit=1)[0].strip(" ")
    if first.lower().startswith("sep=") and first[4:] in _SEPARATORS:
        return first[4:], 1
    outside = "".join(first.split('"')[::2])
    return max(_SEPARATORS, key=outside.count), 0


def read_table(
    path: Path, columns: Sequence[str], *, may_be_empty: Collection[str] = ()
) -> list[tuple[int, tuple[str, ...]]]:
    """The rows of a CSV file as (line number, values of `columns`); blank lines are passed over.

    The header names the columns, in any order; others are ignored. Raises DataError naming the file, and the line where
    there is one, when it cannot be read, lacks a column, or a row lacks a value of another column than `may_be_empty`.
    """
    return open_table(path).select(columns, may_be_empty=may_be_empty)


def read_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a text file as (line number, text without blanks around it); blank ones are passed over. Raises
    DataError naming the file, and the line where there is one, when it cannot be read."""
    return [(number, line.strip()) for number, line in lines_of(_read(path)) if line.strip()]


def paths_of(data: bytes, source: Path) -> list[str]:
    """The paths that a list names: those in the column path, or filename, of a table; else each line as it is. Bytes
    that are not UTF-8 are kept as Python passes them in paths. Raises DataError naming `source` and the line where the
    list is not text, or not a table."""
    try:
        text = decoded(data, errors="surrogateescape")
    except ValueError as error:
        raise DataError(str(error), path=source, next_step=_SAVE) from error
    header = {name.lower() for name in _header(text)}
    column = next((name for name in PATH_COLUMNS if name in header), None)
    if column is None:
        return [line for _, line in lines_of(text) if line]
    return [path for _, (path,) in _parsed(source, text).select([column])]


def lines_of(text: str) -> list[tuple[int, str]]:
    """The lines of a text, whatever ends them, each with its number from 1."""
    return [*enumerate((line.rstrip("\r\n") for line in io.StringIO(text, newline="")), start=1)]


def decoded(data: bytes, *, errors: str = "strict") -> str:
    """The text that `data` holds: UTF-8, or what its byte order mark names. `errors` is what becomes of bytes that are
    not UTF-8. Raises ValueError `line 3: reason`."""
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding, errors if encoding == "utf-8" else "strict")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        name = encoding.removesuffix("-sig").upper()
        raise ValueError(f"line {line}: is not {name}: {error.reason}") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(f"line {line}: is not text: it holds a zero byte, as UTF-16 without a byte order mark does")
    return text


def _read(path: Path) -> str:
    require_regular(path)
    try:
        return normal(decoded(read_regular(path)))
    except ValueError as error:
        raise DataError(str(error), path=path, next_step=_SAVE) from error
    except FileNotFoundError as error:
        raise DataError("file not found", path=path, next_step=_there(path)) from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path=path) from error


def _there(missing: Path) -> str:
    """What to do, with the tables and lists that the folder of a missing one has."""
    names = sorted(path.name for path in missing.parent.glob("*") if path.suffix.lower() in _LISTS)
    return f"Correct its name; the folder has {first_few(names)}." if names else "Correct its name, or write this file."
