"""Layers that see the whole batch, whatever part of it a rank computes: batch norm and dropout.

With them a recipe means the same on any number of ranks: statistics are those of the whole batch, and which values are
dropped follows from the place of an item in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from toolkit.system.device import at_least_float32
from toolkit.system.randomness import derive
from toolkit.system.ranks import Ranks


@dataclass
class Part:
    """The items that are computed now, as the layers of a network see them."""

    seed: int = 0
    epoch: int = 0
    step: int = 0
    size: int = 0
    """Items of the whole batch."""
    places: Tensor | None = None
    """int64 `[B]` on the CPU: where the items of this part stand in the whole batch. None: nothing is trained."""

    def begin(self, seed: int, epoch: int, step: int, *, size: int, places: Tensor) -> None:
        self.seed, self.epoch, self.step, self.size, self.places = seed, epoch, step, size, places

    def end(self) -> None:
        self.places = None


class Dropout(nn.Module):
    """Dropout whose mask is drawn for the whole batch, from (seed, epoch, step, number of the layer), and used for the
    items at hand.

    Takes `[B, ...]`, or `[B * K, ...]` with the K rows of an item next to each other, as frames of clips are.
    """

    def __init__(self, share: float, kept_axes: int | None, part: Part, number: int) -> None:
        super().__init__()
        self.p = share
        self._kept_axes = kept_axes
        self._part, self._number = part, number

    def forward(self, values: Tensor) -> Tensor:
        part = self._part
        drawn_here = self.training and 0 < self.p < 1
        if not drawn_here or part.places is None or len(values) % len(part.places):
            return functional.dropout(values, self.p, self.training)
        rows = len(values) // len(part.places)
        axes = values.ndim if self._kept_axes is None else self._kept_axes
        shape = (*values.shape[1:axes], *(1 for _ in values.shape[axes:]))
        seed = derive(part.seed, "dropout", part.epoch, part.step, self._number)
        generator = torch.Generator(values.device).manual_seed(seed)
        drawn = torch.rand((part.size, rows, *shape), generator=generator, device=values.device)
        if len(part.places) < part.size:
            drawn = drawn.index_select(0, part.places.to(values.device, non_blocking=True))
        kept = drawn.flatten(0, 1) >= self.p
        return values * kept.to(values.dtype).div_(1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p:g}"


AT_ONCE = 32
"""Values of a channel that a kernel adds up in float32: more would lose digits, fewer take longer."""


class BatchNorm(nn.Module):
    """Batch norm with the mean and variance of the whole batch, over all ranks, on any device.

    The arithmetic of S. Ioffe and C. Szegedy (arXiv 1502.03167) on sums that are exchanged, as in torch's
    SyncBatchNorm, which computes on GPUs alone. Has the parameters and buffers of the layer it replaces.
    """

    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor

    def __init__(self, layer: _BatchNorm, ranks: Ranks) -> None:
        super().__init__()
        self.eps, self.momentum, self._ranks = layer.eps, layer.momentum, ranks
        self.weight: nn.Parameter | None
        self.bias: nn.Parameter | None
        self.register_parameter("weight", layer.weight)
        self.register_parameter("bias", layer.bias)
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(layer, name))
        self.train(layer.training)

    def forward(self, values: Tensor) -> Tensor:
        if not self.training and self.running_mean is not None:
            return functional.batch_norm(
                values, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        whole = Whole.of(values, self._ranks)
        if self.training:
            self._follow(whole)
        normalised: Tensor = _Normalised.apply(values, self.weight, self.bias, whole, self.eps)
        return normalised

    @torch.no_grad()
    def _follow(self, whole: Whole) -> None:
        """Move the running statistics, the variance without bias, as torch's layer does."""
        if self.running_mean is None or self.running_var is None:
            return
        self.num_batches_tracked += 1
        weight = self.momentum if self.momentum is not None else 1 / self.num_batches_tracked.to(whole.mean.dtype)
        self.running_mean.lerp_(whole.mean, weight)
        self.running_var.lerp_(whole.variance * (whole.count / (whole.count - 1)), weight)


