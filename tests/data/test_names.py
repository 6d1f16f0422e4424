"""Names of files as tables write them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from toolkit.api.errors import DataError
from toolkit.data.names import Files, Match, lenient_notes

ITEMS = (
    "cat/a.jpg",
    "cat/b.JPG",
    "dog/a.jpg",
    "dog/Image_1.jpg",
    "dog/Image_1.txt",
    "deep/er/c.png",
    "v1.0.jpg",
    unicodedata.normalize("NFD", "café/thé.jpg"),
    "deep/d.png",
    "deep/d.jpg",
)

MEANT: dict[str, tuple[str, Match | None]] = {
    "a path": ("cat/a.jpg", Match("cat/a.jpg")),
    "a path from here": ("./cat/a.jpg", Match("cat/a.jpg")),
    "a whole path": ("/root/cat/a.jpg", Match("cat/a.jpg")),
    "backslashes": ("cat\\a.jpg", Match("cat/a.jpg")),
    "the last parts": ("er/c.png", Match("deep/er/c.png")),
    "the name alone": ("c.png", Match("deep/er/c.png")),
    "another form of Unicode": ("caf\u00e9/th\u00e9.jpg", Match(ITEMS[7])),
    "its name in another form": ("th\u00e9.jpg", Match(ITEMS[7])),
    "another case": ("CAT/A.JPG", Match("cat/a.jpg", "in another case")),
    "another case of the suffix": ("b.jpg", Match("cat/b.JPG", "in another case")),
    "no suffix": ("er/c", Match("deep/er/c.png", "without a suffix")),
    "no suffix, among files of other kinds": ("Image_1", Match("dog/Image_1.jpg", "without a suffix")),
    "no suffix, in another case": ("image_1", Match("dog/Image_1.jpg", "without a suffix")),
    "no suffix behind a dot": ("v1.0", Match("v1.0.jpg", "without a suffix")),
    "no such file": ("cat/z.jpg", None),
    "another suffix": ("cat/a.png", None),
    "out of the root": ("../cat/a.jpg", None),
    "part of a name": ("mage_1.jpg", None),
    "nothing": ("", None),
}


def files() -> Files:
    return Files(Path("/root"), ITEMS, lambda item: not item.endswith(".txt"))


@pytest.mark.parametrize("name", MEANT)
def test_a_name_means_the_one_file_that_fits(name: str) -> None:
    written, match = MEANT[name]
    assert files().find(written) == match


@pytest.mark.parametrize(
    ("written", "candidates"), [("a.jpg", "cat/a.jpg, dog/a.jpg"), ("d", "deep/d.jpg, deep/d.png")]
)
def test_a_name_that_several_files_fit_is_an_error(written: str, candidates: str) -> None:
    with pytest.raises(DataError) as caught:
        files().find(written)
    assert caught.value.message == f"/root: {written} may be any of {candidates}"


def test_names_that_differ_from_the_files_are_noted() -> None:
    found = [("a", Match("a.jpg", "without a suffix")), ("B.jpg", Match("b.jpg", "in another case")), ("c", Match("c"))]
    assert list(lenient_notes("train.csv", found)) == [
        "train.csv: 1 name without a suffix, each of which one file fits: a (a.jpg)",
        "train.csv: 1 name in another case, each of which one file fits: B.jpg (b.jpg)",
    ]
