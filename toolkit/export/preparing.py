"""The first part of an exported graph: frames of any size become what training stores, to the bit.

It is the arithmetic of `toolkit.serving.bundle.resampling`, with sizes that are known only when the graph runs. Floats
of 32 bits are all that its large tensors have, which every runtime computes fast; weights are split in two, so that
each sum of products is a whole number of at most 24 bits. TF32 changes none either.
"""

# onnxscript reads the code of these functions and makes nodes of it: for types and style, they are not Python.
# mypy: ignore-errors
# ruff: noqa: SIM108

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import onnx
import onnx.inliner
from onnx import TensorProto
from onnxscript import UINT8, ir, script
from onnxscript import opset20 as op
from onnxscript.optimizer import optimize

from toolkit.serving.bundle.manifest import SIDES
from toolkit.serving.bundle.resampling import LARGEST_WEIGHT, MOST_BITS

if TYPE_CHECKING:
    from toolkit.api.contracts import Fit

OPSET = 20
PREPARE = "prepare/"
"""Begins the names of all nodes and values here."""
LOW = 64
"""Weights are split into what is below this and what is above: sums are exact where an output is made of at most 1,024
inputs of its side."""
DOUBLE, FLOAT, INT64, BYTE = TensorProto.DOUBLE, TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8
TILE = 16
"""Pixels of a side that one product of matrices makes, from the inputs that any of them sees."""
IN_TILES = [-1, TILE]


@script(default_opset=op)
def length(line):
    """Pixels of one line of an image. The shape of all frames has them too, but onnxruntime would not compute it while
    loading, where a session fixes height and width and not the batch."""
    return op.Squeeze(op.Shape(line))


@script(default_opset=op)
def counted(count):
    """float64 `[count]`: 0, 1, 2 …"""
    return op.Cast(op.Range(0, count, 1), to=DOUBLE)


@script(default_opset=op)
def triangle(outputs, inputs, extent, scale):
    """The filter's weight of each input for each output, before weights are made to sum to 1."""
    reach = op.Max(scale, 1.0)
    far = op.Abs((inputs - scale * (outputs + 0.5) + 0.5) * (1.0 / reach))
    inside = op.And(inputs >= 0.0, inputs < extent)
    return op.Where(inside, op.Max(1.0 - far, 0.0), op.CastLike(0.0, far))


@script(default_opset=op)
def largest_unit(weight):
    """What stands for a weight of 1: the largest power of two by which the largest `weight` has 15 bits."""
    units = op.Pow(op.CastLike(2.0, weight), counted(op.Constant(value_int=MOST_BITS + 1)))
    fits = weight * units + 0.5 < op.CastLike(LARGEST_WEIGHT, weight)
    return op.ReduceMax(op.Where(fits, units, op.CastLike(1.0, units)), keepdims=0)


@script(default_opset=op)
def covered(height, width, side):
    """Height and width as `toolkit.data.geometry.covering` has them."""
    short = op.Min(height, width)
    return (2 * height * side + short) / (2 * short), (2 * width * side + short) / (2 * short)


@script(default_opset=op)
def stretched(height, width, side):  # noqa: ARG001
    """Height and width where both sides are brought to `side`."""
    return op.Identity(side), op.Identity(side)


@script(default_opset=op)
def resampled(lines, whole, first, outputs):
    """uint8 `[E, M]`, the E lines of one side, to `[B * TILE, M]`: of the `whole` lines that these become, those whose
    numbers are `outputs`, int64 `[B, TILE]`, behind `first`."""
    extent = op.Squeeze(op.Shape(lines, start=0, end=1))
    pixels = op.Cast(extent, to=DOUBLE)
    scale = pixels / op.Cast(whole, to=DOUBLE)
    longer = op.Max(extent, whole)
    every = counted(whole)
    starts = op.Floor(scale * (every + 0.5) - op.Max(scale, 1.0) + 0.5)
    window = op.Unsqueeze(starts, [1]) + counted(2 * longer / whole + 3)
    all_weights = triangle(op.Unsqueeze(every, [1]), window, pixels, scale)
    totals = op.ReduceSum(all_weights, [1])
    unit = largest_unit(op.ReduceMax(all_weights / totals, keepdims=0))

    wanted = op.Min(outputs + first, whole - 1)
    inputs = op.Gather(starts, wanted[:, 0:1]) + counted((TILE + 1) * longer / whole + 3)
    apart = triangle(op.Cast(op.Unsqueeze(wanted, [2]), to=DOUBLE), op.Unsqueeze(inputs, [1]), pixels, scale)
    weights = op.Floor(apart / op.Gather(op.Squeeze(totals, [1]), op.Unsqueeze(wanted, [2])) * unit + 0.5)
    high = op.Floor(weights / op.CastLike(LOW, weights))
    low = weights / op.CastLike(LOW, weights) - high
    share = op.Cast(op.CastLike(LOW, unit) / unit, to=FLOAT)
    numbers = op.Cast(op.Clip(inputs, 0.0, pixels - 1.0), to=INT64)
    seen = op.Cast(op.Gather(lines, numbers), to=FLOAT)
    below = op.Floor(op.MatMul(op.Cast(low, to=FLOAT), seen) + 0.5 / share)
    sums = (op.MatMul(op.Cast(high, to=FLOAT), seen) + below) * share
    # A cast rounds down, as a shift does. No sum reaches 256: the rounding of weights adds less than half.
    return op.Reshape(op.Cast(sums, to=BYTE), op.Concat([-1], op.Shape(lines, start=1), axis=0))