@dataclass(frozen=True)
class Whole:
    """Statistics of a whole batch, and the ranks that share it."""

    mean: Tensor
    """float32 `[C]`; float64 of values in float64."""
    variance: Tensor
    """As `mean`, biased."""
    count: Tensor
    """Values of a channel: a scalar."""
    ranks: Ranks

    @classmethod
    @torch.no_grad()
    def of(cls, values: Tensor, ranks: Ranks) -> Whole:
        """Of values `[B, C, ...]` of all ranks."""
        channels = values.shape[1]
        own = values.new_zeros((ranks.count, 2 * channels + 1), dtype=torch.float64)
        if values.numel():
            count = own.new_full((1,), values.numel() / channels)
            own[ranks.rank] = torch.cat((*moments(values), count))
        means, variances, counts = ranks.sum(own).split((channels, channels, 1), dim=1)
        mean, variance = joined(means, variances, counts)
        exact = values.dtype if values.dtype == torch.float64 else torch.float32
        return cls(mean.to(exact), variance.to(exact), counts.sum().to(exact), ranks)


def moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel of values `[B, C, ...]`, float64 `[C]`.

    On a CPU torch's kernel for batch norm is several times as fast as `var_mean`. Where channels lie innermost it adds
    up all values one by one in float32, so here it gets a few at a time, and float64 does the rest.
    """
    if values.device.type != "cpu" or torch.compiler.is_compiling():
        axes = [axis for axis in range(values.ndim) if axis != 1]
        variance, mean = torch.var_mean(at_least_float32(values), axes, correction=0)
        return mean.double(), variance.double()
    rows = values.movedim(1, -1)
    if not rows.is_contiguous():
        return _moments_by_kernel(values)
    rows = rows.flatten(0, -2)
    groups = len(rows) // AT_ONCE
    first, last = rows[: groups * AT_ONCE], rows[groups * AT_ONCE :]
    means, variances, counts = [], [], []
    for part, each, count in ((first, AT_ONCE, groups), (last, len(last), 1)):
        if len(part):
            # The first of each group, then the second of each: as many rows as a group has.
            mean, variance = _moments_by_kernel(part.view(each, -1))
            means.append(mean.view(count, -1))
            variances.append(variance.view(count, -1))
            counts.append(mean.new_full((count, 1), each))
    return joined(torch.cat(means), torch.cat(variances), torch.cat(counts))


def _moments_by_kernel(values: Tensor) -> tuple[Tensor, Tensor]:
    """As `moments`, up to the rounding of the kernel's sums."""
    exact = torch.float64 if values.dtype == torch.float64 else torch.float32
    # Running statistics are not used here, but their type is that of the kernel's answer.
    running = torch.zeros((2, values.shape[1]), dtype=exact)
    mean, variance = torch.ops.aten.batch_norm_update_stats(values, running[0], running[1], 0.0)
    return mean.double(), variance.double()


