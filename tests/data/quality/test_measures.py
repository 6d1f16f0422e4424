"""What is measured of one item."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image, ImageFilter

from toolkit.data.quality.measures import MEASURED, THUMB, Digest, measure, moving

NOISE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def digest(*frames: np.ndarray) -> bytes:
    made = Digest()
    for frame in frames:
        made.add(frame)
    return made.finished()


def test_brightness_and_contrast_are_those_of_the_luminance() -> None:
    half = np.zeros((10, 10, 3), np.uint8)
    half[:5] = 200
    found = measure(half)
    assert found.brightness == pytest.approx(100)
    assert found.contrast == pytest.approx(100)


def test_a_blurred_picture_is_less_sharp() -> None:
    blurred = np.asarray(Image.fromarray(NOISE).filter(ImageFilter.GaussianBlur(2)))
    assert measure(blurred).sharpness < 0.3 * measure(NOISE).sharpness


def test_a_large_picture_is_measured_at_a_size_that_all_share() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    large, small = (
        np.asarray(noise.resize((side, side), Image.Resampling.NEAREST)) for side in (8 * MEASURED, MEASURED)
    )
    assert measure(large).sharpness == pytest.approx(measure(small).sharpness, rel=0.01)


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 300), (3, 3)])
def test_the_smallest_pictures_are_measured(shape: tuple[int, int]) -> None:
    found = measure(np.full((*shape, 3), 7, np.uint8))
    assert (found.brightness, found.contrast, found.sharpness) == (7, 0, 0)
    assert found.thumb.shape == (THUMB, THUMB, 3)
    assert (found.thumb == 7).all()


def test_a_digest_knows_pixels_shape_and_order() -> None:
    other = NOISE.copy()
    other[0, 0, 0] ^= 1
    assert digest(NOISE) == digest(NOISE.copy())
    assert len({digest(NOISE), digest(other), digest(NOISE.reshape(64, 48, 3)), digest(NOISE, other)}) == 4
    assert digest(NOISE, other) != digest(other, NOISE)
    assert digest(NOISE[:, ::-1]) == digest(np.ascontiguousarray(NOISE[:, ::-1]))


def test_rate_and_evenness_come_from_the_times() -> None:
    even = moving([number / 25 for number in range(50)], 2.0)
    assert even.rate == pytest.approx(25)
    assert (even.frames, even.seconds, even.uneven) == (50, 2.0, False)
    assert moving([0, 0.04, 0.08, 0.5], 0.54).uneven
    assert math.isnan(moving([0.0], 1 / 30).rate)
