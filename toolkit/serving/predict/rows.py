"""Answers as rows: a table on standard output, or a CSV, JSON Lines or Parquet file that is whole or absent."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO, TypeAlias

from toolkit.api.answers import NONE, number
from toolkit.api.contracts import TargetForm
from toolkit.api.errors import UsageError, printable
from toolkit.api.files import replaced
from toolkit.serving.predict.inputs import Source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from toolkit.serving.bundle import Bundle

Top: TypeAlias = Sequence[tuple[str, float]]
"""Classes with their probabilities, likeliest first; or outputs with their numbers, in the order of the model."""
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


class Layout(Protocol):
    """How rows show the answers of one form of targets: here alone the form decides."""

    columns: Sequence[str]
    """Of files, after those that name the source."""
    titles: Sequence[str]
    """Of the table, after that of the source."""
    width: int
    """Of a cell of the table."""

    def ask(self, bundle: Bundle, views: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """The model's answers `[N, C]` to N views."""

    def read(self, bundle: Bundle, answer: NDArray[np.float32]) -> tuple[Top, str | None]:
        """What a row is added with, of the model's answer `[C]`."""

    def values(self, top: Top, label: str | None) -> list[object]:
        """One for each of `columns`."""

    def cells(self, top: Top, label: str | None) -> list[str]:
        """One for each of `titles`."""