def joined(means: Tensor, variances: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance `[C]` of all values of K groups, from those of each, `[K, C]`, and their counts, `[K, 1]`.

    As in T. Chan, G. Golub and R. LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances"
    (1979): sums of squares would cancel.
    """
    total = counts.sum()
    mean = (means * counts).sum(0) / total
    return mean, ((variances + (means - mean) ** 2) * counts).sum(0) / total


class _Normalised(torch.autograd.Function):
    """`(values - mean) / deviation * weight + bias`, with the gradient that flows through mean and variance."""

    @staticmethod
    def forward(
        context: Any, values: Tensor, weight: Tensor | None, bias: Tensor | None, whole: Whole, eps: float
    ) -> Tensor:
        context.save_for_backward(values, weight)
        context.whole, context.eps = whole, eps
        return functional.batch_norm(values, whole.mean, whole.variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        values, weight = context.saved_tensors
        whole: Whole = context.whole
        scale = torch.rsqrt(whole.variance + context.eps)
        ones = torch.ones_like(whole.mean) if weight is None else weight
        statistics = (whole.mean, whole.variance, whole.mean, scale)
        # With the statistics held fixed: torch's own kernel, and both sums that the rest needs.
        fixed, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            gradients[0], values, ones, *statistics, False, context.eps, [True, True, True]
        )
        sums = at_least_float32(torch.stack((by_weight, by_bias)))
        mean_by_weight, mean_by_bias = whole.ranks.sum(sums) / whole.count
        # Less the mean gradient of a channel, and less its mean along the normalised values.
        slope = -ones * scale**2 * mean_by_weight
        offset = -ones * scale * mean_by_bias - slope * whole.mean
        shape = (1, -1, *(1 for _ in values.shape[2:]))
        flowing = torch.addcmul(offset.view(shape), values, slope.view(shape)).to(fixed.dtype)
        found = (fixed.add_(flowing), by_weight, by_bias)
        wanted = context.needs_input_grad
        return (*(one if needed else None for one, needed in zip(found, wanted, strict=False)), None, None)


KEPT_AXES: dict[type[nn.Module], int | None] = {nn.Dropout: None, nn.Dropout1d: 2, nn.Dropout2d: 2, nn.Dropout3d: 2}
"""Of how many leading axes a layer draws: channels are dropped whole by all but the first."""
STOCHASTIC_DEPTH: dict[str, tuple[str, dict[str, Any]]] = {
    "torchvision.ops.stochastic_depth.StochasticDepth": ("p", {"mode": "row"}),
    "timm.layers.drop.DropPath": ("drop_prob", {"scale_by_keep": True}),
}
"""Layers of libraries that drop items whole: the name of the share, and what such a layer must have."""


def drop_by_item(network: nn.Module) -> Part:
    """Replace the dropout layers of `network`, stochastic depth too, by ones that draw for the whole batch; what they
    look at before each part of a batch."""
    part = Part()
    layers = [(found, dropped) for found in _layers(network) if (dropped := _dropped(found[2]))]
    for number, ((parent, name, _), (share, kept_axes)) in enumerate(layers):
        setattr(parent, name, Dropout(share, kept_axes, part, number))
    return part


def _dropped(layer: nn.Module) -> tuple[float, int | None] | None:
    """The share that a layer drops, and of how many leading axes it draws; None for other layers."""
    if type(layer) in KEPT_AXES:
        return cast(float, layer.p), KEPT_AXES[type(layer)]
    share, needed = STOCHASTIC_DEPTH.get(f"{type(layer).__module__}.{type(layer).__name__}", ("", {}))
    if not share or any(getattr(layer, key) != value for key, value in needed.items()):
        return None
    return getattr(layer, share) or 0.0, 1


def norm_over_ranks(network: nn.Module, ranks: Ranks) -> None:
    """Replace the batch norms of `network` by ones whose statistics are those of all ranks."""
    for parent, name, layer in _layers(network):
        if type(layer) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
            setattr(parent, name, BatchNorm(cast(_BatchNorm, layer), ranks))


def _layers(network: nn.Module) -> list[tuple[nn.Module, str, nn.Module]]:
    """All layers below a network, each with its parent and its name there."""
    return [(parent, name, layer) for parent in network.modules() for name, layer in parent.named_children()]


@contextmanager
def buffers_kept(*modules: nn.Module) -> Iterator[None]:
    """Give the buffers of these modules, statistics for example, their values back."""
    kept = [(buffer, buffer.clone()) for module in modules for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in kept:
                buffer.copy_(before)


@contextmanager
def drawing(module: nn.Module, device: torch.device) -> Iterator[list[str]]:
    """The names of the innermost layers below `module` that draw from torch's global generator in the block; "" if
    only what stands around them does. The list is complete at the block's end."""
    generator = torch.cuda.default_generators[device.index or 0] if device.type == "cuda" else torch.default_generator
    before = {"": generator.get_state()}
    drawn: set[str] = set()

    def enter(_: nn.Module, __: Any, name: str) -> None:
        before[name] = generator.get_state()

    def leave(_: nn.Module, __: Any, ___: Any, name: str) -> None:
        if not torch.equal(before[name], generator.get_state()):
            drawn.add(name)

    hooks = []
    for name, one in list(module.named_modules())[1:]:
        hooks.append(one.register_forward_pre_hook(partial(enter, name=name)))
        hooks.append(one.register_forward_hook(partial(leave, name=name)))
    innermost: list[str] = []
    try:
        yield innermost
    finally:
        for hook in hooks:
            hook.remove()
    innermost += sorted(name for name in drawn if not any(other.startswith(f"{name}.") for other in drawn))
    if not drawn and not torch.equal(before[""], generator.get_state()):
        innermost.append("")
