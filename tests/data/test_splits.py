from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.api.errors import DataError
from toolkit.data.splits import Partition, contents, fold_partition, merge_groups, partition, split_hash, stat_key

SHARES = {"valid_share": 0.2, "test_share": 0.2}


@st.composite
def grouped_items(draw: st.DrawFn) -> tuple[list[str], list[int], list[str]]:
    sizes = draw(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 3)), min_size=1, max_size=25))
    targets = [target for count, target in sizes for _ in range(count)]
    groups = [f"g{group}" for group, (count, _) in enumerate(sizes) for _ in range(count)]
    return [f"item{number}" for number in range(len(targets))], targets, groups


def divide(ids: list[str], targets: list[int], groups: list[str] | None = None, **wanted: float) -> Partition:
    wanted = {**SHARES, "seed": 0, **wanted}
    return partition(ids, targets, classes=[f"class{n}" for n in range(max(targets) + 1)], groups=groups, **wanted)


def sides(parts: Partition) -> tuple[tuple[int, ...], ...]:
    return parts.train, parts.valid, parts.test


@given(grouped_items(), st.integers(0, 5))
@settings(max_examples=60)
def test_every_item_is_in_exactly_one_split_and_no_group_is_on_two_sides(items, seed):
    ids, targets, groups = items
    parts = divide(ids, targets, groups, seed=seed)
    assert sorted(position for side in sides(parts) for position in side) == list(range(len(ids)))
    names = [{groups[position] for position in side} for side in sides(parts)]
    assert sum(map(len, names)) == len(set(groups))