@functools.cache  # a study that measures latency exports every trial
def preparation(square: int, size: int, fit: Fit, clip: int | None) -> onnx.ModelProto:
    """uint8 `[N, H, W, 3]`, or of clips of `clip` frames `[N, T, H, W, 3]`, of any size to what the model sees, uint8
    `[N, 3, size, size]` or `[N, T, 3, size, size]`: squares by `fit`, then the centre crop of evaluation. Frames that
    are such squares already are only cropped.

    The input is `frames`. Who calls must not change the model, which is made once for each kind.
    """
    margin = (square - size) // 2
    end = margin + size
    padded = -(-size // TILE) * TILE
    flat, planes, clips = [size * size, -1], [3, -1, size, size], [-1, clip or 1, 3, size, size]
    sides = covered if fit == "crop" else stretched

    @script(default_opset=op)
    def cropped(images):
        return op.Transpose(images[:, margin:end, margin:end, :], perm=[0, 3, 1, 2])

    @script(default_opset=op)
    def centred(images, height, width):
        tall, wide = sides(height, width, square)
        top = (tall - square) / 2 + margin
        left = (wide - square) / 2 + margin
        outputs = op.Reshape(op.Range(0, padded, 1), IN_TILES)
        # All transpositions but the last are of plain matrices, which is the fast kind: images come last until then.
        by_column = op.Transpose(op.Reshape(images, op.Concat([-1], op.Reshape(width * 3, [1]), axis=0)), perm=[1, 0])
        columns = op.Reshape(by_column, op.Concat(op.Reshape(width, [1]), [-1], axis=0))
        narrow = resampled(columns, wide, left, outputs)[0:size]
        by_row = op.Transpose(op.Reshape(narrow, op.Concat([-1], op.Reshape(height, [1]), axis=0)), perm=[1, 0])
        low = resampled(by_row, tall, top, outputs)[0:size]
        by_channel = op.Transpose(op.Reshape(low, flat), perm=[1, 0])
        return op.Transpose(op.Reshape(by_channel, planes), perm=[1, 0, 2, 3])

    @script(default_opset=op)
    def seen_of(images, height, width):
        if op.And(height == square, width == square):
            seen = cropped(images)
        else:
            seen = centred(images, height, width)
        return seen

    @script(default_opset=op)
    def of_images(frames):
        return seen_of(frames, length(frames[0, :, 0, 0]), length(frames[0, 0, :, 0]))

    @script(default_opset=op)
    def of_clips(frames):
        height, width = length(frames[0, 0, :, 0, 0]), length(frames[0, 0, 0, :, 0])
        image = op.Concat([-1], op.Reshape(height, [1]), op.Reshape(width, [1]), [3], axis=0)
        return op.Reshape(seen_of(op.Reshape(frames, image), height, width), clips)

    frames = () if clip is None else (clip,)
    model: onnx.ModelProto = (of_images if clip is None else of_clips).to_model_proto(
        input_types=[UINT8["N", *frames, *SIDES, 3]], output_types=[UINT8["N", *frames, 3, size, size]]
    )
    return _named(optimize(onnx.inliner.inline_local_functions(model), num_iterations=1))


def _named(model: onnx.ModelProto) -> onnx.ModelProto:
    """With names that no node or value of the network has, those of the input aside."""
    found = ir.from_proto(model)
    for node in found.graph.all_nodes():
        for named in (node, *node.outputs):
            named.name = f"{PREPARE}{named.name}"
    for constant in list(found.graph.initializers.values()):
        constant.name = f"{PREPARE}{constant.name}"
    return ir.to_proto(found)
