"""Listings that no folder gives: what any dataset plugin can make a dataset of."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.api.errors import DataError
from toolkit.data.division import Division
from toolkit.data.folders import Found, Listing
from toolkit.data.labelled import labelled


def listing(root: Path, targets: tuple[object, ...]) -> Listing:
    ids = tuple(f"{number:02d}.png" for number in range(len(targets)))
    for number, item in enumerate(ids):
        (root / item).write_bytes(bytes(number + 1))
    return Listing(root, ids, targets, ("dog", "grass"), "set")  # type: ignore[arg-type]


def test_items_may_show_sets_of_classes(tmp_path: Path) -> None:
    targets = ((0,), (0, 1), (1,), ()) * 6
    data = labelled(Found(listing(tmp_path, targets), videos=False), Division(0.25, 0.25, 0))
    assert data.spec.targets == "set"
    assert [len(data.train), len(data.valid) + len(data.test)] == [12, 12]
    for split in (data.train, data.valid, data.test):
        assert {number for target in split.targets for number in target} == {0, 1}  # type: ignore[union-attr]
    assert data.notes == ("6 items without a label: 03.png, 07.png, 11.png and 3 more",)


def test_sets_are_named_by_all_of_their_classes_in_a_table_of_groups(tmp_path: Path) -> None:
    found = Found(listing(tmp_path, ((0, 1), (0,), (), (1,))), videos=False)
    rows = ["path,label,group", "00.png,dog|grass,a", "01.png,dog,a"]
    (tmp_path / "groups.csv").write_text("\n".join(rows), encoding="utf-8")
    assert labelled(found, Division(0, 0, 0)).protocol["grouping"] == "groups.csv"
    (tmp_path / "groups.csv").write_text("path,label,group\n00.png,dog,a", encoding="utf-8")
    with pytest.raises(DataError, match=r"00\.png is labelled dog, but its files say dog\|grass"):
        labelled(found, Division(0, 0, 0))
