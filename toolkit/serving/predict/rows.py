"""Answers as rows: a table on standard output, or a CSV, JSON Lines or Parquet file that is whole or absent."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO, TypeAlias

from toolkit.api.answers import NONE
from toolkit.api.errors import UsageError
from toolkit.api.files import replaced
from toolkit.serving.predict.inputs import Source, printable

Top: TypeAlias = Sequence[tuple[str, float]]
"""Classes with their probabilities, likeliest first."""
SUFFIXES = (".csv", ".jsonl", ".parquet")
"""Of the files that answers can be written to."""
PREDICTION = "prediction"
"""Column of the set of classes, where answers are sets: the same as in a run's predictions.csv."""
MOMENT = ("start", "end")
"""Columns of the seconds of a video that a row is about."""
ROWS_AT_ONCE = 4096
"""Rows of a Parquet file that are held before they are written."""


class Rows(Protocol):
    """Where answers go."""

    def add(self, source: Source, top: Top, label: str | None = None) -> None:
        """`label` is the set of classes that are present, as text; None where an answer is the likeliest class."""


class Table:
    """Aligned columns on standard output, each line as it is known, so that they pipe."""

    def __init__(self, *, width: int, classes: Sequence[str], top: int, sets: bool = False) -> None:
        self._width, self._class_width, self._top = width, max(map(len, classes)), top
        self._sets = sets
        self._titled = False

    def add(self, source: Source, top: Top, label: str | None = None) -> None:
        if not self._titled:
            ranks = [f"top {rank}" for rank in range(1, self._top + 1)]
            self._line("file", [*ranks, PREDICTION] if self._sets else ranks)
            self._titled = True
        cells = [f"{name:<{self._class_width}}  {value:7.2%}" for name, value in top]
        # Last, since a set may be of any width.
        self._line(printable(source.title), cells if label is None else [*cells, label or NONE])

    def _line(self, name: str, cells: Sequence[str]) -> None:
        width = self._class_width + len("  100.00%")
        print("  ".join([f"{name:<{self._width}}", *(f"{cell:<{width}}" for cell in cells)]).rstrip(), flush=True)


class CsvRows:
    def __init__(self, file: TextIO, names: Sequence[str]) -> None:
        self._writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        self._writer.writerow(names)

    def add(self, source: Source, top: Top, label: str | None = None) -> None:
        self._writer.writerow(_values(source, top, label))


class JsonRows:
    def __init__(self, file: TextIO, names: Sequence[str]) -> None:
        self._file, self._columns = file, names

    def add(self, source: Source, top: Top, label: str | None = None) -> None:
        row = dict(zip(self._columns, _values(source, top, label), strict=True))
        self._file.write(json.dumps(row, ensure_ascii=False) + "\n")


class ParquetRows:
    def __init__(self, path: Path, names: Sequence[str]) -> None:
        import pyarrow
        from pyarrow import parquet

        moments, shares = dict.fromkeys(MOMENT, pyarrow.float64()), pyarrow.float32()
        kinds = [moments.get(name, shares if name.startswith("probability") else pyarrow.string()) for name in names]
        self._schema = pyarrow.schema(list(zip(names, kinds, strict=True)))
        self._table: Callable[..., Any] = pyarrow.Table.from_pydict
        self._writer = parquet.ParquetWriter(path, self._schema)
        self._held: list[list[object]] = []

    def add(self, source: Source, top: Top, label: str | None = None) -> None:
        self._held.append(_values(source, top, label))
        if len(self._held) >= ROWS_AT_ONCE:
            self._write()

    def close(self) -> None:
        if self._held:
            self._write()
        self._writer.close()

    def _write(self) -> None:
        held = dict(zip(self._schema.names, map(list, zip(*self._held, strict=True)), strict=True))
        self._writer.write_table(self._table(held, schema=self._schema))
        self._held.clear()


def columns(top: int, *, timed: bool = False, sets: bool = False) -> list[str]:
    """Names of the columns of every format; `timed` rows say which seconds of a video they are about, and where answers
    are `sets`, a column has the classes that are present."""
    before = ["file", *(MOMENT if timed else ()), *([PREDICTION] if sets else ())]
    return [*before, *(f"{kind}_{rank}" for rank in range(1, top + 1) for kind in ("class", "probability"))]


def _values(source: Source, top: Top, label: str | None) -> list[object]:
    moment = [] if source.moment is None else [round(seconds, 3) for seconds in source.moment]
    title = source.title.encode("utf-8", "backslashreplace").decode("utf-8")  # bytes of a name that are no UTF-8
    # Probabilities have the seven digits that float32 holds.
    ranked = (part for name, value in top for part in (name, float(f"{value:.7g}")))
    return [title, *moment, *([] if label is None else [label]), *ranked]


def check_output(output: Path) -> None:
    """Raise UsageError unless answers can be written to `output`."""
    if output.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f'--output {output}: unknown format "{output.suffix}"',
            next_step=f"end the name with {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}",
        )
    if output.is_dir():
        message = f"--output {output}: expected a file, got a folder"
        raise UsageError(message, next_step=f"name a file: {output / 'answers.csv'}")
    if output.suffix.lower() == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401 (whether it is there)
        except ImportError as error:
            raise UsageError(
                f"--output {output}: Parquet files need pyarrow, which is not installed",
                next_step="pip install pyarrow, or write a .csv or .jsonl file",
            ) from error


@contextmanager
def written(output: Path, top: int, *, timed: bool = False, sets: bool = False) -> Iterator[Rows]:
    """Rows of a file that takes its place when the block succeeds, and is never seen otherwise."""
    suffix, names = output.suffix.lower(), columns(top, timed=timed, sets=sets)
    with replaced(output) as temporary:
        if suffix == ".parquet":
            with closing(ParquetRows(temporary, names)) as table:
                yield table
        else:
            lines = CsvRows if suffix == ".csv" else JsonRows
            with temporary.open("w", encoding="utf-8", newline="") as file:
                yield lines(file, names)


def table_width(names: Sequence[str]) -> int:
    """Of the column that holds `names`; a few long ones may stand out of it."""
    return min(max((len(printable(name)) for name in names), default=0), 80)
