"""Answers as rows: a table on standard output, or a CSV, JSON Lines or Parquet file that is whole or absent."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, TypeVar

from toolkit.api.answers import NONE, SEPARATOR, UNKNOWN, number, percent
from toolkit.api.contracts import TargetForm
from toolkit.api.errors import DataError, RunFailed, UsageError, printable
from toolkit.api.files import csv_text, replaced
from toolkit.serving.bundle.trust import DECLINED, PLAUSIBLE
from toolkit.serving.predict.inputs import Source
from toolkit.system.notices import show

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from toolkit.serving.bundle import Bundle, Manifest, Trust

T = TypeVar("T")
Closable = TypeVar("Closable", bound="SupportsClose")
Top: TypeAlias = Sequence[tuple[str, float]]
"""Classes with their probabilities, likeliest first; or outputs with their numbers, in the order of the model."""


class Caution(NamedTuple):
    """How far an answer goes, of a bundle that says so."""

    declined: bool
    plausible: str
    """The set of classes that holds the truth, as text."""


Said: TypeAlias = str | Caution | None
"""What an answer says besides: the set of classes that are present, as text, or how far it goes; None where it is the
likeliest class and no more."""
PREDICTION = "prediction"
"""Column of the set of classes, where answers are sets: the same as in a run's predictions.csv."""
LIVE, DATE = "time", "2026-01-31T23:59:59.999Z"
"""Column of the date and time at which the end of the part was on show, where the source is live, and how they look."""
MOMENT = ("start", "end")
"""Columns of the seconds of a video that a row is about."""
ROUNDED = 1e-3
"""By which a probability may be below 0 or above 1: half precision has three digits."""
ROWS_AT_ONCE = 4096
"""Rows of a Parquet file that are held before they are written."""


class SupportsClose(Protocol):
    def close(self) -> object: ...


class Rows(Protocol):
    """Where answers go."""

    def add(self, source: Source, top: Top, said: Said = None) -> None: ...


class Layout(Protocol):
    """How rows show the answers of one form of targets: here alone the form decides."""

    columns: Sequence[str]
    """Of files, after those that name the source."""
    titles: Sequence[str]
    """Of the table, after that of the source."""
    width: int
    """Of a cell of the table."""

    def read(self, bundle: Bundle, answer: NDArray[np.float32]) -> tuple[Top, Said]:
        """What a row is added with, of one row of `Bundle.rows`."""

    def check(self, answers: NDArray[np.float32]) -> None:
        """Raise DataError where rows of `Bundle.rows` have no meaning."""

    def values(self, top: Top, said: Said) -> list[object]:
        """One for each of `columns`."""

    def cells(self, top: Top, said: Said) -> list[str]:
        """One for each of `titles`."""


class OneClass:
    """The likeliest classes with their probabilities."""

    def __init__(self, top: int, classes: Sequence[str]) -> None:
        self._top, self._class_width = top, max(len(printable(name)) for name in classes)
        ranks = range(1, top + 1)
        self.columns: Sequence[str] = [f"{kind}_{rank}" for rank in ranks for kind in ("class", "probability")]
        self.titles: Sequence[str] = [f"top {rank}" for rank in ranks]
        self.width = self._class_width + len("  100.00 %")

    def read(self, bundle: Bundle, answer: NDArray[np.float32]) -> tuple[Top, Said]:
        return bundle.answers(answer[None]).top(self._top)[0], None

    def check(self, answers: NDArray[np.float32]) -> None:
        _check_finite(answers)
        for found in (answers.min(), answers.max()):
            if abs(found - 0.5) > 0.5 + ROUNDED:
                raise DataError(f"the model answers {found:.4g}, expected a probability from 0 to 1")

    def values(self, top: Top, said: Said) -> list[object]:  # noqa: ARG002
        # The seven digits that float32 holds.
        return [part for name, value in top for part in (name, float(f"{value:.7g}"))]

    def cells(self, top: Top, said: Said) -> list[str]:  # noqa: ARG002
        return [f"{printable(name):<{self._class_width}}  {percent(value, 2):>8}" for name, value in top]


def _check_finite(answers: NDArray[np.float32]) -> None:
    wrong = answers[~(abs(answers) < math.inf)]
    if len(wrong):
        raise DataError(f"the model answers {wrong[0]:g}, expected a finite number")


