"""Rows of what has no end: each is in the file once it is decided, so that a kill loses at most the one that is being
written. A file that exists already goes on.

Lines are appended to a .csv or .jsonl file. A Parquet file ends with an index, and cannot grow: its newest rows are
lines of a journal next to it, and become row groups of the file once they are many.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.api.errors import UsageError, counted, printable
from toolkit.api.files import as_utf8, exclusive, free_name, replaced
from toolkit.serving.predict.rows import (
    ROWS_AT_ONCE,
    TEXTS,
    Guarded,
    JsonText,
    Layout,
    LineRows,
    Rows,
    columns,
    parquet_schema,
    parquet_table,
    refusals,
)
from toolkit.system.notices import note, warn

if TYPE_CHECKING:
    from toolkit.serving.predict.inputs import Source
    from toolkit.serving.predict.rows import Said, Text, Top

SHARE = 1 / 8
"""Part of its rows that a Parquet file waits for before it is written again: the larger it is, the less often."""


SHOWN = 500
"""Bytes of a row that are shown."""


@contextmanager
def appended(output: Path, layout: Layout) -> Iterator[Rows]:
    """Rows that are in the file `output`, or in its journal, once `add` returns. Raises UsageError where a file that
    exists has other columns or another process writes to it, RunFailed where it cannot be written."""
    names, suffix = columns(layout, live=True), output.suffix.lower()
    with ExitStack() as files:
        with refusals(output):
            output.parent.mkdir(parents=True, exist_ok=True)
            if suffix == ".parquet":
                rows: Rows = files.enter_context(_parquet(output, layout, names))
            else:
                rows = files.enter_context(_lines(output, TEXTS[suffix](), layout, names))
        yield Guarded(rows, output)
        with refusals(output):
            files.close()


@contextmanager
def _lines(output: Path, text: Text, layout: Layout, names: Sequence[str]) -> Iterator[Rows]:
    is_new = not output.exists()
    with _alone(output, output):
        _check_columns(output, text.columns_of(output, names), names)
        with _Grown(output, text) as grown:
            rows = LineRows(grown.write, text, layout, names)
            begun = 0
            try:
                if not grown.end:
                    rows.begin()
                else:
                    _report(output, grown.rows)
                begun = grown.end
                yield rows
            finally:
                if is_new and grown.end == begun:
                    output.unlink()


class _Grown:
    """A file of lines that only grows. It is made if it does not exist."""

    def __init__(self, path: Path, text: Text) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        self.end, self.rows = text.whole_rows(path)
        if rest := os.pread(self._file, SHOWN, self.end).decode(errors="backslashreplace"):
            os.truncate(self._file, self.end)
            warn(f"{path}: its last row is cut short, and is removed: {printable(rest)}")

    def __enter__(self) -> _Grown:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):  # some files cannot be synced
            os.fsync(self._file)
        os.close(self._file)

    def write(self, text: str) -> None:
        """Append whole lines, all or nothing."""
        data = as_utf8(text)
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError:
            os.truncate(self._file, self.end)
            raise
        self.end += len(data)


@contextmanager
def _parquet(output: Path, layout: Layout, names: Sequence[str]) -> Iterator[Rows]:
    from pyarrow import ArrowException, parquet

    schema, is_new = parquet_schema(names), not output.exists()
    if not is_new:
        try:
            found = parquet.read_schema(output).names
        except ArrowException as error:
            raise UsageError(f"--output {output}: not a Parquet file", next_step=_another(output)) from error
        _check_columns(output, found, names)
    else:
        with replaced(output) as temporary:
            parquet.ParquetWriter(temporary, schema).close()
    rows = _JournaledRows(output, layout, schema)
    try:
        yield rows
    finally:
        with refusals(output):
            rows.close()
            if is_new and not _rows_in(output):
                output.unlink()


class _JournaledRows:
    """Rows of a Parquet file that goes on: the newest ones are in a journal, named after the number of rows that the
    file had when it was begun. So a kill between the two neither loses nor repeats a row."""

    def __init__(self, output: Path, layout: Layout, schema: Any) -> None:
        self._output, self._layout, self._schema = output, layout, schema
        self._files = ExitStack()
        self._rows = _rows_in(output)
        for path, after in _journals(output):
            if after < self._rows:  # its rows are in the file
                path.unlink()
            elif after > self._rows:
                raise UsageError(
                    f"--output {output}: has {counted(self._rows, 'row')}, but {path.name} has those after {after:,}",
                    next_step=f"move one of the two away, or {_another(output)}",
                )
        self._begin()
        if self._rows or self._held:
            _report(output, self._rows + self._held)

    def add(self, source: Source, top: Top, said: Said = None) -> None:
        self._lines.add(source, top, said)
        self._held += 1
        if self._held >= max(ROWS_AT_ONCE, SHARE * self._rows):
            self._take_in()
            self._begin()

    def close(self) -> None:
        self._take_in()

    def _begin(self) -> None:
        """Begin a journal, or go on with it."""
        self._journal = _journal(self._output, self._rows)
        self._files.enter_context(_alone(self._journal, self._output))
        names = self._schema.names
        _check_columns(self._journal, JsonText().columns_of(self._journal, names), names)
        grown = self._files.enter_context(_Grown(self._journal, JsonText()))
        self._lines = LineRows(grown.write, JsonText(), self._layout, names)
        self._held = grown.rows

    def _take_in(self) -> None:
        """Write the file with the rows of its journal, which is removed."""
        if self._held and _rows_in(self._output) == self._rows:
            self._write()
        self._rows += self._held
        self._held = 0
        self._journal.unlink()
        self._files.close()

    def _write(self) -> None:
        from pyarrow import parquet

        with (
            replaced(self._output) as temporary,
            parquet.ParquetFile(self._output) as before,
            parquet.ParquetWriter(temporary, self._schema) as writer,
            self._journal.open("rb") as lines,
        ):
            for number in range(before.num_row_groups):
                writer.write_table(before.read_row_group(number))
            while part := [[*json.loads(line).values()] for line in islice(lines, ROWS_AT_ONCE)]:
                writer.write_table(parquet_table(part, self._schema))


def _rows_in(output: Path) -> int:
    from pyarrow import parquet

    return int(parquet.read_metadata(output).num_rows)


def _journal(output: Path, rows: int) -> Path:
    return output.with_name(f"{output.name}.after-{rows}.jsonl")


def _journals(output: Path) -> list[tuple[Path, int]]:
    """Each journal of a file, with the number in its name."""
    named = re.compile(re.escape(output.name) + r"\.after-(\d+)\.jsonl")
    return [(path, int(found[1])) for path in output.parent.iterdir() if (found := named.fullmatch(path.name))]


def _check_columns(output: Path, found: Sequence[str], names: Sequence[str]) -> None:
    if list(found) != list(names):
        message = f"--output {output}: has other columns than these answers ({', '.join(names)})"
        raise UsageError(message, next_step=_another(output))


def _another(output: Path) -> str:
    return f"write to another file: --output {shlex.quote(str(free_name(output)))}"


def _alone(lock: Path, output: Path) -> AbstractContextManager[None]:
    def busy() -> None:
        raise UsageError(f"--output {output}: another process writes to it", next_step=_another(output))

    return exclusive(lock, waiting=busy)


def _report(output: Path, rows: int) -> None:
    note(f"{output}: has {counted(rows, 'row')} so far, new ones are appended")
