"""Forms of targets: tensors, strata, and numbers in tables."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.plugins.data_files import splits, write_image
from toolkit.api.contracts import Data
from toolkit.api.errors import DataError
from toolkit.data.targets import FORMS, MOST_STRATA
from toolkit_folders.image_folder import image_folder

NUMBERS = FORMS["number"]


def test_each_form_has_its_tensor() -> None:
    assert FORMS["index"].tensor([2, 0], 3).tolist() == [2, 0]
    assert FORMS["set"].tensor([(0, 2), ()], 3).tolist() == [[1, 0, 1], [0, 0, 0]]
    found = NUMBERS.tensor([(1.5, -2.0), (0.0, 3.0)], 2)
    assert found.dtype == torch.float32
    assert found.tolist() == [[1.5, -2.0], [0.0, 3.0]]


@pytest.mark.parametrize(
    ("target", "holds"),
    [
        ((1.0, 2.0), True),
        ((1.0,), False),
        ((1.0, math.nan), False),
        ((1.0, math.inf), False),
        (1.0, False),
        ("ab", False),
    ],
)
def test_numbers_are_one_finite_float_for_each_output(target: object, holds: bool) -> None:
    assert NUMBERS.holds(target, 2) == holds


def test_strata_are_ranges_of_about_equally_many_items() -> None:
    strata = NUMBERS.strata([(float(item**2), float(item % 2)) for item in range(400)], ("area", "side"))
    counts = Counter(number for target in strata.targets for number in target)  # type: ignore[union-attr]
    assert len(strata.names) == MOST_STRATA + 2
    assert {counts[number] for number in range(MOST_STRATA)} == {40}
    assert strata.names[0] == "area -inf to 1600"
    assert [counts[number] for number in range(MOST_STRATA, MOST_STRATA + 2)] == [200, 200]


def test_equal_numbers_are_one_stratum() -> None:
    assert len(NUMBERS.strata([(1.0,)] * 500, ("age",)).names) == 1


# Tables


def numbered(root: Path, *lines: str, images: int = 60) -> Path:
    for number in range(images):
        write_image(root / f"{number}.png", number)
    rows = lines or ("Path,age,note", *(f"{number}.png,{number / 4},x" for number in range(images)))
    (root / "list.csv").write_text("\n".join([*rows, ""]), encoding="utf-8")
    return root


def test_a_column_of_numbers_is_read_and_divided_by_range(tmp_path: Path) -> None:
    data = image_folder(numbered(tmp_path), train="list.csv", numbers="age")
    assert (data.spec.targets, data.spec.classes) == ("number", ("age",))
    found = {item: target for split in splits(data) for item, target in zip(split.ids, split.targets, strict=True)}
    assert found["7.png"] == (1.75,)
    shown = [value for (value,) in data.test.targets]  # type: ignore[misc]
    assert all(sum(start <= value < start + 5 for value in shown) >= 2 for start in (0, 5, 10))


def refused(root: Path, **args: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        image_folder(root, **{"train": "list.csv", "numbers": ["age"]} | args)
    return caught.value


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1.png,old", "line 3: expected numbers, got old"),
        ("1.png,nan", "line 3: expected numbers, got nan"),
        ("1.png,1e999", "line 3: expected numbers, got 1e999"),
        ("1.png,", "line 3: age is empty"),
        ("9.png,3", "1 image named there not found: 9.png"),
        ("0.png,4", "1 image in more than one number: 0.png"),
    ],
)
def test_what_is_wrong_with_a_number_is_located(tmp_path: Path, line: str, said: str) -> None:
    assert said in refused(numbered(tmp_path, "path,age", "0.png,1", line, images=2)).message


def test_a_column_that_is_missing_is_named(tmp_path: Path) -> None:
    error = refused(numbered(tmp_path), numbers=["agee"])
    assert "line 1: the header has no column agee; it reads Path,age,note" in error.message


def test_numbers_that_are_all_the_same_are_refused(tmp_path: Path) -> None:
    lines = ("path,age", *(f"{number}.png,3" for number in range(4)))
    assert "every item has the same age" in refused(numbered(tmp_path, *lines, images=4)).message


def test_class_folders_have_no_numbers(tmp_path: Path) -> None:
    write_image(tmp_path / "a" / "0.png")
    error = refused(tmp_path, train=None)
    assert "class folders give labels, but data.numbers needs numbers" in error.message
    assert error.next_step == "Write them into a CSV (path,age) and set data.train to it."


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"labels": "several"}, 'numbers: cannot be combined with data.labels = "several"'),
        ({"numbers": ["age", "Age"]}, "numbers: names a column twice: age, Age"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(tmp_path: Path, args: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        image_folder(numbered(tmp_path), **{"train": "list.csv", "numbers": ["age"]} | args)


def test_groups_need_no_label(tmp_path: Path) -> None:
    numbered(tmp_path)
    rows = "".join(f"{number}.png,{number // 2}\n" for number in range(60))
    (tmp_path / "groups.csv").write_text(f"path,group\n{rows}", encoding="utf-8")
    data: Data = image_folder(tmp_path, train="list.csv", numbers="age")
    held = [{int(item.removesuffix(".png")) // 2 for item in split.ids} for split in splits(data)]
    assert not held[0] & held[1]
    assert not held[0] & held[2]