class SetOfClasses(OneClass):
    """The same, and the set of classes that are present."""

    def __init__(self, top: int, classes: Sequence[str]) -> None:
        super().__init__(top, classes)
        self.columns = [PREDICTION, *self.columns]
        # Last, since a set may be of any width.
        self.titles = [*self.titles, PREDICTION]

    def read(self, bundle: Bundle, answer: NDArray[np.float32]) -> tuple[Top, Said]:
        return super().read(bundle, answer)[0], bundle.answers(answer[None]).labels[0]

    def values(self, top: Top, said: Said) -> list[object]:
        return [said, *super().values(top, said)]

    def cells(self, top: Top, said: Said) -> list[str]:
        return [*super().cells(top, said), str(said or NONE)]


class CautiousClass(OneClass):
    """The likeliest classes, whether the answer is declined, and the set of classes that holds the truth: what of
    these a bundle has."""

    def __init__(self, top: int, classes: Sequence[str], trust: Trust) -> None:
        super().__init__(top, classes)
        self._trust = trust
        cautions = self._pick(DECLINED, PLAUSIBLE)
        self.columns = [*cautions, *self.columns]
        self.titles = [*self.titles, *cautions]

    def read(self, bundle: Bundle, answer: NDArray[np.float32]) -> tuple[Top, Said]:
        answers = bundle.answers(answer[None])
        plausible = answers.plausible or [()]
        return answers.top(self._top)[0], Caution(answers.declined[0], SEPARATOR.join(plausible[0]))

    def check(self, answers: NDArray[np.float32]) -> None:
        super().check(answers[:, : answers.shape[1] - self._trust.score_columns])
        _check_finite(answers)

    def values(self, top: Top, said: Said) -> list[object]:
        caution = _caution(said)
        return [*self._pick(caution.declined, caution.plausible), *super().values(top, said)]

    def cells(self, top: Top, said: Said) -> list[str]:
        caution = _caution(said)
        declined = UNKNOWN if caution.declined else ""
        return [*super().cells(top, said), *self._pick(declined, caution.plausible or NONE)]

    def _pick(self, declined: T, plausible: T) -> list[T]:
        """Of the two, those that the bundle has."""
        has = self._trust
        return [*([declined] if has.reject else ()), *([plausible] if has.conformal else ())]


def _caution(said: Said) -> Caution:
    if not isinstance(said, Caution):
        raise AssertionError("a row of another layout")
    return said


class NumberOfEachOutput:
    """Every number, in the unit of the targets, under the name of its output."""

    def __init__(self, top: int, outputs: Sequence[str]) -> None:  # noqa: ARG002
        self.columns: Sequence[str] = [f"{PREDICTION}_{name}" for name in outputs]
        self.titles: Sequence[str] = [printable(name) for name in outputs]
        self.width = max(12, *map(len, self.titles))

    def read(self, bundle: Bundle, answer: NDArray[np.float32]) -> tuple[Top, Said]:
        return [*zip(bundle.manifest.classes, answer.tolist(), strict=True)], None

    def check(self, answers: NDArray[np.float32]) -> None:
        _check_finite(answers)

    def values(self, top: Top, said: Said) -> list[object]:  # noqa: ARG002
        return [float(f"{value:.9g}") for _, value in top]

    def cells(self, top: Top, said: Said) -> list[str]:  # noqa: ARG002
        return [number(value) for _, value in top]


_LAYOUTS: Mapping[TargetForm, Callable[[int, Sequence[str]], Layout]] = {
    "index": OneClass,
    "set": SetOfClasses,
    "number": NumberOfEachOutput,
}


def layout_of(manifest: Manifest, top: int) -> Layout:
    """How rows show the answers of a bundle, with the `top` likeliest classes."""
    if manifest.trust.outputs:
        return CautiousClass(top, manifest.classes, manifest.trust)
    return _LAYOUTS[manifest.form](top, manifest.classes)


class Table:
    """Aligned columns on standard output, each line as it is known, so that they pipe."""

    def __init__(self, *, width: int, layout: Layout, live: bool = False) -> None:
        self._width, self._layout, self._live = width, layout, live
        self._titled = False

    def add(self, source: Source, top: Top, said: Said = None) -> None:
        if not self._titled:
            self._line("file", [LIVE] if self._live else [], self._layout.titles)
            self._titled = True
        self._line(printable(source.title), _shown(source), self._layout.cells(top, said))

    def _line(self, name: str, shown: Sequence[object], cells: Sequence[str]) -> None:
        width = self._layout.width
        first = [f"{name:<{self._width}}", *(f"{date:<{len(DATE)}}" for date in shown)]
        show("  ".join([*first, *(f"{printable(cell):<{width}}" for cell in cells)]).rstrip())


