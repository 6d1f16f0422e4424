"""Classes that are held out: gone from all splits, with their test items kept apart."""

from __future__ import annotations

import pytest
import torch

from toolkit.api.contracts import Data, DataSpec
from toolkit.data.images import ArrayItems
from toolkit.data.unknown import objections, with_unknown
from toolkit.data.videos import ArrayVideos, FramesOf

CLASSES = ("apple", "b", "c", "d")


def images(name: str, targets: tuple[int, ...]) -> ArrayItems:
    ids = tuple(f"{name}/{number}" for number in range(len(targets)))
    pixels = torch.arange(len(targets), dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2)
    return ArrayItems(ids, targets, ids, pixels)


def data(test: tuple[int, ...] = (3, 1, 2, 1)) -> Data:
    spec = DataSpec(CLASSES, 8)
    return Data(spec, images("train", (0, 1, 2, 3, 1)), images("valid", (1, 3)), images("test", test), {"split": "x"})


def test_items_of_the_classes_are_gone_and_others_are_numbered_again() -> None:
    found = with_unknown(data(), ["b"])
    assert found.spec.classes == ("apple", "c", "d")
    assert (found.train.ids, list(found.train.targets)) == (("train/0", "train/2", "train/3"), [0, 1, 2])
    assert (found.valid.ids, list(found.valid.targets)) == (("valid/1",), [2])
    assert (found.test.ids, list(found.test.targets)) == (("test/0", "test/2"), [2, 1])
    assert found.protocol == {"split": "x", "unknown": "b"}


def test_their_test_items_are_kept_apart() -> None:
    unknown = with_unknown(data(), ["b", "c"]).unknown
    assert unknown is not None
    assert (unknown.ids, list(unknown.targets)) == (("test/1", "test/2", "test/3"), [-1, -1, -1])
    assert [int(unknown.read(place)[0, 0, 0]) for place in range(3)] == [1, 2, 3]  # type: ignore[union-attr]


def test_frames_of_videos_go_with_their_videos() -> None:
    ids = ("v0", "v1", "v2")
    videos = ArrayVideos(ids, (0, 1, 2), ids, torch.zeros(3, 4, 3, 2, 2, dtype=torch.uint8), 10.0)
    framed = FramesOf(videos, 2)
    found = with_unknown(Data(DataSpec(("a", "b", "c"), 8), framed, framed, framed), ["b"])
    assert found.train.ids == ("v0#0", "v0#1", "v2#0", "v2#1")
    assert found.unknown is not None
    assert found.unknown.ids == ("v1#0", "v1#1")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["x", "apple"], ['the data has no class "x"']),
        (["aple"], ['the data has no class "aple"; did you mean "apple"?']),
        (["apple", "b", "c"], ["must leave at least 2 of the 4 classes"]),
        (["apple"], ["the test split has no item of these classes"]),
        (["b"], []),
    ],
)
def test_what_cannot_be_held_out_is_refused(names: list[str], expected: list[str]) -> None:
    assert list(objections(data(), names)) == expected


def test_sets_and_numbers_have_no_class_to_hold_out() -> None:
    spec = DataSpec(CLASSES, 8, targets="set")
    assert list(objections(Data(spec, *[images("x", (0,))] * 3), ["b"])) == ["requires items with one class each"]
