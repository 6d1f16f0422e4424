"""Where in its input a network finds its answer.

A convolutional network is explained by Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391): its last feature maps, each
weighted by the mean gradient of the answer, summed, and cut at zero. A network without such maps, a transformer, is
explained by the size of its input gradients (Simonyan et al. 2014, arXiv 1312.6034).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from toolkit.api.contracts import Objective
from toolkit.training.modes import evaluating
from toolkit.training.network import Network
from toolkit.training.optimize import model_parts
from toolkit.transfer.classifier import Classifier

Method: TypeAlias = Literal["Grad-CAM", "input gradients"]

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
CELLS = 14
"""Input gradients are averaged over so many cells a side: those of single pixels are noise to the eye."""


@dataclass(frozen=True)
class Maps:
    """What N answers of a network come from, on the CPU."""

    values: Tensor
    """float32 `[N, H, W]`, or `[N, T, H, W]` of clips: 0..1, the largest of each item 1; all 0 if nothing in an item
    speaks for the class."""
    classes: Tensor
    """int64 `[N]`: the class, or the number, that each map is about."""
    logits: Tensor
    """float32 `[N, C]`: of the same pass."""
    method: Method
    layer: str
    """The name of the layer that Grad-CAM looks at, within the model; empty for input gradients."""

    @property
    def frames(self) -> Tensor:
        """float32 `[N, T]` of clips: how much each frame counts, 0..1, the most important one 1."""
        return _to_one(self.values.mean(dim=(-2, -1)))


def explain(
    network: Network, objective: Objective, pixels: Tensor, classes: Sequence[int] | None = None
) -> Maps | None:
    """Maps of N items for the `classes`, one each, or for the likeliest class of each item.

    `pixels` is uint8 `[N, 3, H, W]` or `[N, T, 3, H, W]`, N at least 1, on the network's device. The network runs in
    float32 and in evaluation mode, one item at a time; its mode is restored. Returns None if no gradient of the answer
    reaches the pixels.
    """
    # cuDNN has no gradient of an LSTM in evaluation mode
    with evaluating(network), torch.backends.cudnn.flags(enabled=False):
        layer = map_layer(network.model, _normalized(network, pixels[:1]))
        explained = [
            _explain_one(network, objective, pixels[at : at + 1], None if classes is None else classes[at], layer)
            for at in range(len(pixels))
        ]
    if not all(one is not None for one in explained):
        return None
    values, chosen, logits = zip(*(one for one in explained if one is not None), strict=True)
    maps = torch.cat(values).cpu()
    method: Method = "input gradients" if layer is None else "Grad-CAM"
    return Maps(
        _to_one(maps.flatten(1)).view_as(maps), torch.tensor(chosen), torch.cat(logits).cpu(), method, layer or ""
    )


@dataclass(frozen=True)
class LinearMap:
    """Grad-CAM of a network whose answers are linear in its last feature maps: the same sum of them for every input."""

    layer: str
    """The name of the layer, within the model."""
    weights: Tensor
    """float32 `[C, K]`: of each of K feature maps, in the map of each class."""
    extent: tuple[int, ...]
    """`(h, w)` of a map, or `(t, h, w)` of clips."""


def linear_map(network: Network, objective: Objective, pixels: Tensor) -> LinearMap | None:
    """How Grad-CAM of each class sums the feature maps, if that depends on no input: if only means and linear layers
    follow them. None if it does, and for a network without feature maps or with several of them.

    `pixels` is uint8 `[1, 3, H, W]` or `[1, T, 3, H, W]`, on the network's device; what they show has no effect. The
    gradients are compared at features that are drawn, small and large, of both signs: those of real inputs may all lie
    on one side of what is not linear."""
    with evaluating(network):
        inputs = _normalized(network, pixels)
        layer = map_layer(network.model, inputs)
        if layer is None:
            return None
        found = [_summed_at(network, objective, inputs, layer, size) for size in (0.1, 1.0, 10.0, 100.0)]
    first = found[0]
    if first is None or any(one is None or not _alike(one.weights, first.weights) for one in found):
        return None
    return first


def _summed_at(network: Network, objective: Objective, inputs: Tensor, layer: str, size: float) -> LinearMap | None:
    """The weights that Grad-CAM has at features of this size: the mean gradient of each class in each feature map. None
    where these differ from frame to frame."""
    frames, seen = _frames(inputs), list[Tensor]()

    def draw(_name: str, _module: nn.Module, output: Any) -> Any:
        torch.set_grad_enabled(True)
        draws = torch.Generator().manual_seed(int(10 * size))
        seen[:] = [
            (size * torch.randn(one.shape, generator=draws)).to(one).requires_grad_() for one in _maps(output, frames)
        ]
        return seen[0].clone() if seen and isinstance(output, Tensor) else output

    module = network.model.get_submodule(layer)
    rows = []
    with torch.no_grad(), _hooked({module: draw}, {module: layer}):
        logits = objective.logits(network.model(inputs).float())
        if len(seen) != 1 or not logits.requires_grad:
            return None
        for one in logits[0]:
            gradients: Sequence[Tensor | None] = torch.autograd.grad(one, seen, retain_graph=True, allow_unused=True)
            (gradient,) = gradients
            if gradient is None:
                return None
            means = gradient.float().mean(dim=tuple(range(2, gradient.ndim)))
            if not _alike(means, means[:1].expand_as(means)):
                return None
            rows.append(means[0])
    extent = tuple(seen[0].shape[2:])
    of_frames = inputs.ndim == 5 and seen[0].ndim == 4
    return LinearMap(layer, torch.stack(rows).cpu(), (frames, *extent) if of_frames else extent)


def _alike(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= 1e-4 * other.abs().max())


def map_layer(model: nn.Module, pixels: Tensor) -> str | None:
    """The name of the module whose output are the model's last convolutional features; None if it has none.

    A convolution in the first quarter of the backbone's layers does not count: those of transformers cut the picture
    into tokens. Of the modules whose output has the size of the last convolution's, the last one to end is meant: it
    adds what skips the convolution. `pixels` is what the model takes, float `[1, 3, H, W]` or `[1, T, 3, H, W]`.
    """
    frames = _frames(pixels)
    body = model_parts(model).get("backbone", model)
    ran: list[_Ran] = []

    def note(name: str, module: nn.Module, output: Any) -> None:
        ran.append(_Ran(name, module, [tuple(one.shape[2:]) for one in _maps(output, frames)]))

    names = {module: name for name, module in model.named_modules() if name}
    with torch.no_grad(), _hooked({module: note for module in body.modules() if module in names}, names):
        model(pixels)
    layers = [one for one in ran if any(True for _ in one.module.parameters(recurse=False))]
    places = [place for place, one in enumerate(layers) if isinstance(one.module, CONVOLUTIONS) and one.extents]
    if not places or 4 * (places[-1] + 1) < len(layers):
        return None
    extent = layers[places[-1]].extents[-1]
    return next(one.name for one in reversed(ran) if extent in one.extents)


class _Ran(NamedTuple):
    """A module that has run."""

    name: str
    module: nn.Module
    extents: Sequence[tuple[int, ...]]
    """`(h, w)` or `(t, h, w)` of each of its outputs that is a map."""


def _maps(output: Any, frames: int) -> list[Tensor]:
    """The feature maps of one item among a module's outputs: `[1, C, h, w]`, `[T, C, h, w]` of single frames, or
    `[1, C, t, h, w]`, with more than one place."""
    outputs = output if isinstance(output, list | tuple) else [output]
    counts = {4: (1, frames), 5: (1,)}
    return [
        one
        for one in outputs
        if isinstance(one, Tensor) and len(one) in counts.get(one.ndim, ()) and min(one.shape[-2:]) > 1
    ]


def _explain_one(
    network: Network, objective: Objective, pixels: Tensor, chosen: int | None, layer: str | None
) -> tuple[Tensor, int, Tensor] | None:
    """The map `[1, ..., H, W]` of one item, not scaled, with its class and its logits `[1, C]`."""
    inputs = _normalized(network, pixels)
    begun = _from_pixels(network.model, inputs) if layer is None else _from_layer(network.model, layer, inputs)
    with begun as seen:
        logits = objective.logits(network.model(inputs).float())
        if not logits.requires_grad:
            return None
        wanted = int(logits[0].argmax()) if chosen is None else chosen
        gradients = torch.autograd.grad(logits[0, wanted], seen, allow_unused=True)
    pairs = [(one.detach(), its) for one, its in zip(seen, gradients, strict=True) if its is not None]
    if not pairs:
        return None
    made = _saliency(pairs[0][1]) if layer is None else _weighted(pairs, pixels.shape)
    return made.float(), wanted, logits.detach().float()


@contextmanager
def _from_pixels(model: nn.Module, inputs: Tensor) -> Iterator[list[Tensor]]:
    """Record gradients from the pixels on; what they are wanted of. A frozen backbone would run without them."""
    frozen = isinstance(model, Classifier) and model.frozen
    if isinstance(model, Classifier):
        model.frozen = False
    try:
        yield [inputs.requires_grad_()]
    finally:
        if isinstance(model, Classifier):
            model.frozen = frozen


@contextmanager
def _from_layer(model: nn.Module, layer: str, inputs: Tensor) -> Iterator[list[Tensor]]:
    """Record gradients from the output of a layer on, so that nothing before it is kept in memory; what they are wanted
    of, once the model has run."""
    frames, seen = _frames(inputs), list[Tensor]()

    def begin(_name: str, _module: nn.Module, output: Any) -> Any:
        torch.set_grad_enabled(True)
        maps = _maps(output, frames)
        seen[:] = [one.detach().requires_grad_().clone() for one in maps]
        if isinstance(output, Tensor):
            return seen[0]
        known = {id(one): its for one, its in zip(maps, seen, strict=True)}
        return type(output)(known.get(id(one), one) for one in output)

    module = model.get_submodule(layer)
    with torch.no_grad(), _hooked({module: begin}, {module: layer}):
        yield seen


def _weighted(pairs: Sequence[tuple[Tensor, Tensor]], shape: torch.Size) -> Tensor:
    """The map `[1, H, W]` or `[1, T, H, W]` of features and their gradients, of each pathway."""
    summed = torch.zeros((), device=pairs[0][0].device)
    for features, gradient in pairs:
        weights = gradient.float().mean(dim=tuple(range(2, features.ndim)), keepdim=True)
        one = (weights * features.float()).sum(dim=1)
        summed = summed + _resized(one, shape)
    return summed.relu()


def _resized(one: Tensor, shape: torch.Size) -> Tensor:
    """A map `[1, h, w]`, `[T, h, w]` of single frames, or `[1, t, h, w]`, at the size of the item."""
    height, width = shape[-2:]
    if one.ndim == 4:
        return functional.interpolate(one[None], size=(shape[1], height, width), mode="trilinear")[0]
    frames = functional.interpolate(one[:, None], size=(height, width), mode="bilinear")[:, 0]
    return frames[None] if len(shape) == 5 else frames


def _saliency(gradient: Tensor) -> Tensor:
    """`[1, ..., 3, H, W]` to `[1, ..., H, W]`."""
    height, width = gradient.shape[-2:]
    sizes = gradient.float().abs().sum(dim=-3, keepdim=True).flatten(0, -4)
    cells = functional.adaptive_avg_pool2d(sizes, (min(CELLS, height), min(CELLS, width)))
    smooth = functional.interpolate(cells, size=(height, width), mode="bilinear")
    return smooth.view(*gradient.shape[:-3], height, width)


def _frames(pixels: Tensor) -> int:
    return pixels.shape[1] if pixels.ndim == 5 else 1


def _normalized(network: Network, pixels: Tensor) -> Tensor:
    with torch.no_grad():
        normalized: Tensor = network.normalize(pixels)
    return normalized


def _to_one(values: Tensor) -> Tensor:
    """`[N, K]` with the largest of each row 1, or all 0."""
    largest = values.amax(dim=1, keepdim=True)
    return torch.where(largest > 0, values / largest.clamp_min(torch.finfo(values.dtype).tiny), 0.0)


@contextmanager
def _hooked(
    hooks: Mapping[nn.Module, Callable[[str, nn.Module, Any], Any]], names: Mapping[nn.Module, str]
) -> Iterator[None]:
    """Call each hook with its module's name, the module and what it returns; what the hook returns takes its place."""
    with ExitStack() as held:
        for module, hook in hooks.items():

            def called(module: nn.Module, _inputs: Any, output: Any, hook: Any = hook) -> Any:
                return hook(names[module], module, output)

            held.callback(module.register_forward_hook(called).remove)
        yield
