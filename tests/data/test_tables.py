"""Tables and lists as spreadsheets, systems and people write them."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from pathlib import Path

import pytest

from toolkit.api.errors import DataError
from toolkit.data.tables import decoded, lines_of, open_table, paths_of, read_header, read_lines, read_table

ROWS = [(2, ("a.jpg", "cat")), (3, ("b.jpg", "dog"))]
TEXT = "path,label\na.jpg,cat\nb.jpg,dog\n"

WRITTEN: dict[str, bytes] = {
    "plain": TEXT.encode(),
    "without an end": TEXT.rstrip().encode(),
    "a mark before UTF-8": TEXT.encode("utf-8-sig"),
    "UTF-16 as spreadsheets save it": TEXT.encode("utf-16"),
    "UTF-16, big end first": codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
    "UTF-32": TEXT.encode("utf-32"),
    "ends of Windows": TEXT.replace("\n", "\r\n").encode(),
    "ends of old Macs": TEXT.replace("\n", "\r").encode(),
    "semicolons": TEXT.replace(",", ";").encode(),
    "tabs": TEXT.replace(",", "\t").encode(),
    "tabs in UTF-16": TEXT.replace(",", "\t").encode("utf-16"),
    "quotes": b'"path","label"\n"a.jpg","cat"\n"b.jpg","dog"\n',
    "blanks around values": b" path , label \n a.jpg , cat \n b.jpg , dog \n",
    "other columns and case": b"id;Label;PATH\n1;cat;a.jpg\n2;dog;b.jpg\n",
    "a first line that names the separator": b"sep=;\npath;label\na.jpg;cat\nb.jpg;dog\n",
    "a comma in a quoted name of a column": b'"which, label";path;label\nx;a.jpg;cat\ny;b.jpg;dog\n',
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_table_is_read_however_it_is_written(name: str, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(WRITTEN[name])
    skipped = 1 if name.startswith("a first line") else 0
    assert read_table(file, ("path", "label")) == [(line + skipped, row) for line, row in ROWS]
    assert {"path", "label"} <= {column.lower() for column in read_header(file)}


def test_a_value_may_hold_what_separates_values(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text('path,labels\n"a, b.jpg","cat,dog"\n"c ""d"".jpg","two\nlines"\n')
    assert read_table(file, ("path", "labels")) == [(2, ("a, b.jpg", "cat,dog")), (4, ('c "d".jpg', "two\nlines"))]


def test_names_are_read_in_one_form_of_unicode(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("path,label\ncafe\u0301/1.jpg,the\u0301\n", encoding="utf-8")
    assert read_table(file, ("path", "label")) == [(2, ("caf\u00e9/1.jpg", "th\u00e9"))]


# ruff: noqa: E501 - a table
WRONG: dict[str, tuple[bytes, str, str]] = {
    "Latin-1": (b"path,label\na.jpg,caf\xe9\n", "line 2: is not UTF-8: invalid continuation byte", "Save the file as UTF-8."),
    "UTF-16 without a mark": (
        TEXT.encode("utf-16-le"),
        "line 1: is not text: it holds a zero byte, as UTF-16 without a byte order mark does",
        "Save the file as UTF-8.",
    ),
    "an image": (b"\x89PNG\r\n\x1a\n", "line 1: is not UTF-8: invalid start byte", "Save the file as UTF-8."),
    "half of UTF-16": (TEXT.encode("utf-16")[:-1], "line 3: is not UTF-16: truncated data", "Save the file as UTF-8."),
    "too many values": (
        b"path;label\na.jpg;cat\nb.jpg;dog;x\n",
        "line 3: has 3 values, the header names 2 columns",
        "Put values that hold semicolons in quotes, or name all columns in line 1.",
    ),
    "an open quote": (b'path,label\n"a.jpg,cat\n', "line 2: is not CSV: unexpected end of data", ""),
    "no label": (b"path\tlabel\na.jpg\t\n", "line 2: label is empty", "Fill it in, or remove the line."),
    "another separator in a row": (b"path,label\na.jpg;cat\n", "line 2: label is empty", "Fill it in, or remove the line."),
    "no such column": (
        b"file;label\na.jpg;cat\n",
        "line 1: the header has no column path; it reads file;label",
        "Make the first line path;label",
    ),
    "nothing": (b"", "line 1: the header has no column path, label; it reads (nothing)", "Make the first line path,label"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_reported_with_its_line(name: str, tmp_path: Path) -> None:
    data, message, next_step = WRONG[name]
    file = tmp_path / "a.csv"
    file.write_bytes(data)
    with pytest.raises(DataError) as caught:
        read_table(file, ("path", "label"))
    assert caught.value.message == f"{file}: {message}"
    assert (caught.value.next_step or "") == next_step


@pytest.mark.parametrize(
    "write", [str.encode, lambda text: text.encode("utf-8-sig"), lambda text: text.encode("utf-16")]
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_read_however_they_end(write: Callable[[str], bytes], end: str, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(write(end.join(["a.jpg cat", "", " b.jpg dog ", "c\u2028d.jpg cat"])))
    assert read_lines(file) == [(1, "a.jpg cat"), (3, "b.jpg dog"), (4, "c\u2028d.jpg cat")]


def test_a_list_of_any_text_has_some_header(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text('a"b,c".jpg cat\n')
    assert read_header(file) == ('a"b', 'c".jpg cat')
    file.write_text("")
    assert read_header(file) == ()
    file.write_text("x" * 200_000)
    assert read_header(file) == ()


def test_bytes_that_are_not_text_may_be_kept() -> None:
    assert decoded(b"caf\xe9", errors="surrogateescape") == "caf\udce9"
    assert lines_of("a\r\nb\rc\n\nd") == [(1, "a"), (2, "b"), (3, "c"), (4, ""), (5, "d")]


def test_a_table_knows_its_separator(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("a;b\n1;2\n")
    assert (open_table(file).separator, open_table(file).said) == (";", "a;b")


LISTED = {
    "lines": b"a b.jpg\nc.jpg\n",
    "a mark": b"\xef\xbb\xbfa b.jpg\nc.jpg",
    "ends of Windows": b"a b.jpg\r\nc.jpg\r\n",
    "blank lines": b"\na b.jpg\n\nc.jpg\n\n",
    "UTF-16": "a b.jpg\nc.jpg\n".encode("utf-16"),
    "a column alone": b"filename\na b.jpg\nc.jpg\n",
    "a table": b"id,path\n1,a b.jpg\n2,c.jpg\n",
    "a table of a spreadsheet": "Filename;label\na b.jpg;x\nc.jpg;y\n".encode("utf-8-sig"),
    "a table with tabs": b"label\tpath\nx\ta b.jpg\ny\tc.jpg\n",
    "quotes": b'path,label\n"a b.jpg","x, y"\n"c.jpg",z\n',
}


@pytest.mark.parametrize("name", LISTED)
def test_the_paths_of_a_list_are_found_however_it_is_written(name: str) -> None:
    assert paths_of(LISTED[name], Path("list")) == ["a b.jpg", "c.jpg"]


def test_paths_that_are_not_text_are_kept() -> None:
    assert paths_of(b"caf\xe9.jpg\n", Path("list")) == ["caf\udce9.jpg"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            b"a.jpg\n\0.jpg\n",
            "list: line 2: is not text: it holds a zero byte, as UTF-16 without a byte order mark does",
        ),
        (b"path,label\n,x\n", "list: line 2: path is empty"),
        (b"path,label\na.jpg,x,y\n", "list: line 2: has 3 values, the header names 2 columns"),
    ],
)
def test_what_is_wrong_with_a_list_is_reported_with_its_line(data: bytes, message: str) -> None:
    with pytest.raises(DataError) as caught:
        paths_of(data, Path("list"))
    assert caught.value.message == message
