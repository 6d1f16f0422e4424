"""What a table says of the items of a dataset."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.small import SPEC, Reels, Squares
from toolkit.api.contracts import Data
from toolkit.api.errors import DataError
from toolkit.data.metadata import with_metadata
from toolkit.data.videos import FramesOf

FIRST, SECOND = "square/000.png", "square/001.png"


def data() -> Data:
    return Data(SPEC, Squares(6), Squares(4), Squares(0), metadata={"hospital": {FIRST: "north"}})


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_without_a_file_the_data_stays_as_it_is() -> None:
    whole = data()
    assert with_metadata(whole, None) is whole


def test_each_column_says_something_of_items(tmp_path: Path) -> None:
    file = written(tmp_path / "m.csv", f"light;item;age\nday;{FIRST};7\n;{SECOND};8\n")
    found = with_metadata(data(), file)
    assert found.metadata == {
        "hospital": {FIRST: "north"},
        "light": {FIRST: "day"},
        "age": {FIRST: "7", SECOND: "8"},
    }
    assert found.protocol == data().protocol


def test_of_frames_it_names_videos(tmp_path: Path) -> None:
    none = Reels(0)
    frames = Data(SPEC, FramesOf(Reels(2), 2), none, none)
    found = with_metadata(frames, written(tmp_path / "m.csv", "item,light\nreel/001.mp4,day\n"))
    assert found.metadata["light"] == {"reel/001.mp4#0": "day", "reel/001.mp4#1": "day"}


def test_columns_without_name_and_values_are_those_of_a_spreadsheet(tmp_path: Path) -> None:
    found = with_metadata(data(), written(tmp_path / "m.csv", f"item,light,\n{FIRST},day,\n"))
    assert found.metadata["light"] == {FIRST: "day"}
    assert "" not in found.metadata


REFUSED = {
    "no items": (
        f"path,light\n{FIRST},day\n",
        "line 1: the header has no column item; it reads path,light",
        f"Call the column of the items item; names are those of the data, such as {FIRST}.",
    ),
    "nothing else": (
        f"item\n{FIRST}\n",
        "line 1: the header has no column besides item",
        "Add a column: item,light",
    ),
    "one name twice": (
        f"item,light,Light\n{FIRST},day,night\n",
        "line 1: several columns are called light",
        "Give each column a name of its own.",
    ),
    "a name that is taken": (
        f"item,Brightness\n{FIRST},1\n",
        "line 1: the column brightness has the name of a slice that scores have in any case",
        "Rename it, such as my_brightness.",
    ),
    "no name": (
        f"item,light,\n{FIRST},day,3\n",
        "line 1: column 3 has no name",
        "Name it, or remove its values.",
    ),
    "unknown item": (
        "item,light\nsquare/999.png,day\n",
        "line 2: names 1 item that the data does not have: square/999.png",
        f"Names are those of the data, such as {FIRST}.",
    ),
    "item twice": (
        f"item,light\n{FIRST},day\n\n{FIRST},night\n",
        f"line 4: names {FIRST} again, after line 2",
        "Keep one of the lines.",
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_right_is_refused(case: tuple[str, str, str], tmp_path: Path) -> None:
    text, message, step = case
    file = written(tmp_path / "m.csv", text)
    with pytest.raises(DataError) as refused:
        with_metadata(data(), file)
    assert (refused.value.message, refused.value.path, refused.value.next_step) == (
        f"{file}: {message}",
        file,
        step,
    )


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    written(tmp_path / "metadata.csv", "item,light\n")
    with pytest.raises(DataError, match="file not found") as refused:
        with_metadata(data(), tmp_path / "metdata.csv")
    assert refused.value.next_step == "Correct its name; the folder has metadata.csv."
