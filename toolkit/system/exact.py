"""Functions whose results have equal bits on every device and machine.

The logarithm of a library may differ in its last bit from that of another processor; so does even the square root of
torch on a CPU. These use only +, -, x and /, which IEEE 754 rounds in one way, each a call of its own, which no
compiler fuses with the next. They take and return float64, as a NumPy array or as a tensor. Errors are below 1e-13,
relative ones but for `cosine`.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import torch

Numbers: TypeAlias = Any
"""float64 NumPy array or tensor: both know the same operators."""

LOG_2 = math.log(2)
FRACTION_BITS = 52
BIAS = 1023
ONE = BIAS << FRACTION_BITS
"""The bits of 1.0."""
ATANH = tuple(1 / power for power in range(1, 22, 2))
"""Taylor coefficients of atanh(x) / x by powers of x squared; here x is at most 0.172."""
EXP = tuple(1 / math.factorial(power) for power in range(18))
"""By powers of x; here x is at most log 2."""
COS = tuple((-1) ** power / math.factorial(2 * power) for power in range(12))
"""By powers of x squared; here x is at most pi / 2."""


def log(values: Numbers) -> Numbers:
    """Natural logarithm of normal numbers above 0."""
    xp = _module(values)
    bits = values.view(xp.int64)
    exponent = of_type((bits >> FRACTION_BITS) - BIAS, "float64")
    mantissa = ((bits & ((1 << FRACTION_BITS) - 1)) | ONE).view(xp.float64)
    large = mantissa > math.sqrt(2)
    mantissa = xp.where(large, mantissa * 0.5, mantissa)
    ratio = (mantissa - 1) / (mantissa + 1)
    series = ratio * _polynomial(ATANH, ratio * ratio)
    return (exponent + large) * LOG_2 + series * 2.0


def exp(values: Numbers) -> Numbers:
    """Exponential function of numbers from -700 to 700."""
    xp = _module(values)
    doublings = xp.floor(values * (1 / LOG_2))  # by a scalar, torch divides as it likes
    power = ((of_type(doublings, "int64") + BIAS) << FRACTION_BITS).view(xp.float64)
    return _polynomial(EXP, values - doublings * LOG_2) * power


def cosine(turns: Numbers) -> Numbers:
    """Cosine of an angle in turns, from 0 to 1."""
    xp = _module(turns)
    beyond = xp.abs(turns - 0.5)  # the cosine of it is minus that of the turns
    angle = (0.25 - xp.abs(beyond - 0.25)) * (2 * math.pi)
    near = _polynomial(COS, angle * angle)
    return xp.where(beyond < 0.25, -near, near)


def root(values: Numbers) -> Numbers:
    """Square root of numbers not below 0; 1e-154 of 0."""
    return exp(log(values) * 0.5)


def of_type(values: Numbers, name: str) -> Numbers:
    """The same numbers as another type: `int64`, `float32`."""
    return values.to(getattr(torch, name)) if isinstance(values, torch.Tensor) else values.astype(name)


def _polynomial(coefficients: tuple[float, ...], values: Numbers) -> Numbers:
    """Of these coefficients of rising powers, by Horner's scheme."""
    total = values * coefficients[-1] + coefficients[-2]
    for coefficient in reversed(coefficients[:-2]):
        total = total * values + coefficient
    return total


def _module(values: Numbers) -> ModuleType:
    return torch if isinstance(values, torch.Tensor) else np
