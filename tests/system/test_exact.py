"""Functions of equal bits: they agree with the library's, as arrays and as tensors, and never change."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from toolkit.system import exact

FUNCTIONS = [
    pytest.param(exact.log, np.exp(np.linspace(-700, 700, 10_001)), id="log"),
    pytest.param(exact.exp, np.linspace(-700, 700, 10_001), id="exp"),
    pytest.param(exact.cosine, np.linspace(0, 1, 10_001), id="cosine"),
    pytest.param(exact.root, np.linspace(0, 50, 10_001), id="root"),
]


def of(function: Callable[[Any], Any], value: float) -> float:
    return float(function(np.array([value]))[0])


@given(st.floats(1e-300, 1e300))
def test_logarithm(value: float) -> None:
    assert of(exact.log, value) == pytest.approx(math.log(value), rel=1e-13, abs=1e-15)


@given(st.floats(-700, 700))
def test_exponential(value: float) -> None:
    assert of(exact.exp, value) == pytest.approx(math.exp(value), rel=1e-12)


@given(st.floats(0, 1e300))
def test_square_root(value: float) -> None:
    assert of(exact.root, value) == pytest.approx(math.sqrt(value), rel=1e-13, abs=1e-153)


@given(st.floats(0, 1))
def test_cosine(turns: float) -> None:
    assert of(exact.cosine, turns) == pytest.approx(math.cos(2 * math.pi * turns), abs=2e-15)


def test_round_values_are_hit() -> None:
    assert [of(exact.log, value) for value in (1.0, 2.0)] == [0.0, math.log(2)]
    assert of(exact.exp, 0.0) == 1.0
    assert [of(exact.cosine, turns) for turns in (0.0, 0.25, 0.5, 0.75, 1.0)] == pytest.approx(
        [1, 0, -1, 0, 1], abs=1e-15
    )


@pytest.mark.parametrize(("function", "values"), FUNCTIONS)
def test_arrays_and_tensors_have_equal_bits(function: Callable[[Any], Any], values: Any) -> None:
    array, tensor = function(values), function(torch.from_numpy(values))
    assert array.tobytes() == tensor.numpy().tobytes()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("function", "values"), FUNCTIONS)
def test_a_gpu_has_equal_bits(function: Callable[[Any], Any], values: Any) -> None:
    assert function(values).tobytes() == function(torch.from_numpy(values).cuda()).cpu().numpy().tobytes()


def test_bits_never_change() -> None:
    """Other bits here mean that draws differ between versions or machines."""
    assert of(exact.log, 0.1).hex() == "-0x1.26bb1bbb55515p+1"
    assert of(exact.exp, 0.1).hex() == "0x1.1aec7b35a00d4p+0"
    assert of(exact.cosine, 0.1).hex() == "0x1.9e3779b97f4a8p-1"
