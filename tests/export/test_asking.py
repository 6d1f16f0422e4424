"""Raw files: every item is asked once, whatever its size, and no more pixels wait than may."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import toy_bundle
from tests.export.models import Videos
from toolkit.api.clips import Clip, evaluation_clips
from toolkit.api.errors import DataError
from toolkit.data.damage import Damage, notice
from toolkit.data.store.corrupt import Corrupt, Skipped
from toolkit.export import asking
from toolkit.export.asking import ask_raw
from toolkit.serving.bundle import Bundle
from toolkit.serving.bundle.views import average_views


@pytest.mark.parametrize("crops", [1, 3])
@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_every_view_of_every_video_is_asked_once(tmp_path: Path, crops: int, average: Any) -> None:
    clip = Clip(frames=3, rate=2, fps=10, clips=2, crops=crops, average=average)
    bundle = Bundle.load(toy_bundle.write(tmp_path / "toy", clip=clip), device="cpu")
    split = Videos([12, 3, 20, 9, 15], [(24, 32), (24, 32), (40, 20), (24, 32), (16, 16)])
    answered: list[int] = []
    found = ask_raw(bundle, split, [4, 0, 1, 3, 2], (1, 2, 3), progress=answered.append)
    assert sum(answered) == 5
    for row, item in enumerate([4, 0, 1, 3, 2]):
        clips = evaluation_clips(clip, split.times(item))
        levels = np.array([[30 * item + 3 * frame for frame in numbers] for numbers in clips], np.uint8)
        frames = np.broadcast_to(levels[:, :, None, None, None], (2, 3, 16, 16, 3)).copy()
        wanted = average_views(bundle.predict(frames).probabilities, average)
        np.testing.assert_allclose(found[row], wanted, atol=1e-5)


def test_every_frame_is_shown_as_it_was_decoded(tmp_path: Path) -> None:
    clip = Clip(frames=3, rate=2, fps=10)
    bundle = Bundle.load(toy_bundle.write(tmp_path / "toy", clip=clip), device="cpu")
    split = Videos([12, 9], [(24, 32), (40, 20)])
    shown: list[tuple[int, tuple[int, ...]]] = []
    ask_raw(
        bundle, split, [0, 1], (1,), progress=lambda _: None, seen=lambda item, frame: shown.append((item, frame.shape))
    )
    assert {*shown} == {(0, (3, 24, 32)), (1, (3, 40, 20))}


def test_frames_too_large_for_one_call_are_cut_to_squares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.load(toy_bundle.write(tmp_path / "toy", clip=Clip(frames=3)), device="cpu")
    seen: list[tuple[int, ...]] = []
    run = type(bundle.session).run

    def noted(self: Any, pixels: np.ndarray) -> np.ndarray:
        seen.append(pixels.shape)
        return run(self, pixels)

    monkeypatch.setattr(type(bundle.session), "run", noted)
    monkeypatch.setattr(asking, "LARGEST_BYTES", 3 * 24 * 32 * 3)
    ask_raw(bundle, Videos([5, 5], [(24, 32), (25, 32)]), [0, 1], (1,), progress=lambda _: None)
    assert seen == [(1, 3, 24, 32, 3), (1, 3, 16, 16, 3)]


@pytest.mark.parametrize("size", [1, 3, 100])
def test_pixels_that_wait_for_others_of_their_size_are_bounded(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "WAITING_BYTES", 1000)
    waiting, most = 0, 0

    def mixed() -> Iterator[asking._Asked]:
        nonlocal waiting, most
        for row in range(60):
            pixels = np.zeros((1, 10 * (1 + row % 7), 3), np.uint8)
            waiting += pixels.nbytes
            most = max(most, waiting)
            yield asking._Asked(row, 0, pixels)

    rows = []
    for group in asking._grouped(mixed(), (size,)):
        assert len({view.pixels.shape for view in group}) == 1
        assert len(group) <= size
        waiting -= sum(view.pixels.nbytes for view in group)
        rows += [view.row for view in group]
    assert sorted(rows) == list(range(60))
    assert most <= 1000 + 210


def test_of_what_waits_too_much_the_largest_group_is_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "WAITING_BYTES", 50)
    widths = [6, 4, 4, 3]
    views = (asking._Asked(row, 0, np.zeros((1, width, 3), np.uint8)) for row, width in enumerate(widths))
    assert [[view.row for view in group] for group in asking._grouped(views, (9,))] == [[1, 2], [0], [3]]


class _Pictures:
    """A split of images in memory: image n is of `sizes[n]` and all 10 n."""

    def __init__(self, sizes: Sequence[tuple[int, int]], broken: frozenset[int] = frozenset()) -> None:
        self.sizes, self.broken = sizes, broken
        self.ids = self.keys = [str(number) for number in range(len(sizes))]
        self.targets = [0] * len(sizes)

    def __len__(self) -> int:
        return len(self.sizes)

    def read(self, index: int) -> torch.Tensor:
        if index in self.broken:
            raise DataError(f"image {index} cannot be decoded")
        return torch.full((3, *self.sizes[index]), 10 * index % 256, dtype=torch.uint8)


def grey(bundle: Bundle, numbers: Sequence[int]) -> np.ndarray:
    """Answers to the images of `_Pictures` with these numbers, each asked alone."""
    frames = [np.full((1, 16, 16, 3), 10 * number, np.uint8) for number in numbers]
    return np.concatenate([bundle.session.run(frame) for frame in frames])


@pytest.mark.parametrize("bound", [1, 3000, 1 << 30])
def test_images_of_mixed_sizes_are_answered_in_order(
    bound: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "WAITING_BYTES", bound)
    bundle = Bundle.load(toy_bundle.write(tmp_path / "toy"), device="cpu")
    split = _Pictures([(16, 16 + number % 5) for number in range(25)])
    order, answered = [*range(24, -1, -2), *range(1, 25, 2)], list[int]()
    found = ask_raw(bundle, split, order, (1, 3, 7), progress=answered.append)
    assert sum(answered) == 25
    np.testing.assert_allclose(found, grey(bundle, order), atol=1e-5)


@pytest.mark.parametrize("broken", [frozenset[int](), frozenset({0, 1, 2})])
@pytest.mark.parametrize("first", [1, 9])
def test_images_that_are_read_ahead_are_bounded_by_their_bytes(
    first: int, broken: frozenset[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was read before: the size of an image is known only once it is there."""
    side, small, room = 100, 40, 5
    monkeypatch.setattr(asking, "WAITING_BYTES", room * side * side * 3)
    split = _Pictures([(1, 1)] * small + [(side, side)] * 60, broken=broken)
    reads, too_many = [], threading.Event()

    def read(index: int) -> torch.Tensor:
        reads.append(index)
        if len(reads) > small + room + asking.READERS:
            too_many.set()
        return _Pictures.read(split, index)

    monkeypatch.setattr(split, "read", read)
    skipped = Skipped(Corrupt(skip=True, limit=1), split.ids)
    views = asking._images(split, range(len(split)), skipped)
    rows = [next(views).row for _ in range(first)]
    assert not too_many.wait(0.3)
    rows += [view.row for view in views]
    assert rows == [row for row in range(100) if row not in broken]


