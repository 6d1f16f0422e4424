"""Answers as a table and as files, read back by other programs' means."""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import sys
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.full import files_of_at_most
from toolkit.api.errors import DataError, RunFailed, UsageError
from toolkit.serving.predict import rows as module
from toolkit.serving.predict.inputs import Moment, Source
from toolkit.serving.predict.rows import (
    NumberOfEachOutput,
    OneClass,
    Rows,
    SetOfClasses,
    Table,
    check_output,
    columns,
    table_width,
    written,
)

NAMES = [
    *("a.png", 'quote".png', "comma,.png", "new\nline.png", "old\rline.png", "\r\n.png", "\x1b[31m.png", "\u202e.png"),
    *("\x85\u2028\x0b.png", " space.png ", "é.png", "byte\udce9.png"),
]
STORED = [*NAMES[:-1], "byte\\udce9.png"]
TOP = [("bright", 0.7000000476837158), ("dark", 1.25e-9)]
SETS = SetOfClasses(2, ["bright", "dark"])


def top(count: int) -> OneClass:
    return OneClass(count, ["bright", "dark"])


def source(name: str, moment: Moment | None = None) -> Source:
    return Source(name, "video", name, moment=moment)


def fill(output: Path) -> None:
    with written(output, top(2)) as rows:
        for name in NAMES:
            rows.add(source(name), TOP)


def test_columns_are_named_by_rank() -> None:
    assert columns(top(2)) == ["file", "class_1", "probability_1", "class_2", "probability_2"]


def test_csv_is_read_back(tmp_path: Path) -> None:
    fill(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.reader(file))
    assert found[0] == columns(top(2))
    assert found[1:] == [[name, "bright", "0.7", "dark", "1.25e-09"] for name in STORED]


def test_json_lines_are_read_back(tmp_path: Path) -> None:
    fill(tmp_path / "a.jsonl")
    found = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    values = ["bright", 0.7, "dark", 1.25e-9]
    assert found == [dict(zip(columns(top(2)), [name, *values], strict=True)) for name in STORED]


@pytest.mark.parametrize("at_once", [1, 4, 4096])
def test_parquet_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(module, "ROWS_AT_ONCE", at_once)
    fill(tmp_path / "a.PARQUET")
    table = parquet.read_table(tmp_path / "a.PARQUET")
    assert table.column_names == columns(top(2))
    assert table["file"].to_pylist() == STORED
    assert set(table["class_1"].to_pylist()) == {"bright"}
    assert table["probability_2"].to_pylist() == pytest.approx([1.25e-9] * len(NAMES))
    assert str(table.schema.field("probability_1").type) == "float"


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_file_is_whole_or_as_it_was(tmp_path: Path, suffix: str) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    output = tmp_path / f"a.{suffix}"
    output.write_bytes(b"before")
    with pytest.raises(ValueError, match=r"unpack|longer"), written(output, top(2)) as rows:
        rows.add(source("a.png"), [*TOP, ("no probability",)])  # type: ignore[list-item]
    assert [path.name for path in tmp_path.iterdir()] == [output.name]
    assert output.read_bytes() == b"before"


@given(st.text(), st.floats(0, 1, width=32))
def test_every_name_and_probability_survives_csv(
    tmp_path_factory: pytest.TempPathFactory, name: str, probability: float
) -> None:
    output = tmp_path_factory.mktemp("rows") / "a.csv"
    with written(output, top(1)) as rows:
        rows.add(source(name), [("x", probability)])
    with output.open(encoding="utf-8", newline="") as file:
        ((found, _, value),) = list(csv.reader(file))[1:]
    assert found == name
    assert float(value) == pytest.approx(probability, rel=1e-6)


