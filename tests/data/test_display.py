"""Frames as they are shown: all eight ways to turn and mirror, pixels that are not square."""

from __future__ import annotations

from contextlib import closing
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.loopback import serving
from tests.video_files import corners, displayed, write_corners
from toolkit.data.decoding import read_frames, timeline
from toolkit.data.display import shown_size
from toolkit.serving.predict.connection import Tally, received
from toolkit.serving.predict.inputs import Source

MATRICES = {
    "as it is": ((1, 0, 0, 1), "RGBW"),
    "turned right": ((0, 1, -1, 0), "BRWG"),
    "turned half": ((-1, 0, 0, -1), "WBGR"),
    "turned left": ((0, -1, 1, 0), "GWRB"),
    "mirrored": ((-1, 0, 0, 1), "GRWB"),
    "upside down": ((1, 0, 0, -1), "BWRG"),
    "transposed": ((0, 1, 1, 0), "RBGW"),
    "transposed the other way": ((0, -1, -1, 0), "WGBR"),
    "mirrored and larger": ((-2, 0, 0, 2), "GRWB"),
    "turned by 20 degrees": ((0.94, 0.34, -0.34, 0.94), "RGBW"),
    "mirrored and turned by 70 degrees": ((0.34, -0.94, -0.94, -0.34), "WGBR"),
    "all zero": ((0, 0, 0, 0), "RGBW"),
}
"""The numbers a, b, c, d of a display matrix, and the colours in the corners of what is shown of R G / B W."""


def first(path: Path) -> NDArray[np.uint8]:
    return next(iter(read_frames(path, timeline(path), [0])))


@pytest.mark.parametrize("name", MATRICES)
def test_a_video_is_turned_and_mirrored_as_its_display_matrix_says(tmp_path: Path, name: str) -> None:
    matrix, expected = MATRICES[name]
    pixels = first(displayed(write_corners(tmp_path / "a.mp4"), matrix))
    assert corners(pixels) == expected
    turned = abs(matrix[1]) > abs(matrix[0])
    assert pixels.shape == ((96, 64, 3) if turned else (64, 96, 3))
    assert pixels.flags.c_contiguous


def live(path: Path) -> NDArray[np.uint8]:
    """The first frame of a file, read as a stream."""
    with (
        serving(path.parent) as address,
        closing(received(stream(f"{address}/{path.name}"), lambda: 0.0, Tally())) as frames,
    ):
        return next(frames).pixels()


def stream(address: str) -> Source:
    return Source("live", "stream", address)


@pytest.mark.parametrize("name", MATRICES)
def test_streams_and_videos_behind_urls_are_shown_alike(tmp_path: Path, name: str) -> None:
    path = displayed(write_corners(tmp_path / "a.mp4"), MATRICES[name][0])
    assert np.array_equal(live(path), first(path))


@pytest.mark.parametrize(
    ("aspect", "expected"),
    [
        (None, (96, 64)),
        (Fraction(0), (96, 64)),
        (Fraction(1), (96, 64)),
        (Fraction(2), (192, 64)),
        (Fraction(1, 2), (96, 128)),
        (Fraction(12, 11), (105, 64)),
        (Fraction(10, 11), (96, 70)),
        (Fraction(64, 45), (137, 64)),
        (Fraction(40, 33), (116, 64)),
        (Fraction(8), (768, 64)),
        (Fraction(9), (96, 64)),
        (Fraction(1, 9), (96, 64)),
        (Fraction(65535, 1), (96, 64)),
    ],
)
def test_the_side_that_is_too_short_grows(aspect: Fraction | None, expected: tuple[int, int]) -> None:
    assert shown_size(96, 64, aspect) == expected


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "libx264"), ("mkv", "mpeg4"), ("mov", "mpeg4")])
@pytest.mark.parametrize(("aspect", "shape"), [(Fraction(4, 3), (64, 128, 3)), (Fraction(3, 4), (85, 96, 3))])
def test_frames_have_square_pixels(
    tmp_path: Path, suffix: str, codec: str, aspect: Fraction, shape: tuple[int, int, int]
) -> None:
    path = write_corners(tmp_path / f"a.{suffix}", codec=codec, aspect=aspect)
    pixels = first(path)
    assert pixels.shape == shape
    assert corners(pixels) == "RGBW"


def test_a_turned_video_grows_along_its_own_side(tmp_path: Path) -> None:
    path = displayed(write_corners(tmp_path / "a.mp4", codec="libx264", aspect=Fraction(4, 3)), (0, 1, -1, 0))
    assert first(path).shape == (128, 64, 3)


def test_a_stream_has_square_pixels_too(tmp_path: Path) -> None:
    assert live(write_corners(tmp_path / "a.mkv", aspect=Fraction(4, 3))).shape == (64, 128, 3)