class Text(Protocol):
    """How rows are written as lines."""

    def head(self, names: Sequence[str]) -> str:
        """What a file begins with; perhaps nothing."""

    def line(self, names: Sequence[str], values: Sequence[object]) -> str: ...

    def columns_of(self, path: Path, names: Sequence[str]) -> Sequence[str]:
        """Those of a file; `names` where it is empty, or ends within the first line that `names` make."""

    def whole_rows(self, path: Path) -> tuple[int, int]:
        """Where the last whole row of a file ends, in bytes, and how many there are."""


class CsvText:
    def head(self, names: Sequence[str]) -> str:
        return csv_text([names])

    def line(self, names: Sequence[str], values: Sequence[object]) -> str:  # noqa: ARG002
        return csv_text([[str(value).lower() if isinstance(value, bool) else value for value in values]])

    def columns_of(self, path: Path, names: Sequence[str]) -> Sequence[str]:
        with path.open(encoding="utf-8", errors="backslashreplace", newline="") as file:
            if self.head(names).startswith(file.read(len(self.head(names)))):
                return names
            file.seek(0)
            return next(csv.reader(file), [])

    def whole_rows(self, path: Path) -> tuple[int, int]:
        end, lines = _whole_lines(path, quoted=True)
        return end, max(lines - 1, 0)


class JsonText:
    def head(self, names: Sequence[str]) -> str:  # noqa: ARG002
        return ""

    def line(self, names: Sequence[str], values: Sequence[object]) -> str:
        return json.dumps(dict(zip(names, values, strict=True)), ensure_ascii=False) + "\n"

    def columns_of(self, path: Path, names: Sequence[str]) -> Sequence[str]:
        with path.open("rb") as file:
            first = file.readline()
        if not first.endswith(b"\n"):
            begin = json.dumps({names[0]: ""}).encode()[:-2]
            return names if begin.startswith(first[: len(begin)]) else []
        try:
            row = json.loads(first)
        except ValueError:
            return []
        return list(row) if isinstance(row, dict) else []

    def whole_rows(self, path: Path) -> tuple[int, int]:
        return _whole_lines(path, quoted=False)


def _whole_lines(path: Path, *, quoted: bool) -> tuple[int, int]:
    """Where the last whole line ends, and how many there are; if `quoted`, a line goes on to the end of a quotation."""
    place = end = lines = quotes = 0
    with path.open("rb") as file:
        for line in file:
            place += len(line)
            quotes += line.count(b'"') if quoted else 0
            if line.endswith(b"\n") and quotes % 2 == 0:
                end, lines = place, lines + 1
    return end, lines


class LineRows:
    """Rows as lines, each given to `write`."""

    def __init__(self, write: Callable[[str], object], text: Text, layout: Layout, names: Sequence[str]) -> None:
        self._write, self._text, self._layout, self._names = write, text, layout, names

    def begin(self) -> None:
        self._write(self._text.head(self._names))

    def add(self, source: Source, top: Top, said: Said = None) -> None:
        self._write(self._text.line(self._names, _values(source, self._layout, top, said)))


class ParquetRows:
    """Rows of a new Parquet file."""

    def __init__(self, path: Path, layout: Layout, names: Sequence[str]) -> None:
        from pyarrow import parquet

        self._layout, self._schema = layout, parquet_schema(names)
        self._writer = parquet.ParquetWriter(path, self._schema)
        self._held: list[list[object]] = []

    def add(self, source: Source, top: Top, said: Said = None) -> None:
        self._held.append(_values(source, self._layout, top, said))
        if len(self._held) >= ROWS_AT_ONCE:
            self._write()

    def close(self) -> None:
        if self._held:
            self._write()
        self._writer.close()

    def _write(self) -> None:
        self._writer.write_table(parquet_table(self._held, self._schema))
        self._held.clear()


TEXTS: Mapping[str, Callable[[], Text]] = {".csv": CsvText, ".jsonl": JsonText}
SUFFIXES = (*TEXTS, ".parquet")
"""Of the files that answers can be written to."""


