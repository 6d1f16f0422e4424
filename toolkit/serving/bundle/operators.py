"""Which of ONNX's operators a bundle may use, and how many elements come out of those that make more of them.

Operators: https://onnx.ai/onnx/operators.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

STANDARD = frozenset({"", "ai.onnx"})
"""The domain of ONNX's own operators, by both its names. Others, such as those of SVMs and trees, are refused."""

_ARITHMETIC = frozenset(
    {
        *("Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Celu", "Clip"),
        *("Cos", "Cosh", "CumSum", "Det", "Div", "Einsum", "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu"),
        *("Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Hardmax", "IsInf", "IsNaN", "LeakyRelu"),
        *("Less", "LessOrEqual", "Log", "LogSoftmax", "MatMul", "Max", "Mean", "Min", "Mish", "Mod", "Mul"),
        *("Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid"),
        *("Sign", "Sin", "Sinh", "Softmax", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tan"),
        *("Tanh", "ThresholdedRelu", "Where", "Xor"),
    }
)
_REDUCTIONS = frozenset(
    {
        *("ArgMax", "ArgMin", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax"),
        *("ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "TopK"),
    }
)
_LAYERS = frozenset(
    {
        *("Attention", "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "GRU", "Gemm"),
        *("GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "GridSample", "GroupNormalization"),
        *("InstanceNormalization", "LRN", "LSTM", "LayerNormalization", "LpNormalization", "LpPool", "MaxPool"),
        *("MeanVarianceNormalization", "RMSNormalization", "RNN", "Resize", "RotaryEmbedding", "Upsample"),
    }
)
_SHAPES = frozenset(
    {
        *("AffineGrid", "Cast", "CastLike", "CenterCropPad", "Col2Im", "Compress", "Concat"),
        *("ConcatFromSequence", "Constant", "ConstantOfShape", "DepthToSpace", "Expand", "EyeLike", "Flatten"),
        *("Gather", "GatherElements", "GatherND", "Identity", "NonZero", "OneHot", "Pad", "Range", "Reshape"),
        *("ReverseSequence", "Scatter", "ScatterElements", "ScatterND", "SequenceAt", "SequenceConstruct"),
        *("Shape", "Size", "Slice", "SpaceToDepth", "Split", "SplitToSequence", "Squeeze", "Tile", "Transpose"),
        *("Trilu", "Unsqueeze"),
    }
)
_QUANTIZED = frozenset(
    {
        *("ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv"),
        *("QLinearMatMul", "QuantizeLinear"),
    }
)
ALLOWED = _ARITHMETIC | _REDUCTIONS | _LAYERS | _SHAPES | _QUANTIZED | {"If"}
"""Operators of ONNX that torch's exporter writes for a network that classifies. What is not among them may loop without
an end, answer at random, read files and text, or was never meant for images; its code is not run."""

_SIZED_BY: Mapping[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,),
    **dict.fromkeys(("AffineGrid", "CenterCropPad", "Col2Im", "Expand", "OneHot", "Pad", "Tile", "Upsample"), (1,)),
    "Range": (0, 1, 2),
    "Resize": (3, 2, 1),
}
"""The inputs whose values say how many elements come out, for each that goes in."""
_SIZING_ATTRIBUTES = frozenset(
    {
        *("dilations", "hidden_size", "kernel_shape", "output_height", "output_padding", "output_shape"),
        *("output_width", "pads", "pooled_shape", "scales", "strides"),
    }
)
_NEVER_LARGER = frozenset(
    {
        *("Abs", "Cast", "CastLike", "Ceil", "Clip", "DequantizeLinear", "Exp", "Flatten", "Floor", "Identity", "Log"),
        *("Neg", "QuantizeLinear", "Reciprocal", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Reshape"),
        *("Round", "Scatter", "ScatterElements", "ScatterND", "Sigmoid", "Slice", "Split", "Sqrt", "Squeeze", "Tanh"),
        *("Transpose", "Trilu", "Unsqueeze"),
    }
)
"""Operators with at most as many elements out as their first input has."""
_HIGHEST_RANK = 32


def objection(operator: str, domain: str) -> str | None:
    """Why a bundle may not use this operator; None where it may."""
    if domain not in STANDARD:
        return f'belongs to the domain "{domain}"; a bundle uses operators of ONNX only'
    return None if operator in ALLOWED else "is not among the operators that a bundle may use"


def growth(operator: str, values: Sequence[Sequence[float] | None], attributes: Mapping[str, Sequence[int]]) -> float:
    """How many elements come out for each that goes in, as far as small constants say; 1 where they say nothing.

    `values` are those of the inputs that are such constants, None for the others."""
    by_attribute = [
        math.prod(1.0 + abs(number) for number in numbers)
        for name, numbers in attributes.items()
        if name in _SIZING_ATTRIBUTES
    ]
    return max(1.0, _said_by_inputs(operator, values), *by_attribute)


def _said_by_inputs(operator: str, values: Sequence[Sequence[float] | None]) -> float:
    said = [values[place] for place in _SIZED_BY.get(operator, ()) if place < len(values) and values[place]]
    if not said:
        return 1.0
    if operator == "Range":
        start, stop, step = (numbers[0] if numbers else 1.0 for numbers in (*said, None, None)[:3])
        return abs(stop - start) / abs(step) if len(said) == 3 and step else 1.0
    smallest = 1.0 if operator == "Pad" else 0.0
    return math.prod(max(1.0, smallest + abs(number)) for number in said[0] or ())


def elements_out(
    operator: str, elements: Sequence[float], values: Sequence[Sequence[float] | None], grown: float
) -> float:
    """Elements, at most, of what an operator makes of constants: of inputs with so many `elements` each, of which
    `values` are known and make it grow by `grown`."""
    if operator in ("Shape", "Size"):
        return _HIGHEST_RANK
    if operator in _NEVER_LARGER:
        return elements[0]
    if operator == "Concat":
        return math.fsum(elements)
    if operator == "If" or _depends_on_unknown(operator, values):
        return math.inf
    return grown * math.prod(max(1.0, count) for count in elements)


def _depends_on_unknown(operator: str, values: Sequence[Sequence[float] | None]) -> bool:
    """Whether what says how many elements come out is computed itself."""
    places = _SIZED_BY.get(operator, ())
    found = [place < len(values) and values[place] is not None for place in places]
    return bool(places) and not (all(found) if operator == "Range" else any(found))
