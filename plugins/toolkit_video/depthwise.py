"""Depthwise convolutions of clips whose gradients processors compute fast.

X3D and CSN spend most of a training step on the CPU in the gradients of these layers: oneDNN has good kernels for a
depthwise convolution of images and of clips, and for the gradients of images, but for those of clips it falls back to
plain loops. A convolution of clips is a sum of convolutions of images, one for each tap in time, and so are its
gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

_Triple = tuple[int, int, int]


def with_fast_gradients(network: nn.Module) -> None:
    """Replace the depthwise convolutions of clips in `network` by DepthwiseConv3d of the same parameters."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Conv3d) and _fits(module):
            network.set_submodule(name, DepthwiseConv3d(module))


def _fits(layer: nn.Conv3d) -> bool:
    depthwise = 1 < layer.groups == layer.in_channels == layer.out_channels
    plain = layer.dilation == (1, 1, 1) and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return depthwise and plain and layer.bias is None


class DepthwiseConv3d(nn.Conv3d):
    """A depthwise convolution of clips `[B, C, T, H, W]` without bias; its gradients on the CPU are made of those of
    images. Where no gradient is wanted, when compiled and when exported it is like any Conv3d."""

    def __init__(self, layer: nn.Conv3d) -> None:
        super().__init__(
            *(layer.in_channels, layer.out_channels, cast("_Triple", layer.kernel_size)),
            stride=cast("_Triple", layer.stride),
            padding=cast("_Triple", layer.padding),
            groups=layer.groups,
            bias=False,
            device="meta",
        )
        self.weight = layer.weight

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's own name)
        if input.device.type != "cpu" or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return super().forward(input)
        clips, weight = input, self.weight
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            clips, weight = clips.to(dtype), weight.to(dtype)
        convolved: Tensor = _Depthwise.apply(clips, weight, self.stride, self.padding)
        return convolved


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, clips: Tensor, weight: Tensor, stride: _Triple, padding: _Triple) -> Tensor:
        ctx.save_for_backward(clips, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv3d(clips, weight, None, stride, padding, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        clips, weight = ctx.saved_tensors
        of_clips, of_weight = ctx.needs_input_grad[:2]
        grad_clips = _for_clips(gradient, weight, clips, ctx.stride, ctx.padding) if of_clips else None
        grad_weight = _for_weight(gradient, weight, clips, ctx.stride, ctx.padding) if of_weight else None
        return grad_clips, grad_weight, None, None


def _for_clips(gradient: Tensor, weight: Tensor, clips: Tensor, stride: _Triple, padding: _Triple) -> Tensor:
    """The gradient of `clips`: without a stride, a convolution by the mirrored weights."""
    if stride == (1, 1, 1):
        around = [size - 1 - before for size, before in zip(weight.shape[2:], padding, strict=True)]
        return functional.conv3d(gradient, weight.flip(2, 3, 4), None, 1, around, groups=len(weight))
    seen, made = _time_first(clips), _time_first(gradient)
    summed = torch.zeros_like(seen)
    for tap, read, written in _taps(len(seen), len(made), weight.shape[2], stride[0], padding[0]):
        of_images, _ = _of_images(made[written], seen[read], weight[:, :, tap], stride, padding, (True, False))
        summed[read] += of_images.unflatten(0, (-1, clips.shape[0]))
    return summed.movedim(0, 2).contiguous(memory_format=torch.channels_last_3d)


def _for_weight(gradient: Tensor, weight: Tensor, clips: Tensor, stride: _Triple, padding: _Triple) -> Tensor:
    """The gradient of `weight`. oneDNN is slow on maps smaller than the kernel: they grow by zeros, which add none."""
    below, right = (max(0, size - side) for size, side in zip(weight.shape[3:], gradient.shape[3:], strict=True))
    seen = _time_first(functional.pad(clips, (0, right * stride[2], 0, below * stride[1])))
    made = _time_first(functional.pad(gradient, (0, right, 0, below)))
    result = torch.zeros_like(weight)
    for tap, read, written in _taps(len(seen), len(made), weight.shape[2], stride[0], padding[0]):
        _, result[:, :, tap] = _of_images(made[written], seen[read], weight[:, :, tap], stride, padding, (False, True))
    return result


def _time_first(clips: Tensor) -> Tensor:
    """`[B, C, T, H, W]` -> `[T, B, C, H, W]` with the channels innermost: neighbouring times lie together."""
    return clips.permute(2, 0, 3, 4, 1).contiguous().permute(0, 1, 4, 2, 3)


def _taps(seen: int, made: int, taps: int, stride: int, padding: int) -> Iterator[tuple[int, slice, slice]]:
    """Each tap in time that reads any frame, with the frames of `seen` it reads and those of `made` it goes into."""
    for tap in range(taps):
        first = max(0, -((tap - padding) // stride))
        last = min(made - 1, (seen - 1 + padding - tap) // stride)
        if first <= last:
            start = first * stride + tap - padding
            yield tap, slice(start, start + (last - first) * stride + 1, stride), slice(first, last + 1)


def _of_images(
    made: Tensor, seen: Tensor, weight: Tensor, stride: _Triple, padding: _Triple, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """The gradients of the images `seen` and of `weight`, `[C, 1, h, w]`, each where it is `wanted`."""
    of_images, of_weight, _ = torch.ops.aten.convolution_backward(
        *(made.flatten(0, 1), seen.flatten(0, 1), weight.contiguous(memory_format=torch.channels_last)),
        bias_sizes=None,
        stride=stride[1:],
        padding=padding[1:],
        dilation=[1, 1],
        transposed=False,
        output_padding=[0, 0],
        groups=len(weight),
        output_mask=[*wanted, False],
    )
    return of_images, of_weight