@given(grouped_items(), st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_the_order_of_listing_changes_nothing(items, shuffler: random.Random):
    ids, targets, groups = items
    order = list(range(len(ids)))
    shuffler.shuffle(order)
    before = divide(ids, targets, groups)
    after = divide([ids[n] for n in order], [targets[n] for n in order], [groups[n] for n in order])
    for one, other in zip(sides(before), sides(after), strict=True):
        assert {ids[position] for position in one} == {ids[order[position]] for position in other}
    assert before.notes == after.notes


@given(grouped_items())
@settings(max_examples=60)
def test_each_class_gets_its_shares_as_nearly_as_its_groups_allow(items):
    ids, targets, groups = items
    parts = divide(ids, targets, groups)
    for target, total in Counter(targets).items():
        largest = max(Counter(group for group, t in zip(groups, targets, strict=True) if t == target).values())
        for side, share in zip(sides(parts), (0.6, 0.2, 0.2), strict=True):
            got = sum(targets[position] == target for position in side)
            assert abs(got - share * total) <= 3 * largest


@given(st.lists(st.integers(0, 4), min_size=20, max_size=200))
@settings(max_examples=40)
def test_single_items_are_divided_to_within_one_of_their_share(targets):
    parts = divide([f"{n}" for n in range(len(targets))], targets)
    for target, total in Counter(targets).items():
        for side, share in zip(sides(parts), (0.6, 0.2, 0.2), strict=True):
            got = sum(targets[position] == target for position in side)
            assert abs(got - share * total) < 1 or (total >= 3 and got == 1) or total < 5


@given(grouped_items())
@settings(max_examples=60)
def test_a_class_of_three_groups_or_more_is_in_every_split(items):
    ids, targets, groups = items
    parts = divide(ids, targets, groups)
    members = {target: {g for g, t in zip(groups, targets, strict=True) if t == target} for target in set(targets)}
    for side in sides(parts):
        present = {targets[position] for position in side}
        assert {target for target, names in members.items() if len(names) >= 3} <= present


def test_train_then_test_are_served_first_and_the_rest_is_reported():
    parts = divide(list("abcd"), [0, 0, 1, 1], list("wxyy"))
    assert [len(side) for side in sides(parts)] == [3, 0, 1]
    assert parts.notes == (
        "the valid split has no item of class0, class1: too few groups to be on every side",
        "the test split has no item of class1: too few groups to be on every side",
    )


def test_a_long_list_of_skipped_classes_is_cut_short():
    parts = divide([f"{n}" for n in range(7)], list(range(7)))
    assert parts.notes[0].startswith(
        "the valid split has no item of class0, class1, class2, class3, class4 and 2 more:"
    )


def test_a_group_may_hold_several_classes():
    parts = divide(list("abcdef"), [0, 1, 0, 1, 0, 1], ["x", "x", "y", "y", "z", "z"])
    assert sorted(len(side) for side in sides(parts)) == [2, 2, 2]
    assert not parts.notes


def test_another_seed_gives_another_split():
    ids, targets = [f"{n}" for n in range(40)], [n % 2 for n in range(40)]
    assert divide(ids, targets, seed=0).test != divide(ids, targets, seed=1).test


def test_the_split_is_the_same_on_every_machine():
    parts = divide([f"{n}" for n in range(12)], [n % 2 for n in range(12)], seed=3)
    assert sides(parts) == ((0, 1, 5, 6, 7, 8, 9, 10), (2, 3), (4, 11))


def test_shares_of_nothing_leave_everything_to_train():
    parts = divide(list("abc"), [0, 1, 1], valid_share=0.0, test_share=0.0)
    assert sides(parts) == ((0, 1, 2), (), ())
    assert not parts.notes


def test_shares_must_leave_something_for_train():
    with pytest.raises(ValueError, match=r"^test_share: valid_share \+ test_share must be below 1, got 1$"):
        divide(["a"], [0], valid_share=0.5, test_share=0.5)


def test_nothing_to_split_is_an_error():
    with pytest.raises(DataError, match="no items to split"):
        partition([], [], classes=[], valid_share=0.1, test_share=0.1, seed=0)


@given(
    st.lists(st.sampled_from("abcdef"), min_size=2, max_size=12),
    st.lists(st.lists(st.integers(0, 11), min_size=2, max_size=3), max_size=5),
)
@settings(max_examples=60)
def test_merged_groups_join_what_is_linked_and_nothing_else(groups, identical):
    identical = [[position % len(groups) for position in positions] for positions in identical]
    merged = merge_groups(groups, identical)
    linked = [{n for n, g in enumerate(groups) if g == group} for group in set(groups)] + [set(p) for p in identical]
    expected = {n: {n} for n in range(len(groups))}
    for _ in groups:
        for positions in linked:
            union = set().union(*(expected[n] for n in positions))
            expected.update(dict.fromkeys(union, union))
    for n in range(len(groups)):
        assert {m for m, group in enumerate(merged) if group == merged[n]} == expected[n]


def test_the_hash_knows_which_item_is_where_but_not_their_order():
    parts = {"train": ["a", "b"], "test": ["c"]}
    assert split_hash(parts) == split_hash({"test": ["c"], "train": ["b", "a"]})
    assert (
        len({split_hash(parts), split_hash({"train": ["a"], "test": ["b", "c"]}), split_hash({"train": ["ab"]})}) == 3
    )
    assert len(split_hash(parts)) == 12


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_identical_files_are_found_and_files_of_one_size_are_distinguished(tmp_path):
    data = [b"same", b"othr", b"same", b"longer", b"same"]
    paths = [write(tmp_path / f"{n}", content) for n, content in enumerate(data)]
    found = contents(paths, workers=2)
    assert found.identical == ((0, 2, 4),)
    assert found.keys[0] == found.keys[2]
    assert len(set(found.keys)) == 3


def test_large_files_are_read_to_their_end(tmp_path):
    first, second = write(tmp_path / "a", bytes(1 << 21)), write(tmp_path / "b", bytes((1 << 21) - 1) + b"x")
    assert contents([first, second]).identical == ()


def test_a_key_changes_with_the_file(tmp_path):
    path = write(tmp_path / "a", b"1")
    before = stat_key(path)
    write(path, b"12")
    grown = stat_key(path)
    os.utime(path, ns=(1, 1))
    assert len({before, grown, stat_key(path)}) == 3


def test_a_file_that_is_gone_is_named(tmp_path):
    gone = tmp_path / "gone.jpg"
    for read in (stat_key, lambda path: contents([path])):
        with pytest.raises(DataError) as caught:
            read(gone)
        assert caught.value.path == gone
        assert "cannot be read: No such file" in caught.value.message
        assert caught.value.next_step == "Check that the file exists and may be read."


def test_a_file_that_vanishes_or_may_not_be_read_is_named(tmp_path, monkeypatch):
    paths = [write(tmp_path / name, b"same") for name in "ab"]

    def refuse(self: Path, *args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match="a: cannot be read: Permission denied"):
        contents(paths)


@pytest.mark.parametrize("folds", [2, 5])
def test_over_all_folds_every_item_is_tested_once_and_no_group_is_parted(folds: int) -> None:
    ids = [f"{place:03}" for place in range(90)]
    targets = [place % 3 for place in range(90)]
    groups = [f"video {place // 3}" for place in range(90)]
    tested: list[int] = []
    for fold in range(folds):
        found = fold_partition(
            ids, targets, classes="abc", folds=folds, fold=fold, valid_share=0.2, seed=0, groups=groups
        )
        sides = [{groups[position] for position in side} for side in (found.train, found.valid, found.test)]
        assert len(sides[0] | sides[1] | sides[2]) == sum(map(len, sides))
        assert sorted((*found.train, *found.valid, *found.test)) == list(range(90))
        assert Counter(targets[position] for position in found.test) == dict.fromkeys(range(3), 30 // folds)
        tested += found.test
    assert sorted(tested) == list(range(90))


def test_folds_do_not_depend_on_the_order_of_the_items() -> None:
    ids = [f"{place:03}" for place in range(40)]
    there = fold_partition(ids, [0] * 40, classes="a", folds=4, fold=1, valid_share=0.2, seed=3)
    back = fold_partition(ids[::-1], [0] * 40, classes="a", folds=4, fold=1, valid_share=0.2, seed=3)
    assert {ids[position] for position in there.test} == {ids[::-1][position] for position in back.test}


def test_fewer_groups_than_folds_are_an_error() -> None:
    with pytest.raises(DataError, match="2 groups cannot be divided into 3 folds"):
        fold_partition(["a", "b"], [0, 1], classes="xy", folds=3, fold=0, valid_share=0.2, seed=0)


def test_a_class_that_a_fold_lacks_is_noted() -> None:
    found = fold_partition(list("abcd"), [0, 0, 0, 1], classes=["cat", "dog"], folds=2, fold=0, valid_share=0, seed=0)
    other = fold_partition(list("abcd"), [0, 0, 0, 1], classes=["cat", "dog"], folds=2, fold=1, valid_share=0, seed=0)
    notes = {note for note in (*found.notes, *other.notes) if note.startswith("fold")}
    assert len(notes) == 1
    assert notes.pop().endswith("has no item of dog: too few groups")