def parquet_schema(names: Sequence[str]) -> Any:
    import pyarrow

    exact, real = dict.fromkeys(MOMENT, pyarrow.float64()), pyarrow.float32()
    exact[LIVE] = pyarrow.timestamp("ms", tz="UTC")
    numbers = (f"{PREDICTION}_", "probability_")
    exact[DECLINED] = pyarrow.bool_()
    kinds = [exact.get(name) or (real if name.startswith(numbers) else pyarrow.string()) for name in names]
    return pyarrow.schema(list(zip(names, kinds, strict=True)))


def parquet_table(rows: Sequence[Sequence[object]], schema: Any) -> Any:
    """Rows of values, as `_values` has them, one for each column of the schema."""
    import pyarrow

    held = dict(zip(schema.names, map(list, zip(*rows, strict=True)), strict=True))
    if LIVE in held:
        held[LIVE] = [datetime.fromisoformat(str(date)) for date in held[LIVE]]
    return pyarrow.Table.from_pydict(held, schema=schema)


def columns(layout: Layout, *, timed: bool = False, live: bool = False) -> list[str]:
    """Names of the columns of every format; `timed` rows say which seconds of a video they are about, `live` ones also
    when these were on show."""
    return ["file", *([LIVE] if live else ()), *(MOMENT if timed or live else ()), *layout.columns]


def _values(source: Source, layout: Layout, top: Top, said: Said) -> list[object]:
    moment = [] if source.moment is None else [round(seconds, 3) for seconds in source.moment]
    title = source.title.encode("utf-8", "backslashreplace").decode("utf-8")  # bytes of a name that are no UTF-8
    return [title, *_shown(source), *moment, *layout.values(top, said)]


def _shown(source: Source) -> list[str]:
    """ISO 8601, in UTC and milliseconds."""
    if source.shown is None:
        return []
    return [written_date(source.shown)]


def written_date(moment: datetime) -> str:
    """As in `2026-11-29T16:18:17.959Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


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
    if output.exists() and not output.is_file():
        message = f"--output {output}: expected a regular file, got a pipe, a socket or a device"
        raise UsageError(message, next_step=f"name another file: {output.with_name('answers.csv')}")
    if output.suffix.lower() == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401 (whether it is there)
        except ImportError as error:
            raise UsageError(
                f"--output {output}: Parquet files need pyarrow, which is not installed",
                next_step="pip install pyarrow, or write a .csv or .jsonl file",
            ) from error


@contextmanager
def refusals(output: Path) -> Iterator[None]:
    """Turn the file system's refusal to write into RunFailed that names `output`."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise RunFailed(
            f"--output {output}: cannot be written: {reason}",
            next_step="free disk space or fix the folder, then run the same command again",
        ) from error


@contextmanager
def written(output: Path, layout: Layout, *, timed: bool = False) -> Iterator[Rows]:
    """Rows of a file that takes its place when the block succeeds, and is never seen otherwise."""
    names = columns(layout, timed=timed)
    with ExitStack() as files:
        with refusals(output):
            temporary = files.enter_context(replaced(output))
            if output.suffix.lower() == ".parquet":
                rows: Rows = files.enter_context(_closed(ParquetRows(temporary, layout, names)))
            else:
                file = files.enter_context(_closed(temporary.open("w", encoding="utf-8", newline="")))
                rows = LineRows(file.write, TEXTS[output.suffix.lower()](), layout, names)
                rows.begin()
        yield Guarded(rows, output)
        with refusals(output):
            files.close()


@contextmanager
def _closed(file: Closable) -> Iterator[Closable]:
    """As `closing`, but where writing has failed, closing may fail again."""
    try:
        yield file
    except BaseException:
        with suppress(OSError):
            file.close()
        raise
    file.close()


class Guarded:
    """Rows whose file may refuse them."""

    def __init__(self, rows: Rows, output: Path) -> None:
        self._rows, self._output = rows, output

    def add(self, source: Source, top: Top, said: Said = None) -> None:
        with refusals(self._output):
            self._rows.add(source, top, said)


def table_width(names: Sequence[str]) -> int:
    """Of the column that holds `names`; a few long ones may be wider."""
    return min(max((len(printable(name)) for name in names), default=0), 80)
