"""What is found about items, from what was measured of them; videos from files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.odd_videos import ODD
from tests.small import SPEC, Reels, Squares
from tests.video_files import write_video
from toolkit.api.contracts import Data, DataSpec, FileProblem
from toolkit.data.images import ImageFiles
from toolkit.data.quality.measures import Moving
from toolkit.data.quality.similar import Pair
from toolkit.data.videos import FramesOf, VideoFiles
from toolkit.runs.data_check import findings as find
from toolkit.runs.data_check.items import Items
from toolkit.runs.data_check.looking import Seen, look


def items_of(
    names: Mapping[str, Sequence[str]], *, sources: Mapping[str, str] | None = None, root: Path | None = None
) -> Items:
    """Items of these names by split; every other one is of the second class."""
    parts = []
    for split in ("train", "valid", "test"):
        held = tuple(names.get(split, ()))
        paths = tuple((root or Path("root")) / name for name in held)
        parts.append(ImageFiles(held, tuple(place % 2 for place in range(len(held))), held, paths))
    return Items.of(Data(SPEC, *parts, sources=sources or {}))


def seen_of(count: int, **changes: object) -> Seen:
    whole = Seen(
        {},
        np.full((count, 2), 32, np.int32),
        *(np.full(count, 100, np.float32) for _ in range(3)),
        np.zeros((count, 1, 16, 16, 3), np.uint8),
        np.array([number.to_bytes(16, "big") for number in range(count)], "V16"),
        {},
        {},
        {},
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


def test_items_are_in_one_row_and_videos_are_whole() -> None:
    items = Items.of(Data(SPEC, FramesOf(Reels(3), 2), FramesOf(Reels(2), 2), FramesOf(Reels(0), 2)))
    assert len(items) == 5
    assert items.videos
    assert items.ids[3] == "reel/000.mp4"
    assert [items.split_name(item) for item in range(5)] == ["train"] * 3 + ["valid"] * 2
    part, index = items.place(4)
    assert (part.ids[index], index) == ("reel/001.mp4", 1)
    assert items.paths == [None] * 5
    assert items.labels[:2] == ["dark", "bright"]


def test_of_copies_the_one_to_test_on_stays() -> None:
    items = items_of({"train": ["a", "b"], "valid": ["c"], "test": ["d"]})
    found = list(find.similar(items, [Pair(0, 3, 0.95, False), Pair(1, 2, 0.93, True), Pair(0, 2, 0.99, False)]))
    assert [(one.kind, one.item, one.other, one.split, one.other_split) for one in found] == [
        ("leak", "a", "d", "train", "test"),
        ("label conflict", "b", "c", "train", "valid"),
        ("leak", "a", "c", "train", "valid"),
    ]
    assert found[1].detail == "mirrored, in another split"
    assert {one.decision for one in found} == {""}


def test_groups_that_span_splits_are_named_whatever_the_recipe_says(tmp_path: Path) -> None:
    """groups.csv counts even if the recipe has a pattern in its place."""
    names = {"train": ["x/1.png", "x/2.png", "y/3.png"], "test": ["y/4.png"]}
    for held in names.values():
        for name in held:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"")
    rows = "path,label,group\nx/1.png,dark,g\nx/2.png,bright,h\ny/3.png,dark,g\ny/4.png,dark,g\n"
    (tmp_path / "groups.csv").write_text(rows, encoding="utf-8")
    (found,) = find.spanning_sources(items_of(names, root=tmp_path))
    assert (found.kind, found.item, found.other) == ("source in several splits", "y/4.png", "x/1.png")
    assert found.detail == "source g (groups.csv): test 1, train 2"
    assert found.score == 3


def test_sources_of_the_dataset_that_span_splits_are_named() -> None:
    items = items_of({"train": ["a", "b"], "valid": ["c"]}, sources={"b": "patient 7", "c": "patient 7"})
    (found,) = find.spanning_sources(items)
    assert (found.item, found.other, found.detail) == (
        "c",
        "b",
        "source patient 7 (as the dataset groups items): train 1, valid 1",
    )


def test_sources_that_names_suggest_are_named() -> None:
    train = [f"{name}/{name}_{scene}_{number}.png" for name in "ab" for scene in (1, 2) for number in range(4)]
    items = items_of({"train": train, "test": ["a/a_1_9.png", "b/b_3_9.png"]})
    found = list(find.spanning_sources(items))
    assert [one.item for one in found] == ["a/a_1_9.png"]


def test_measures_far_from_the_others_are_named_with_their_unit() -> None:
    count = 300
    draw = np.random.default_rng(0)
    sizes = draw.integers(90, 110, (count, 2)).astype(np.int32)
    sizes[1], sizes[2] = (1000, 1000), (60, 180)
    brightness = draw.normal(120, 5, count).astype(np.float32)
    brightness[3] = 250
    sharpness = draw.normal(100, 5, count).astype(np.float32)
    sharpness[4] = 5
    seen = seen_of(count, sizes=sizes, brightness=brightness, sharpness=sharpness)
    items = Items.of(Data(SPEC, Squares(count), Squares(0), Squares(0)))
    found = {one.kind: one for one in find.odd_measures(items, seen, np.arange(count) == 5)}
    assert {kind: one.item[-7:-4] for kind, one in found.items()} == {
        "size outlier": "001",
        "shape outlier": "002",
        "brightness outlier": "003",
        "blur outlier": "004",
        "flat": "005",
    }
    assert found["shape outlier"].detail == "180 x 60 px"
    assert found["brightness outlier"].detail == "mean 250 of 255"
    assert all(one.score is None or one.score > 5 for one in found.values())


def test_videos_of_another_rate_or_length_are_named() -> None:
    moving = {number: Moving(50, 2.0, 25.0, False) for number in range(200)}
    moving |= {3: Moving(100, 2.0, 50.0, False), 4: Moving(5, 0.2, 25.0, False), 5: Moving(50, 2.0, 25.0, True)}
    items = Items.of(Data(SPEC, Reels(200), Reels(0), Reels(0)))
    found = {one.kind: (one.item, one.detail) for one in find.odd_times(items, seen_of(200, moving=moving))}
    assert found == {
        "frame rate outlier": ("reel/003.mp4", "50.00 frames a second"),
        "length outlier": ("reel/004.mp4", "0.20 s, 5 frames"),
        "uneven frames": ("reel/005.mp4", "25.00 frames a second on average"),
    }


def test_what_most_files_have_in_common_is_not_odd() -> None:
    odd = {number: ["greyscale"] for number in range(8)} | {3: ["greyscale", "a palette of colours"]}
    items = Items.of(Data(SPEC, Squares(10), Squares(0), Squares(0)))
    found, common = find.odd_files(items, seen_of(10, odd=odd))
    assert [(one.item, one.detail) for one in found] == [("square/003.png", "a palette of colours")]
    assert common == ["8 of 10 files: greyscale"]


def test_only_skipped_files_are_taken_from_what_the_dataset_notes() -> None:
    problems = [FileProblem("a.txt", "skipped: not an image"), FileProblem("b.png", "duplicate", "c.png")]
    (found,) = find.skipped(problems)
    assert (found.kind, found.item, found.detail) == ("skipped", "a.txt", "skipped: not an image")


def test_odd_videos_are_decoded_whole_and_what_is_wrong_is_named(tmp_path: Path) -> None:
    """Plain videos, damaged and refused ones, and some whose frames last unequally long."""
    chosen = [
        one
        for one in ODD
        if one.damaged or isinstance(one.frames, str) or one.file in ("variable.mp4", "lasting.mp4", "renamed.avi")
    ]
    paths = [write_video(tmp_path / f"plain{number}.mp4", 24, rate=10) for number in range(20)]
    for one in chosen:
        one.write(tmp_path / one.file)
        paths.append(tmp_path / one.file)
    names = tuple(path.name for path in paths)
    part = VideoFiles(names, (0,) * len(names), names, tuple(paths))
    empty = VideoFiles((), (), (), ())
    items = Items.of(Data(DataSpec(("one", "two"), 32), part, empty, empty))
    seen = look(items, workers=2, progress=lambda _: None)
    unreadable = {one.item: one.kind for one in find.unreadable(items, seen)}
    assert unreadable == {
        one.file: "unreadable" if isinstance(one.frames, str) else "damaged"
        for one in chosen
        if one.damaged or isinstance(one.frames, str)
    }
    uneven = {one.item for one in find.odd_times(items, seen) if one.kind == "uneven frames"}
    assert "variable.mp4" in uneven
    odd, _ = find.odd_files(items, seen)
    assert ("renamed.avi", "a MP4 or MOV file named .avi") in {(one.item, one.detail) for one in odd}
    copies, _ = find.identical(items, seen)
    assert {one.item for one in copies} >= {f"plain{number}.mp4" for number in range(1, 20)}