def test_the_table_is_aligned_and_one_line_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(width=table_width(NAMES), layout=OneClass(2, ["dark", "bright"]))
    for name in NAMES:
        table.add(source(name), TOP)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(NAMES) + 1
    assert lines[0].split() == ["file", "top", "1", "top", "2"]
    assert lines[1].split() == ["a.png", "bright", "70.00", "%", "dark", "0.00", "%"]
    assert len({line.index("bright") for line in lines[1:]} | {lines[0].index("top 1")}) == 1
    assert lines[4].startswith("new\\nline.png ")
    assert lines[7].startswith("\\x1b[31m.png ")
    assert lines[8].startswith("\\u202e.png ")


def test_a_table_without_rows_is_empty(capsys: pytest.CaptureFixture[str]) -> None:
    Table(width=4, layout=OneClass(1, ["a"]))
    assert capsys.readouterr().out == ""


def test_long_names_do_not_widen_the_table_for_all() -> None:
    assert table_width([]) == 0
    assert table_width(["abc", "x"]) == 3
    assert table_width(["x" * 500]) == 80


@pytest.mark.parametrize("name", ["answers.txt", "answers", "answers.csv.gz"])
def test_a_suffix_of_an_unknown_format_is_refused(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_output(Path(name))
    assert f"--output {name}: unknown format " in caught.value.message
    assert caught.value.next_step == "end the name with .csv, .jsonl or .parquet"


def test_a_folder_is_not_an_output(tmp_path: Path) -> None:
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(UsageError, match=r"out\.csv: expected a file, got a folder"):
        check_output(tmp_path / "out.csv")


def test_parquet_without_pyarrow_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UsageError) as caught:
        check_output(Path("a.parquet"))
    assert "pyarrow, which is not installed" in caught.value.message
    assert "pip install pyarrow" in str(caught.value.next_step)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_rows_about_parts_of_a_video_name_the_part(tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"a.{suffix}"
    with written(output, top(1), timed=True) as rows:
        rows.add(source("a.mp4", (0.5, 2.2999999999999998)), [("x", 0.25)])
        rows.add(source("a.mp4", (3.0, 3.0)), [("y", 0.5)])
    assert columns(top(1), timed=True) == ["file", "start", "end", "class_1", "probability_1"]
    wanted = [["a.mp4#t=0.500,2.300", 0.5, 2.3, "x", 0.25], ["a.mp4#t=3.000", 3.0, 3.0, "y", 0.5]]
    if suffix == "csv":
        with output.open(encoding="utf-8", newline="") as file:
            found = [list(row.values()) for row in csv.DictReader(file, quoting=csv.QUOTE_NONNUMERIC)]
    elif suffix == "jsonl":
        found = [list(json.loads(line).values()) for line in output.read_text(encoding="utf-8").splitlines()]
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        found = [list(row.values()) for row in parquet.read_table(output).to_pylist()]
    assert found == wanted


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_rows_of_sets_say_which_classes_are_present(tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"a.{suffix}"
    with written(output, SETS, timed=True) as rows:
        rows.add(source("a.mp4", (0.5, 2.5)), TOP, "bright|dark")
        rows.add(source("a.mp4", (3.0, 3.0)), TOP, "")
    names = ["file", "start", "end", "prediction", "class_1", "probability_1", "class_2", "probability_2"]
    assert columns(SETS, timed=True) == names
    if suffix == "csv":
        with output.open(encoding="utf-8", newline="") as file:
            found = list(csv.DictReader(file, quoting=csv.QUOTE_NONNUMERIC))
    elif suffix == "jsonl":
        found = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    else:
        found = pytest.importorskip("pyarrow.parquet").read_table(output).to_pylist()
    assert all([*row] == names for row in found)
    assert [row["prediction"] for row in found] == ["bright|dark", ""]
    assert [row["start"] for row in found] == [0.5, 3.0]
    assert [row["class_1"] for row in found] == ["bright", "bright"]


def test_the_table_of_sets_ends_with_the_classes_that_are_present(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(width=5, layout=SetOfClasses(2, ["dark", "bright"]))
    table.add(source("a.png"), TOP, "dark|bright")
    table.add(source("b.png"), TOP, "")
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["file", "top", "1", "top", "2", "prediction"]
    assert first.split() == ["a.png", "bright", "70.00", "%", "dark", "0.00", "%", "dark|bright"]
    assert second.split() == ["b.png", "bright", "70.00", "%", "dark", "0.00", "%", "(none)"]
    assert head.index("prediction") == first.index("dark|bright") == second.index("(none)")


def test_the_table_shows_the_part_behind_the_name(capsys: pytest.CaptureFixture[str]) -> None:
    Table(width=4, layout=OneClass(1, ["x"])).add(source("a\n.mp4", (0.0, 2.0)), [("x", 1.0)])
    assert capsys.readouterr().out.splitlines()[1].split()[0] == "a\\n.mp4#t=0.000,2.000"


def test_the_table_escapes_names_of_classes_and_stays_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(width=5, layout=SetOfClasses(1, ["\x1b[2J", "b"]))
    table.add(source("a.png"), [("\x1b[2J", 1.0)], "\x1b[2J|b\n")
    table.add(source("b.png"), [("b", 0.5)], "")
    head, first, second = capsys.readouterr().out.splitlines()
    assert first == "a.png  \\x1b[2J  100.00 %  \\x1b[2J|b\\n"
    assert head.index("prediction") == first.rindex("\\x1b") == second.index("(none)")


def test_the_table_of_a_live_source_shows_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    shown = replace(source("cam", (0.0, 2.0)), shown=datetime(2031, 2, 3, 5, 5, 6, tzinfo=timezone(timedelta(hours=1))))
    Table(width=20, layout=OneClass(1, ["x"]), live=True).add(shown, [("x", 1.0)])
    head, line = (text.split() for text in capsys.readouterr().out.splitlines())
    assert head == ["file", "time", "top", "1"]
    assert line == ["cam#t=0.000,2.000", "2031-02-03T04:05:06.000Z", "x", "100.00", "%"]


@pytest.mark.parametrize("answer", [math.nan, math.inf, -math.inf])
def test_answers_that_are_not_finite_have_no_meaning(answer: float) -> None:
    for layout in (top(1), SETS, NumberOfEachOutput(1, ["age", "height"])):
        with pytest.raises(DataError) as caught:
            layout.check(np.array([[0.5, 0.5], [0.5, answer]], np.float32))
        assert caught.value.message == f"the model answers {answer:g}, expected a finite number"


@pytest.mark.parametrize("answer", [1.43, -0.2, 86.0, 1.01])
def test_answers_that_are_not_from_0_to_1_are_not_probabilities(answer: float) -> None:
    answers = np.array([[0.5, answer]], np.float32)
    for layout in (top(1), SETS):
        with pytest.raises(DataError) as caught:
            layout.check(answers)
        assert caught.value.message == f"the model answers {answer:g}, expected a probability from 0 to 1"
    NumberOfEachOutput(1, ["age", "height"]).check(answers)


def test_a_probability_may_be_rounded() -> None:
    for layout in (top(1), SETS):
        layout.check(np.array([[1.0005, -0.0005], [0.0, 1.0]], np.float32))


def repeat(file: Rows, rows: int) -> None:
    for _ in range(rows):
        file.add(source("a.png"), TOP)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("rows", [1, 500])
def test_a_full_disk_names_the_file_and_leaves_what_was_there(tmp_path: Path, suffix: str, rows: int) -> None:
    """Found while rows are added, or when the last ones are written."""
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    output = tmp_path / f"out.{suffix}"
    output.write_text("before")
    with files_of_at_most(64), pytest.raises(RunFailed) as caught, written(output, top(2)) as file:
        repeat(file, rows)
    assert caught.value.message == f"--output {output}: cannot be written: {os.strerror(errno.EFBIG)}"
    assert caught.value.next_step == "free disk space or fix the folder, then run the same command again"
    assert [path.name for path in tmp_path.iterdir()] == [output.name]
    assert output.read_text() == "before"


def test_a_pipe_is_not_an_output(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "out.csv")
    with pytest.raises(UsageError, match=r"out\.csv: expected a regular file, got a pipe, a socket or a device"):
        check_output(tmp_path / "out.csv")
