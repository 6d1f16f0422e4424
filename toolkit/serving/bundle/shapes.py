"""Shapes of the values in a graph, as far as they can be foretold: how many elements a constant has that loading
computes, and which shapes are known only when the graph runs.

A dimension is a number, a name where it is one of the graph's input that varies, or None where nothing is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import TypeAlias

Dimension: TypeAlias = "int | str | None"
Shape: TypeAlias = "tuple[Dimension, ...]"
Values: TypeAlias = "Sequence[float] | None"
Attributes: TypeAlias = "Mapping[str, Sequence[int]]"

_BROADCASTING = frozenset(
    {
        *("Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min"),
        *("Mod", "Mul", "Or", "Pow", "PRelu", "Sub", "Sum", "Where", "Xor"),
    }
)
_UNCHANGED = frozenset(
    {
        *("Abs", "Cast", "CastLike", "Ceil", "Clip", "CumSum", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid"),
        *("HardSwish", "Identity", "LayerNormalization", "LeakyRelu", "Log", "LogSoftmax", "Neg", "Not", "Reciprocal"),
        *("Relu", "Round", "Scatter", "ScatterElements", "ScatterND", "Sigmoid", "Sign", "Softmax", "Softplus"),
        *("Sqrt", "Tanh", "Trilu"),
    }
)
"""Operators whose output has the shape of the first input."""


def varies(shape: Shape | None) -> bool:
    """Whether a shape is known only when the graph runs, so that loading computes nothing from it."""
    return shape is not None and any(isinstance(side, str) for side in shape)


def count(shape: Shape | None) -> int | None:
    """Elements; None where a dimension is not a number."""
    numbers = [side for side in shape or () if isinstance(side, int)]
    return math.prod(numbers) if shape is not None and len(numbers) == len(shape) else None


def shape_out(
    operator: str, shapes: Sequence[Shape | None], values: Sequence[Values], attributes: Attributes
) -> Shape | None:
    """Of the first output of an operator whose inputs have such `shapes`, and `values` where these are small constants;
    None where it cannot be said."""
    if operator in _BROADCASTING:
        return _broadcast(shapes)
    first = shapes[0] if shapes else None
    if first is None:
        return None
    if operator in _UNCHANGED:
        return first
    rule = _RULES.get(operator)
    try:
        return None if rule is None else rule(first, shapes, values, attributes)
    except (IndexError, TypeError, ValueError, ZeroDivisionError):  # a graph that onnxruntime refuses
        return None


def _broadcast(shapes: Sequence[Shape | None]) -> Shape | None:
    sides: list[Dimension] = []
    if any(shape is None for shape in shapes):
        return None
    for aligned in zip_longest(*(reversed(shape or ()) for shape in shapes), fillvalue=1):
        found = {side for side in aligned if side != 1}
        if len(found) > 1:
            return None
        sides.append(found.pop() if found else 1)
    return tuple(reversed(sides))


def _matrix_product(first: Shape, shapes: Sequence[Shape | None], *_: object) -> Shape | None:
    second = shapes[1]
    if second is None or min(len(first), len(second)) < 2:
        return None
    batch = _broadcast([first[:-2], second[:-2]])
    return None if batch is None else (*batch, first[-2], second[-1])


def _transposed(first: Shape, _: object, __: object, attributes: Attributes) -> Shape:
    return tuple(first[axis] for axis in attributes.get("perm") or range(len(first))[::-1])


def _reshaped(first: Shape, _: object, values: Sequence[Values], attributes: Attributes) -> Shape | None:
    asked, elements = values[1], count(first)
    if asked is None or attributes.get("allowzero"):
        return None
    sides: list[Dimension] = [first[axis] if side == 0 else int(side) for axis, side in enumerate(asked)]
    if -1 in sides:
        others = count(tuple(side for side in sides if side != -1))
        sides[sides.index(-1)] = None if elements is None or others is None else elements // others
    return tuple(sides)


def _axes(values: Sequence[Values], rank: int, place: int = 1) -> list[int]:
    asked = values[place]
    if asked is None:
        raise ValueError("unknown axes")
    return [int(axis) % rank for axis in asked]


def _unsqueezed(first: Shape, _: object, values: Sequence[Values], __: object) -> Shape:
    rank = len(first) + len(values[1] or ())
    axes, sides = _axes(values, rank), iter(first)
    return tuple(1 if axis in axes else next(sides) for axis in range(rank))


def _squeezed(first: Shape, shapes: Sequence[Shape | None], values: Sequence[Values], _: object) -> Shape:
    if len(shapes) < 2:
        if count(first) is None:
            raise ValueError("unknown axes")
        return tuple(side for side in first if side != 1)
    axes = _axes(values, len(first))
    return tuple(side for axis, side in enumerate(first) if axis not in axes)


def _sliced(first: Shape, shapes: Sequence[Shape | None], values: Sequence[Values], _: object) -> Shape:
    axes = _axes(values, len(first), 3) if len(shapes) > 3 else range(len(values[1] or first))
    return tuple(None if axis in axes else side for axis, side in enumerate(first))


def _gathered(first: Shape, shapes: Sequence[Shape | None], _: object, attributes: Attributes) -> Shape | None:
    axis, index = next(iter(attributes.get("axis", ())), 0) % len(first), shapes[1]
    return None if index is None else (*first[:axis], *index, *first[axis + 1 :])


def _gathered_by_position(
    first: Shape, shapes: Sequence[Shape | None], _: object, attributes: Attributes
) -> Shape | None:
    index = shapes[1]
    if not index or not isinstance(index[-1], int) or any(attributes.get("batch_dims", ())):
        return None
    return (*index[:-1], *first[index[-1] :])


_RULES: Mapping[str, Callable[..., Shape | None]] = {
    "Gather": _gathered,
    "GatherND": _gathered_by_position,
    "MatMul": _matrix_product,
    "Reshape": _reshaped,
    "Slice": _sliced,
    "Squeeze": _squeezed,
    "Transpose": _transposed,
    "Unsqueeze": _unsqueezed,
}
