"""Files and folders get to their place whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.files import replaced_folder


def filled(place: Path, text: str) -> None:
    with replaced_folder(place) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "file").write_text(text)


@pytest.mark.parametrize("before", [None, "old"])
def test_a_folder_takes_its_place_whole(tmp_path: Path, before: str | None) -> None:
    place = tmp_path / "parent" / "place"
    if before:
        filled(place, before)
        (place / "extra").touch()
    filled(place, "new")
    assert (place / "inner" / "file").read_text() == "new"
    assert [path.name for path in place.iterdir()] == ["inner"]
    assert list(place.parent.iterdir()) == [place]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_failed_leaves_the_old_folder_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    place = tmp_path / "place"
    filled(place, "old")

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise error

    with pytest.raises(error), replaced_folder(place) as folder:
        fail(folder)
    assert (place / "inner" / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [place]
