"""Sizes and places of squares, against exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.data.geometry import covering, crop_places, crop_start

EXTENTS = st.integers(1, 9999)


@given(EXTENTS, EXTENTS, st.integers(1, 999))
def test_the_short_side_is_met_and_the_long_one_rounded_half_up(height: int, width: int, side: int) -> None:
    exact = [Fraction(extent * side, min(height, width)) for extent in (height, width)]
    found = covering(height, width, side)
    assert found == tuple(math.floor(extent + Fraction(1, 2)) for extent in exact)
    assert min(found) == side


@pytest.mark.parametrize(("crops", "starts"), [(1, [3]), (3, [0, 3, 7]), (2, [0, 7])])
def test_crops_lie_at_the_centre_or_from_end_to_end(crops: int, starts: list[int]) -> None:
    assert [crop_start(17, 10, place) for place in crop_places(crops)] == starts


@given(EXTENTS, EXTENTS)
def test_the_centre_and_the_end_are_whole_numbers(extent: int, side: int) -> None:
    small, large = sorted((extent, side))
    assert crop_start(large, small) == (large - small) // 2
    assert crop_start(large, small, 1.0) == large - small
