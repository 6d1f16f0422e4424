"""Rows of what has no end: in the file once they are decided, whatever ends the process."""

from __future__ import annotations

import csv
import errno
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.full import files_of_at_most
from toolkit.api.errors import RunFailed, UsageError
from toolkit.serving.predict import appending
from toolkit.serving.predict.appending import appended
from toolkit.serving.predict.inputs import Source
from toolkit.serving.predict.rows import OneClass

SUFFIXES = ["csv", "jsonl", "parquet"]
LAYOUT = OneClass(2, ["bright", "dark"])
NAMES = ["file", "time", "start", "end", "class_1", "probability_1", "class_2", "probability_2"]
BEGIN = datetime(2031, 2, 3, 4, 5, 6, 789_000, UTC)


@pytest.fixture(params=SUFFIXES)
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file that does not exist yet."""
    if request.param == "parquet":
        pytest.importorskip("pyarrow")
    return tmp_path / "new folder" / f"live.{request.param}"


def row(number: int, name: str = "rtsp://yard/1") -> Source:
    moment, shown = (0.5 * number, 0.5 * number + 2), BEGIN + timedelta(seconds=number)
    return Source(name, "stream", name, moment=moment, shown=shown)


def top(number: int) -> list[tuple[str, float]]:
    return [("bright", 0.75), ("dark", number / 1024)]


def add(rows: Any, numbers: Sequence[int]) -> None:
    for number in numbers:
        rows.add(row(number), top(number))


def read(output: Path) -> list[dict[str, Any]]:
    """The rows of a file, as other programs read them."""
    if output.suffix == ".csv":
        with output.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file, quoting=csv.QUOTE_NONNUMERIC))
    if output.suffix == ".jsonl":
        return [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    found = pytest.importorskip("pyarrow.parquet").read_table(output).to_pylist()
    journals = sorted(output.parent.glob(f"{output.name}.after-*.jsonl"))
    held = [json.loads(line) for journal in journals for line in journal.read_text().splitlines()]
    return [*({**one, "time": one["time"].isoformat("T", "milliseconds")[:-6] + "Z"} for one in found), *held]


def numbers(output: Path) -> list[int]:
    """Those of the rows of a file."""
    found = read(output)
    assert all([*one] == NAMES for one in found)
    return [round(1024 * one["probability_2"]) for one in found]


def test_rows_say_when_what_they_are_about_was_shown(output: Path) -> None:
    with appended(output, LAYOUT) as rows:
        add(rows, [3])
    (found,) = read(output)
    assert list(found) == NAMES
    assert found["file"] == "rtsp://yard/1#t=1.500,3.500"
    assert found["time"] == "2031-02-03T04:05:09.789Z"
    assert datetime.fromisoformat(found["time"]) == BEGIN + timedelta(seconds=3)
    assert (found["start"], found["end"]) == (1.5, 3.5)
    assert found["probability_2"] == pytest.approx(3 / 1024)


def test_dates_of_parquet_files_are_dates(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    with appended(tmp_path / "a.parquet", LAYOUT) as rows:
        add(rows, [0])
    table = parquet.read_table(tmp_path / "a.parquet")
    assert str(table.schema.field("time").type) == "timestamp[ms, tz=UTC]"
    assert table["time"].to_pylist() == [BEGIN]


def test_each_row_can_be_read_as_soon_as_it_is_added(output: Path) -> None:
    with appended(output, LAYOUT) as rows:
        assert numbers(output) == []
        for number in range(20):
            rows.add(row(number), top(number))
            assert numbers(output) == list(range(number + 1))


def test_a_file_that_exists_goes_on(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for begin in (0, 3, 6):
        with appended(output, LAYOUT) as rows:
            add(rows, range(begin, begin + 3))
    assert numbers(output) == list(range(9))
    assert [path.name for path in output.parent.iterdir()] == [output.name]
    assert capsys.readouterr().err.splitlines() == [
        f"note: {output}: has {rows} rows so far, new ones are appended" for rows in (3, 6)
    ]


def test_without_a_row_no_file_is_made_and_one_that_exists_stays(output: Path) -> None:
    with appended(output, LAYOUT):
        pass
    assert list(output.parent.iterdir()) == []
    with appended(output, LAYOUT) as rows:
        add(rows, [0])
    before = output.read_bytes()
    with appended(output, LAYOUT):
        pass
    assert output.read_bytes() == before


class Killed(BaseException):
    """Stands in for a process that is no more: nothing that it would do at its end is done."""


@contextmanager
def killed(output: Path) -> Iterator[Any]:
    """Rows whose files are left as a killed process leaves them."""
    files = appended(output, LAYOUT)
    yield files.__enter__()
    left = {path: path.read_bytes() for path in output.parent.iterdir()}
    assert not files.__exit__(Killed, Killed(), None)
    for path in output.parent.iterdir():
        path.unlink()
    for path, data in left.items():
        path.write_bytes(data)


def test_a_kill_loses_no_row_that_was_added(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appending, "ROWS_AT_ONCE", 4)
    for begin in range(0, 35, 7):
        with killed(output) as rows:
            add(rows, range(begin, begin + 7))
        assert numbers(output) == list(range(begin + 7))
    with appended(output, LAYOUT) as rows:
        add(rows, [35])
    assert numbers(output) == list(range(36))
    assert [path.name for path in output.parent.iterdir()] == [output.name]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@given(data=st.data())
@settings(max_examples=25)
def test_a_file_cut_anywhere_keeps_every_whole_row(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, data: st.DataObject
) -> None:
    """As a kill or a full disk may cut it, whatever is in the names."""
    output = tmp_path_factory.mktemp("cut") / f"live.{suffix}"
    names = data.draw(st.lists(st.text("a\"\n\r,é'", max_size=5), min_size=1, max_size=5))
    ends = [0]
    with appended(output, LAYOUT) as rows:
        for number, name in enumerate(names):
            ends.append(output.stat().st_size)
            rows.add(row(number, name), top(number))
    whole = output.read_bytes()
    place = data.draw(st.integers(0, len(whole)))
    output.write_bytes(whole[:place])
    with appended(output, LAYOUT) as rows:
        add(rows, [900])
    kept = max(number for number, end in enumerate([*ends[1:], len(whole)]) if end <= max(place, ends[1]))
    assert numbers(output) == [*range(kept), 900]
    assert [one["file"].partition("#t=")[0] for one in read(output)[:-1]] == names[:kept]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_what_is_removed_since_it_was_cut_short_is_shown(
    tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / f"live.{suffix}"
    with appended(output, LAYOUT) as rows:
        add(rows, [0, 1])
    output.write_bytes(output.read_bytes()[:-20])
    with appended(output, LAYOUT) as rows:
        add(rows, [2])
    assert numbers(output) == [0, 2]
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"warning: {output}: its last row is cut short, and is removed: ")
    assert "rtsp://yard/1#t=0.500,2.500" in first
    assert second == f"note: {output}: has 1 row so far, new ones are appended"


def other_columns(output: Path) -> None:
    with appended(output, OneClass(1, ["bright"])) as rows:
        rows.add(row(0), [("bright", 1.0)])


OTHERS: dict[str, Callable[[Path], object]] = {
    "other columns": other_columns,
    "text": lambda output: output.write_text("my own notes"),
    "lines": lambda output: output.write_text("my own\nnotes\n"),
    "numbers": lambda output: output.write_text("1\n2\n"),
    "bytes": lambda output: output.write_bytes(bytes(range(256))),
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_file_of_something_else_is_never_touched(output: Path, other: str) -> None:
    output.parent.mkdir()
    OTHERS[other](output)
    before = output.read_bytes()
    with pytest.raises(UsageError) as caught, appended(output, LAYOUT):
        pass
    assert caught.value.message.startswith(f"--output {output}: ")
    assert caught.value.next_step == f"write to another file: --output '{output.with_stem('live-2')}'"
    assert output.read_bytes() == before
    assert list(output.parent.iterdir()) == [output]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_one_process_at_a_time_writes_a_file(tmp_path: Path, suffix: str) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    output = tmp_path / f"live.{suffix}"
    with appended(output, LAYOUT) as rows:
        add(rows, [0])
        with pytest.raises(UsageError, match="another process writes to it"), appended(output, LAYOUT):
            pass
        add(rows, [1])
    assert numbers(output) == [0, 1]


# Parquet


def test_many_rows_become_row_groups_while_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(appending, "ROWS_AT_ONCE", 8)
    output, written = tmp_path / "live.parquet", list[int]()
    with appended(output, LAYOUT) as rows:
        for number in range(300):
            rows.add(row(number), top(number))
            written.append(parquet.read_metadata(output).num_rows)
        assert numbers(output) == list(range(300))
    assert numbers(output) == list(range(300))
    assert parquet.read_metadata(output).num_rows == 300
    assert all(len(range(done)) <= number + 1 < done + max(8, done / 8) + 1 for number, done in enumerate(written))
    # The more rows it has, the less often it is written: about as often as its size grows by an eighth.
    assert len(set(written)) < 35


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_a_kill_between_a_parquet_file_and_its_journal_neither_loses_nor_repeats_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(appending, "ROWS_AT_ONCE", 4)
    output, unlink, made = tmp_path / "live.parquet", Path.unlink, [0]

    def unlink_or_die(self: Path, missing_ok: bool = False) -> None:
        if self.suffix == ".jsonl":
            made[0] += 1
            if made[0] >= calls:
                raise Killed
        unlink(self, missing_ok=missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", unlink_or_die)
        with pytest.raises(Killed), appended(output, LAYOUT) as rows:
            add(rows, range(20))
    with appended(output, LAYOUT) as rows:
        add(rows, [100])
    assert numbers(output) == [*range(4 * calls), 100]


def test_a_journal_of_another_parquet_file_is_reported(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    output = tmp_path / "live.parquet"
    with appended(output, LAYOUT) as rows:
        add(rows, [0])
    journal = tmp_path / "live.parquet.after-70.jsonl"
    journal.write_text("{}\n")
    with pytest.raises(UsageError) as caught, appended(output, LAYOUT):
        pass
    assert caught.value.message == f"--output {output}: has 1 row, but {journal.name} has those after 70"
    assert (
        caught.value.next_step
        == f"move one of the two away, or write to another file: --output {output.with_stem('live-2')}"
    )
    assert journal.read_text() == "{}\n"


# Full disks


def add_until_full(rows: Any, numbers: Sequence[int], size: int) -> None:
    """Add rows while no file may be larger than so many bytes."""
    with files_of_at_most(size):
        add(rows, numbers)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_full_disk_is_reported_and_leaves_whole_rows(tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"live.{suffix}"
    with pytest.raises(RunFailed) as caught, appended(output, LAYOUT) as rows:
        add_until_full(rows, range(11), 1000)
    assert caught.value.message == f"--output {output}: cannot be written: {os.strerror(errno.EFBIG)}"
    assert caught.value.next_step == "free disk space or fix the folder, then run the same command again"
    assert output.read_bytes().endswith(b"\n")
    kept = numbers(output)
    assert kept == list(range(len(kept)))
    assert 3 < len(kept) < 11
    with appended(output, LAYOUT) as rows:
        add(rows, [len(kept)])
    assert numbers(output) == list(range(len(kept) + 1))


def test_a_disk_that_is_too_full_for_a_parquet_file_leaves_its_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(appending, "ROWS_AT_ONCE", 8)
    output = tmp_path / "live.parquet"
    with pytest.raises(RunFailed) as caught, appended(output, LAYOUT) as rows:
        add_until_full(rows, range(8), 2000)  # enough for the journal
    assert caught.value.message == f"--output {output}: cannot be written: {os.strerror(errno.EFBIG)}"
    assert numbers(output) == list(range(8))


def test_a_folder_that_cannot_be_written_is_reported_before_anything_is_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    output = tmp_path / "file" / "live.csv"
    with pytest.raises(RunFailed) as caught, appended(output, LAYOUT):
        pass
    assert caught.value.message.startswith(f"--output {output}: cannot be written: ")
