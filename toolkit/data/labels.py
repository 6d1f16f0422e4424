"""What tables say of items: one class each, sets of classes, or numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from toolkit.api.answers import SEPARATOR
from toolkit.api.contracts import TargetForm, Targets
from toolkit.api.errors import DataError
from toolkit.data.tables import Table, open_table

LabelsOfItem: TypeAlias = Literal["one", "several"]
"""How many labels an item has: one, or any number, none among them."""
SEVERAL = 'For several labels an item, all in one line, set data.labels = "several".'
"""The next step where a table looks as if items had several."""
_COLUMNS = ("labels", "label")
_SEPARATORS = (SEPARATOR, ";", ",")
_SHOWN = {"1": True, "1.0": True, "0": False, "0.0": False}


class Labelled(NamedTuple):
    """A row of a table."""

    line: int
    item: str
    labels: tuple[str, ...]
    """In order of name, each once; or the numbers, in the order of their columns."""


class LabelTable(NamedTuple):
    """The rows of a table, and the classes that it has a column for, where it has one a class."""

    rows: list[Labelled]
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelForm:
    """How tables write the target of an item."""

    labels: LabelsOfItem = "one"
    separator: str | None = None
    """Stands between the labels of one item; None: `SEPARATOR`."""
    numbers: tuple[str, ...] = ()
    """The columns that hold numbers, where these are the target."""

    def __post_init__(self) -> None:
        if self.separator and not self.several:
            raise ValueError('separator: needs data.labels = "several", got "one"')
        if self.numbers and self.several:
            raise ValueError('numbers: cannot be combined with data.labels = "several"')
        if len({name.lower() for name in self.numbers}) < len(self.numbers):
            raise ValueError(f"numbers: names a column twice: {', '.join(self.numbers)}")

    @property
    def several(self) -> bool:
        return self.labels == "several"

    @property
    def form(self) -> TargetForm:
        return "number" if self.numbers else "set" if self.several else "index"

    def split(self, cell: str) -> tuple[str, ...]:
        """The labels in a cell."""
        return tuple(sorted({part.strip() for part in cell.split(self.separator or SEPARATOR)} - {""}))

    def read(self, file: Path, names: Sequence[str]) -> LabelTable:
        """The rows of a CSV file with a column called as one of `names`, which holds paths.

        One label an item is in the column label. Several are in the column labels (or label), with the separator
        between them; or there is a column for each class that holds 1 or 0. An item may then have no label. Numbers
        stand in the columns that `numbers` names. Raises DataError, naming file and line, where the table has another
        form.
        """
        table = open_table(file)
        header = [name.lower() for name in table.header]
        name = next((name for name in names if name in header), names[0])
        if self.numbers:
            cells = table.select((name, *(column.lower() for column in self.numbers)))
            return LabelTable([Labelled(line, item, _numbers(table, line, texts)) for line, (item, *texts) in cells])
        column = next((column for column in _COLUMNS if column in header), None)
        if self.several:
            if column is None and name in header:
                return _read_columns(table, header.index(name))
            cells = table.select((name, column or _COLUMNS[0]), may_be_empty=_COLUMNS)
            self._check_separator(table, column or _COLUMNS[0], [(line, cell) for line, (_, cell) in cells])
            return LabelTable([Labelled(line, item, self.split(cell)) for line, (item, cell) in cells])
        if "label" not in header and (column or (name in header and _has_class_columns(table, header.index(name)))):
            raise DataError(
                f"line 1: the header has no column label; it reads {table.said}",
                path=file,
                next_step=f"Make the first line {name},label. {SEVERAL}",
            )
        cells = table.select((name, "label"))
        if found := _joined([(line, cell) for line, (_, cell) in cells], (SEPARATOR, ";")):
            line, cell, separator = found
            also = "" if separator == SEPARATOR else f' and data.separator = "{separator}"'
            raise DataError(
                f"line {line}: {cell} looks like several labels",
                path=file,
                next_step=f"{SEVERAL.removesuffix('.')}{also}; or rename the class.",
            )
        return LabelTable([Labelled(line, item, (label,)) for line, (item, label) in cells])

    def _check_separator(self, table: Table, column: str, cells: Sequence[tuple[int, str]]) -> None:
        own = self.separator or SEPARATOR
        if any(own in cell for _, cell in cells):
            return
        if found := _joined(cells, _SEPARATORS):
            line, cell, separator = found
            raise DataError(
                f'line {line}: {cell} looks like several labels, but no value of {column} holds "{own}"',
                path=table.path,
                next_step=f'Set data.separator = "{separator}".',
            )


ONE_LABEL = LabelForm()


def number_labels(
    labels: Sequence[tuple[str, ...]], form: LabelForm, columns: Iterable[str] = ()
) -> tuple[tuple[str, ...], Targets]:
    """Classes and targets of N items: the number of the one class of each, or all numbers of its set, ascending.

    Classes are in order of name, or if all are numbers, in order of these. `columns` names further ones, which no item
    need show. Where items have numbers, the classes are the columns of these.
    """
    if form.numbers:
        return form.numbers, tuple(tuple(map(float, one)) for one in labels)
    names = {*columns, *(label for one in labels for label in one)}
    numeric = all(name.isdecimal() for name in names)
    classes = tuple(sorted(names, key=int if numeric else None))
    numbers = {label: number for number, label in enumerate(classes)}
    sets = [tuple(sorted(numbers[label] for label in one)) for one in labels]
    return classes, tuple(sets) if form.several else tuple(number for (number,) in sets)


def _numbers(table: Table, line: int, texts: Sequence[str]) -> tuple[str, ...]:
    """Finite numbers, each number written in one way."""
    try:
        found = [float(text) for text in texts]
    except ValueError:
        found = []
    if not found or not all(map(math.isfinite, found)):
        raise DataError(
            f"line {line}: expected numbers, got {', '.join(texts)}",
            path=table.path,
            next_step="Write finite numbers with a decimal point, or remove the line.",
        )
    return tuple(map(repr, found))


def _read_columns(table: Table, place: int) -> LabelTable:
    """A table with a column for each class."""
    columns = [(number, name) for number, name in enumerate(table.header) if number != place]
    names = [name for _, name in columns]
    step = "Name the column after a class, or remove it; or write all labels of an item into one column labels."
    if not columns:
        raise DataError("line 1: the header has no column labels", path=table.path, next_step=step)
    odd = next((number for number, name in columns if not name or names.count(name) > 1), None)
    if odd is not None:
        what = f"has the same name as another, {table.header[odd]}" if table.header[odd] else "has no name"
        raise DataError(f"line 1: column {odd + 1} {what}", path=table.path, next_step=step)
    rows = []
    for line, row in table.rows:
        if not row[place]:
            message = f"line {line}: {table.header[place]} is empty"
            raise DataError(message, path=table.path, next_step="Fill it in, or remove the line.")
        for number, name in columns:
            if row[number] not in _SHOWN:
                got = row[number] or "nothing"
                message = f"line {line}: column {name} must hold 1 or 0 for each item, got {got}"
                raise DataError(message, path=table.path, next_step=step)
        labels = tuple(sorted(name for number, name in columns if _SHOWN[row[number]]))
        rows.append(Labelled(line, row[place], labels))
    return LabelTable(rows, tuple(names))


def _has_class_columns(table: Table, place: int) -> bool:
    """Whether the table looks as if it had a column for each class."""
    cells = [cell for _, row in table.rows for number, cell in enumerate(row) if number != place]
    return bool(cells) and all(cell in _SHOWN for cell in cells)


def _joined(cells: Sequence[tuple[int, str]], separators: Iterable[str]) -> tuple[int, str, str] | None:
    """The first cell, with its line and separator, that looks like several labels: a part of it is a label, or a part
    of one, in other cells too."""
    for separator in separators:
        parts = {cell: {part.strip() for part in cell.split(separator)} - {""} for _, cell in cells}
        counts = Counter(part for found in parts.values() for part in found)
        for line, cell in cells:
            if separator in cell and any(counts[part] > 1 for part in parts[cell]):
                return line, cell, separator
    return None