def test_images_larger_than_all_that_may_wait_are_read_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "WAITING_BYTES", 10)
    views = asking._images(_Pictures([(20, 20)] * 30), range(30), None)
    assert [view.row for view in views] == list(range(30))


def test_reading_ahead_ends_with_who_asked_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "WAITING_BYTES", 10)
    threads = set(threading.enumerate())
    views = asking._images(_Pictures([(20, 20)] * 30), range(30), None)
    next(views)
    views.close()  # type: ignore[attr-defined]
    assert set(threading.enumerate()) <= threads


def test_images_that_cannot_be_read_have_no_row(tmp_path: Path) -> None:
    bundle = Bundle.load(toy_bundle.write(tmp_path / "toy"), device="cpu")
    split = _Pictures([(16, 16 + number % 2) for number in range(10)], broken=frozenset({0, 4, 7}))
    skipped, answered = Skipped(Corrupt(skip=True, limit=0.3), split.ids), list[int]()
    found = ask_raw(bundle, split, [7, 9, 4, 1, 2], (3,), progress=answered.append, skipped=skipped)
    np.testing.assert_allclose(found, grey(bundle, [9, 1, 2]), atol=1e-5)
    assert skipped.reasons == {7: "image 7 cannot be decoded", 4: "image 4 cannot be decoded"}
    assert sum(answered) == 3
    with pytest.raises(DataError, match="image 7 cannot be decoded"):
        ask_raw(bundle, split, [7, 9], (3,), progress=answered.append)


class _CutShort(Videos):
    """Videos of which those in `broken` end in an error: after their last frame where they are even."""

    broken = frozenset({1, 2})

    def read(self, index: int, frames: Sequence[int]) -> Iterator[torch.Tensor]:
        whole = index not in self.broken
        yield from super().read(index, frames if whole or index % 2 == 0 else frames[:-1])
        if not whole:
            raise DataError(f"video {index} is cut short")


class _Damaged(Videos):
    """Videos of which the second and third have frames that cannot be decoded."""

    def read(self, index: int, frames: Sequence[int]) -> Iterator[torch.Tensor]:
        notice(Damage((0, 3, 9, 0)[index], 12))
        return super().read(index, frames)


def test_a_damaged_video_is_noted_and_one_with_too_much_damage_skipped(tmp_path: Path) -> None:
    bundle = Bundle.load(toy_bundle.write(tmp_path / "toy", clip=Clip(frames=3, rate=2, fps=10)), device="cpu")
    split = _Damaged([20, 18, 25, 14], [(24, 32)] * 4)
    skipped, answered = Skipped(Corrupt(skip=True, limit=0.5), split.ids), list[int]()
    found = ask_raw(bundle, split, range(4), (2,), progress=answered.append, skipped=skipped)
    assert len(found) == 3
    assert skipped.damaged == {1: Damage(3, 12)}
    assert skipped.reasons == {2: f"{split.ids[2]}: 9 of 12 frames cannot be decoded, and input.damaged_share = 0.5"}


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_a_video_that_cannot_be_read_to_its_end_is_skipped_as_a_whole(tmp_path: Path, average: Any) -> None:
    clip = Clip(frames=3, rate=2, fps=10, clips=3, average=average)
    bundle = Bundle.load(toy_bundle.write(tmp_path / "toy", clip=clip), device="cpu")
    split = _CutShort([20, 18, 25, 14], [(24, 32)] * 4)
    skipped, answered = Skipped(Corrupt(skip=True, limit=0.5), split.ids), list[int]()
    found = ask_raw(bundle, split, range(4), (2,), progress=answered.append, skipped=skipped)
    assert skipped.reasons == {1: "video 1 is cut short", 2: "video 2 is cut short"}
    assert sum(answered) <= 4
    whole = Videos(split.lengths, split.sizes)
    np.testing.assert_allclose(found, ask_raw(bundle, whole, [0, 3], (2,), progress=answered.append), atol=1e-5)