class OneClass:
    """The likeliest classes with their probabilities."""

    def __init__(self, top: int, classes: Sequence[str]) -> None:
        self._top, self._class_width = top, max(map(len, classes))
        ranks = range(1, top + 1)
        self.columns: Sequence[str] = [f"{kind}_{rank}" for rank in ranks for kind in ("class", "probability")]
        self.titles: Sequence[str] = [f"top {rank}" for rank in ranks]
        self.width = self._class_width + len("  100.00%")

    def ask(self, bundle: Bundle, views: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        return bundle.predict(views).probabilities

    def read(self, bundle: Bundle, answer: NDArray[np.float32]) -> tuple[Top, str | None]:
        return bundle.answers(answer[None]).top(self._top)[0], None

    def values(self, top: Top, label: str | None) -> list[object]:  # noqa: ARG002
        # The seven digits that float32 holds.
        return [part for name, value in top for part in (name, float(f"{value:.7g}"))]

    def cells(self, top: Top, label: str | None) -> list[str]:  # noqa: ARG002
        return [f"{name:<{self._class_width}}  {value:7.2%}" for name, value in top]


class SetOfClasses(OneClass):
    """The same, and the set of classes that are present."""

    def __init__(self, top: int, classes: Sequence[str]) -> None:
        super().__init__(top, classes)
        self.columns = [PREDICTION, *self.columns]
        # Last, since a set may be of any width.
        self.titles = [*self.titles, PREDICTION]

    def read(self, bundle: Bundle, answer: NDArray[np.float32]) -> tuple[Top, str | None]:
        return super().read(bundle, answer)[0], bundle.answers(answer[None]).labels[0]

    def values(self, top: Top, label: str | None) -> list[object]:
        return [label, *super().values(top, label)]

    def cells(self, top: Top, label: str | None) -> list[str]:
        return [*super().cells(top, label), label or NONE]


class NumberOfEachOutput:
    """Every number, in the unit of the targets, under the name of its output."""

    def __init__(self, top: int, outputs: Sequence[str]) -> None:  # noqa: ARG002
        self.columns: Sequence[str] = [f"{PREDICTION}_{name}" for name in outputs]
        self.titles: Sequence[str] = [*outputs]
        self.width = max(12, *map(len, outputs))

    def ask(self, bundle: Bundle, views: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        return bundle.estimate(views).values

    def read(self, bundle: Bundle, answer: NDArray[np.float32]) -> tuple[Top, str | None]:
        return [*zip(bundle.manifest.classes, answer.tolist(), strict=True)], None

    def values(self, top: Top, label: str | None) -> list[object]:  # noqa: ARG002
        return [float(f"{value:.9g}") for _, value in top]

    def cells(self, top: Top, label: str | None) -> list[str]:  # noqa: ARG002
        return [number(value) for _, value in top]


LAYOUTS: Mapping[TargetForm, Callable[[int, Sequence[str]], Layout]] = {
    "index": OneClass,
    "set": SetOfClasses,
    "number": NumberOfEachOutput,
}
"""Made of how many classes to show, and the names of the classes or outputs."""


class Table:
    """Aligned columns on standard output, each line as it is known, so that they pipe."""

    def __init__(self, *, width: int, layout: Layout) -> None:
        self._width, self._layout = width, layout
        self._titled = False

    def add(self, source: Source, top: Top, label: str | None = None) -> None:
        if not self._titled:
            self._line("file", self._layout.titles)
            self._titled = True
        self._line(printable(source.title), self._layout.cells(top, label))

    def _line(self, name: str, cells: Sequence[str]) -> None:
        width = self._layout.width
        print("  ".join([f"{name:<{self._width}}", *(f"{cell:<{width}}" for cell in cells)]).rstrip(), flush=True)


class CsvRows:
    def __init__(self, file: TextIO, layout: Layout, names: Sequence[str]) -> None:
        self._layout = layout
        self._writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        self._writer.writerow(names)

    def add(self, source: Source, top: Top, label: str | None = None) -> None:
        self._writer.writerow([*_of_source(source), *self._layout.values(top, label)])


class JsonRows:
    def __init__(self, file: TextIO, layout: Layout, names: Sequence[str]) -> None:
        self._file, self._layout, self._columns = file, layout, names

    def add(self, source: Source, top: Top, label: str | None = None) -> None:
        values = [*_of_source(source), *self._layout.values(top, label)]
        row = dict(zip(self._columns, values, strict=True))
        self._file.write(json.dumps(row, ensure_ascii=False) + "\n")


class ParquetRows:
    def __init__(self, path: Path, layout: Layout, names: Sequence[str]) -> None:
        import pyarrow
        from pyarrow import parquet

        moments, numbers = dict.fromkeys(MOMENT, pyarrow.float64()), (f"{PREDICTION}_", "probability_")
        named = (name if name in MOMENT or name.startswith(numbers) else "" for name in names)
        kinds = [moments.get(name, pyarrow.float32()) if name else pyarrow.string() for name in named]
        self._layout = layout
        self._schema = pyarrow.schema(list(zip(names, kinds, strict=True)))
        self._table: Callable[..., Any] = pyarrow.Table.from_pydict
        self._writer = parquet.ParquetWriter(path, self._schema)
        self._held: list[list[object]] = []

    def add(self, source: Source, top: Top, label: str | None = None) -> None:
        self._held.append([*_of_source(source), *self._layout.values(top, label)])
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


def columns(layout: Layout, *, timed: bool = False) -> list[str]:
    """Names of the columns of every format; `timed` rows say which seconds of a video they are about."""
    return ["file", *(MOMENT if timed else ()), *layout.columns]


def _of_source(source: Source) -> list[object]:
    moment = [] if source.moment is None else [round(seconds, 3) for seconds in source.moment]
    title = source.title.encode("utf-8", "backslashreplace").decode("utf-8")  # bytes of a name that are no UTF-8
    return [title, *moment]


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
def written(output: Path, layout: Layout, *, timed: bool = False) -> Iterator[Rows]:
    """Rows of a file that takes its place when the block succeeds, and is never seen otherwise."""
    suffix, names = output.suffix.lower(), columns(layout, timed=timed)
    with replaced(output) as temporary:
        if suffix == ".parquet":
            with closing(ParquetRows(temporary, layout, names)) as table:
                yield table
        else:
            lines = CsvRows if suffix == ".csv" else JsonRows
            with temporary.open("w", encoding="utf-8", newline="") as file:
                yield lines(file, layout, names)


def table_width(names: Sequence[str]) -> int:
    """Of the column that holds `names`; a few long ones may be wider."""
    return min(max((len(printable(name)) for name in names), default=0), 80)
