"""What is measured of items while they are scored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.small import CPU, SPEC, Reels, Squares
from toolkit.api.clips import Clip
from toolkit.api.contracts import Batch
from toolkit.data.loader import Loader
from toolkit.data.store.clips import ClipStore, VideoCache
from toolkit.data.store.images import ImageStore
from toolkit.runs.measuring import Measuring, brightness

IDS = ["a", "b", "c"]


def batch(pixels: torch.Tensor, *index: int) -> Batch:
    return Batch(pixels, torch.zeros(len(index), dtype=torch.int64), torch.tensor(index))


@pytest.mark.parametrize("size", [(8, 8), (64, 100)])
def test_brightness_is_that_of_pillow(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    wanted = np.asarray(Image.fromarray(pixels).convert("L"), np.float64).mean()
    assert float(brightness(torch.from_numpy(pixels).movedim(-1, -3))) == pytest.approx(wanted, abs=0.6)


def test_of_large_pictures_evenly_spaced_pixels_count() -> None:
    ramp = torch.arange(640).float().mul(255 / 639).round().to(torch.uint8).expand(3, 480, 640)
    assert float(brightness(ramp)) == pytest.approx(127.5, abs=2)


def test_batches_pass_through_and_are_measured() -> None:
    measuring = Measuring()
    levels = torch.tensor([10, 200], dtype=torch.uint8)[:, None, None, None].expand(2, 3, 8, 8)
    given = [batch(levels, 2, 0), batch(levels[:0]), batch(levels[:1], 1)]
    assert list(measuring.through(given)) == given
    columns = measuring.columns(IDS, {0: 8, 1: 9, 2: 10})
    assert columns["brightness"] == pytest.approx({"c": 10, "a": 200, "b": 10})
    assert columns["size"] == {"a": 8, "b": 9, "c": 10}


def test_views_of_a_video_are_one_item() -> None:
    measuring = Measuring()
    views = torch.tensor([10, 20, 100, 120], dtype=torch.uint8)[:, None, None, None, None].expand(4, 6, 3, 8, 8)
    assert len(list(measuring.through([batch(views, 0, 1)]))) == 1
    assert measuring.columns(IDS)["brightness"] == pytest.approx({"a": 15, "b": 110})


def test_pictures_are_measured_as_they_were_decoded() -> None:
    measuring = Measuring()
    for level in (10, 30):
        measuring.see(1, torch.full((3, 12, 9), level, dtype=torch.uint8))
    columns = measuring.columns(IDS)
    assert columns["brightness"] == pytest.approx({"b": 20})
    assert columns["size"] == {"b": 9}


def test_without_the_size_of_an_item_there_are_no_sizes() -> None:
    measuring = Measuring()
    list(measuring.through([batch(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), 0, 1)]))
    assert measuring.columns(IDS, {0: 8}).keys() == {"brightness"}


def test_stores_know_the_sides_of_what_they_decoded(tmp_path: Path) -> None:
    images = Loader(ImageStore(Squares(3, side=12), SPEC, None, workers=1), SPEC, CPU)
    assert sum(len(one.index) for one in images.evaluation(2)) == 3
    assert images.store.sides == {0: 12, 1: 12, 2: 12}
    spec = replace(SPEC, clip=Clip(frames=2, rate=1, fps=10))
    videos = Loader(ClipStore(Reels(2, size=(20, 10)), spec, VideoCache(tmp_path, 1 << 30), 1), spec, CPU)
    assert sum(len(one.index) for one in videos.evaluation(4)) == 2
    assert videos.store.sides == {0: 10, 1: 10}
