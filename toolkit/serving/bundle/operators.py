"""Which of ONNX's operators a bundle may use, and how many elements come out of those that make more of them.

Operators: https://onnx.ai/onnx/operators and onnxruntime's docs/ContribOperators.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

STANDARD = frozenset({"", "ai.onnx"})
"""The domain of ONNX's own operators, by both its names."""

_REFUSED = {
    **dict.fromkeys(("Loop", "Scan", "SequenceMap"), "may not end"),
    **dict.fromkeys(
        ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
        "answers at random",
    ),
    **dict.fromkeys(
        ("ImageDecoder", "RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer"),
        "works on files or text",
    ),
    **dict.fromkeys(
        ("BlackmanWindow", "DFT", "HammingWindow", "HannWindow", "MelWeightMatrix", "STFT"), "works on sound"
    ),
}
"""Operators of ONNX that an image classifier has no use for and an attacker has."""

_MICROSOFT = frozenset(
    {
        *("Attention", "BiasAdd", "BiasGelu", "BiasSoftmax", "BiasSplitGelu", "DequantizeLinear"),
        *("DynamicQuantizeMatMul", "FastGelu", "FusedConv", "FusedGemm", "FusedMatMul", "FusedMatMulActivation"),
        *("Gelu", "GroupNorm", "MatMulInteger16", "MatMulIntegerToFloat", "MatMulNBits", "MultiHeadAttention"),
        *("NhwcConv", "NhwcFusedConv", "NhwcMaxPool", "QAttention", "QGemm", "QLinearAdd", "QLinearAveragePool"),
        *("QLinearConcat", "QLinearConv", "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearMul"),
        *("QLinearReduceMean", "QLinearSigmoid", "QLinearSoftmax", "QLinearWhere", "QuantizeLinear", "QuickGelu"),
        *("SimplifiedLayerNormalization", "SkipGroupNorm", "SkipLayerNormalization"),
        "SkipSimplifiedLayerNormalization",
    }
)
"""onnxruntime's own operators that are arithmetic. The others loop, read files or hold another device's program."""

_SIZED_BY: Mapping[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,),
    **dict.fromkeys(("AffineGrid", "CenterCropPad", "Col2Im", "Expand", "OneHot", "Pad", "Tile", "Upsample"), (1,)),
    "MaxUnpool": (2,),
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
        *("Round", "Sigmoid", "Slice", "Split", "Sqrt", "Squeeze", "Tanh", "Transpose", "Trilu", "Unsqueeze"),
    }
)
"""Operators with at most as many elements out as their first input has."""
_HIGHEST_RANK = 32


def objection(operator: str, domain: str) -> str | None:
    """Why a bundle may not use this operator; None where it may."""
    if domain in STANDARD:
        return _REFUSED.get(operator)
    if domain == "com.microsoft":
        return None if operator in _MICROSOFT else "is more than arithmetic"
    return f'is of domain "{domain}", which onnxruntime alone does not have'


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
