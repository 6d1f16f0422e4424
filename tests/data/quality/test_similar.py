"""Near duplicates."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from toolkit.data.quality import similar
from toolkit.data.quality.measures import measure
from toolkit.data.quality.similar import groups_of, near_duplicates

COUNT = 120


def pictures(count: int = COUNT, seed: int = 0) -> list[Image.Image]:
    """Blobs of several sizes: as photos, with much of low frequencies and some detail."""
    draw = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        layers = [
            np.asarray(
                Image.fromarray(draw.integers(0, 256, (side, side, 3), dtype=np.uint8)).resize(
                    (64, 64), Image.Resampling.BICUBIC
                ),
                np.float32,
            )
            for side in (3, 6, 16)
        ]
        mixed = 0.5 * layers[0] + 0.3 * layers[1] + 0.2 * layers[2]
        made.append(Image.fromarray(mixed.astype(np.uint8)))
    return made


def thumbs(images: list[Image.Image]) -> NDArray[np.uint8]:
    return np.stack([measure(np.asarray(image.convert("RGB"))).thumb[None] for image in images])


def compressed(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "smaller": lambda image: image.resize((40, 40), Image.Resampling.BICUBIC),
    "larger": lambda image: image.resize((150, 150), Image.Resampling.BILINEAR),
    "stretched": lambda image: image.resize((90, 50)),
    "compressed": lambda image: compressed(image, 30),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "mirrored, small and compressed": lambda image: compressed(
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((32, 32), Image.Resampling.BICUBIC), 60
    ),
}


@pytest.mark.parametrize("how", CHANGES)
def test_changed_copies_in_another_split_are_found_and_nothing_else(how: str) -> None:
    originals = pictures()
    copies = [CHANGES[how](image) for image in originals[:40]]
    splits = np.array([0] * COUNT + [2] * 40, np.int8)
    pairs, flat = near_duplicates(thumbs([*originals, *copies]), splits, np.ones(len(splits), bool))
    found = {(pair.first, pair.second) for pair in pairs}
    true = {(number, COUNT + number) for number in range(40)}
    assert len(found & true) >= 38
    assert found <= true
    assert not flat.any()
    assert all(pair.mirrored == how.startswith("mirrored") for pair in pairs if (pair.first, pair.second) in true)


def test_copies_within_a_split_are_found_and_an_item_is_not_its_own_copy() -> None:
    images = pictures(30)
    symmetric = np.asarray(images[0])
    symmetric = np.concatenate([symmetric, symmetric[:, ::-1]], axis=1)
    images = [*images, compressed(images[3], 50), Image.fromarray(symmetric)]
    pairs, _ = near_duplicates(thumbs(images), np.zeros(32, np.int8), np.ones(32, bool))
    assert [(pair.first, pair.second) for pair in pairs] == [(3, 30)]


def test_pictures_that_show_nothing_are_named_and_not_compared() -> None:
    grey = [Image.new("RGB", (64, 64), (level, level, level)) for level in range(20)]
    images = [*pictures(10), *grey]
    pairs, flat = near_duplicates(thumbs(images), np.zeros(30, np.int8), np.ones(30, bool))
    assert pairs == []
    assert np.flatnonzero(flat).tolist() == list(range(10, 30))


def test_what_cannot_be_used_is_not_compared() -> None:
    images = pictures(5)
    usable = np.array([True] * 5 + [False] * 5)
    pairs, flat = near_duplicates(thumbs([*images, *images]), np.zeros(10, np.int8), usable)
    assert pairs == []
    assert not flat.any()


def test_of_many_copies_each_has_a_pair() -> None:
    """As of the frames of a video: their pairs grow with their number, not with its square."""
    copies = [compressed(pictures(1)[0], quality) for quality in range(20, 95)]
    pairs, _ = near_duplicates(thumbs(copies), np.zeros(75, np.int8), np.ones(75, bool))
    assert len(pairs) <= 75 * similar.NEIGHBOURS * 2
    assert set(range(75)) == {item for pair in pairs for item in (pair.first, pair.second)}


def test_videos_are_compared_by_several_frames() -> None:
    """A copy of all frames is found; a video that shares one of four frames is not a copy."""
    frames = thumbs(pictures(80)).reshape(20, 4, 16, 16, 3)
    copy, shared = frames[3].copy(), frames[4].copy()
    copy[..., 0] = np.clip(copy[..., 0].astype(int) + 3, 0, 255)
    shared[1:] = frames[5][1:]
    every = np.concatenate([frames, copy[None], shared[None], frames[7][None, :, :, ::-1]])
    pairs, _ = near_duplicates(every, np.array([0] * 20 + [2] * 3, np.int8), np.ones(23, bool))
    assert {(pair.first, pair.second, pair.mirrored) for pair in pairs} == {(3, 20, False), (7, 22, True)}


def test_groups_are_what_pairs_connect() -> None:
    assert groups_of(6, [(0, 2), (2, 5), (3, 4)]).tolist() == [0, 1, 0, 3, 3, 0]
    assert groups_of(2, []).tolist() == [0, 1]
