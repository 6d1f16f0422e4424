"""Whether integers of a graph may be divided by -1: the smallest integer divided by it ends the process (SIGFPE).

Divisors of an exported graph are sides of images, so the types of all values are followed through the graph, and of
integers whether they can be negative.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

FLOAT, BOOL, INT64 = 1, 9, 7
_FLOATS = frozenset({1, 10, 11, 16})
_UNSIGNED = frozenset({2, 4, 12, 13})
_LARGEST_SIDE = float(1 << 40)
"""Above any number of elements that fits into memory."""
_OVERFLOWING = float(1 << 62)


class Kind(NamedTuple):
    """What is known of the elements of one value."""

    element: int | None = None
    """ONNX's number of their type; None: unknown."""
    ceiling: float = math.inf
    """Where finite, they are int64 from 0 to this."""


UNKNOWN = Kind()
_COUNTS = Kind(INT64, _LARGEST_SIDE)
_KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("ArgMax", "ArgMin", "NonZero", "Shape", "Size"), _COUNTS),
    **dict.fromkeys(("And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual"), Kind(BOOL)),
    **dict.fromkeys(("Not", "Or", "Xor"), Kind(BOOL)),
    "DequantizeLinear": Kind(FLOAT),
    **dict.fromkeys(("ConstantOfShape", "ConvInteger", "DynamicQuantizeLinear", "EyeLike", "If"), UNKNOWN),
    **dict.fromkeys(("MatMulInteger", "QLinearConv", "QLinearMatMul", "QuantizeLinear"), UNKNOWN),
    **dict.fromkeys(("ConcatFromSequence", "SequenceAt", "SequenceConstruct", "SplitToSequence"), UNKNOWN),
}
"""Of what comes out, whatever goes in."""
_TYPED_BY = {"CastLike": 1, "OneHot": 2, "Where": 1}
"""The input whose type the output has, where that is not the first."""
ALIKE = frozenset({"GRU", "LSTM", "RNN", "Split"})
"""Operators whose outputs are all of one kind; of others the first output's kind is known."""
_REARRANGING = frozenset(
    {
        *("Concat", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Max", "Min", "ReduceMax"),
        *("ReduceMin", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
    }
)
"""Operators that compute no element, and only choose among those of their inputs."""
_MOST: Mapping[str, Callable[[list[float]], float]] = {"Add": math.fsum, "Mul": math.prod, "Div": max}
"""What an operator's output is at most, whose inputs are integers from 0 to these."""
_JOINING = frozenset({"Concat", "Max", "Min"})
"""Those of them that choose from all inputs; of others the first input has the elements."""


def constant_kind(element: int, values: Sequence[float] | None) -> Kind:
    """Of a constant, whose values are known if it is small."""
    natural = element == INT64 and values and min(values) >= 0
    return Kind(element, max(values) if natural and values else math.inf)


def kind_out(operator: str, kinds: Sequence[Kind], attributes: Mapping[str, Sequence[int]]) -> Kind:
    """Of the first output of an operator with inputs of such `kinds`."""
    if operator in _KINDS:
        return _KINDS[operator]
    if operator == "Cast":
        to = attributes.get("to") or [0]
        return kinds[0] if kinds and to[0] == kinds[0].element else Kind(to[0])
    place = _TYPED_BY.get(operator, 0)
    return Kind(kinds[place].element if place < len(kinds) else None, _ceiling(operator, kinds))


def _ceiling(operator: str, kinds: Sequence[Kind]) -> float:
    ceilings = [kind.ceiling for kind in kinds]
    if not ceilings:
        return math.inf
    if operator in _REARRANGING:
        return max(ceilings if operator in _JOINING else ceilings[:1])
    most = _MOST[operator](ceilings) if operator in _MOST else math.inf
    return most if most < _OVERFLOWING else math.inf


def may_be_minus_one(kinds: Sequence[Kind], values: Sequence[float] | None) -> bool:
    """Whether the second input of a division may hold the integer -1; `values` are its elements where known."""
    if any(kind.element in _FLOATS | _UNSIGNED for kind in kinds):
        return False
    if values is not None:
        return -1 in values
    return len(kinds) < 2 or not math.isfinite(kinds[1].ceiling)
