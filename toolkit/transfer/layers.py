"""The depth of a model's parameters, from the input to the head: what layer-wise learning rates go by.

A `Classifier` finds the layers of its backbone by the rule of `layers_of`. A plugin that knows better, because a
publisher counts otherwise, gives its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from torch import nn

OPENED = 0.5
"""Share of all parameters above which a module is a stack of layers, and not one layer."""


def layers_of(module: nn.Module) -> Sequence[Sequence[str]]:
    """Prefixes of parameter names for each layer of `module`, from the input on.

    A layer is a child of the module, in the order in which children are registered. A sequence of modules, and a child
    that holds more than half of all parameters, is opened, so that its children are layers. What holds vectors alone
    (a norm) is part of the layer before it. Parameters of no child (tokens, positions) are part of the first layer.
    """
    layers: list[list[str]] = []
    loose: list[str] = []
    for name, child in _opened(module, "", OPENED * _count(module)):
        if child is None:
            loose.append(name)
        elif layers and all(parameter.ndim < 2 for parameter in child.parameters()):
            layers[-1].append(name)
        else:
            layers.append([name])
    if not layers:
        return [loose] if loose else []
    return [[*loose, *layers[0]], *layers[1:]]


def own_undecayed(module: nn.Module) -> frozenset[str]:
    """The parameters that `module` itself lists by `no_weight_decay`, the method that timm's models have for it; none
    where it has no such method. timm lists names of parameters that some variants lack."""
    listed = getattr(module, "no_weight_decay", None)
    names: Collection[str] = listed() if callable(listed) else ()
    return frozenset(names) & {name for name, _ in module.named_parameters()}


def _opened(module: nn.Module, prefix: str, large: float) -> Iterator[tuple[str, nn.Module | None]]:
    """The layers, each with its name; parameters of no layer come with None."""
    for name, _ in module.named_parameters(recurse=False):
        yield f"{prefix}{name}", None
    for name, child in module.named_children():
        count = _count(child)
        if not count:
            continue
        stacked = isinstance(child, nn.Sequential | nn.ModuleList) or count > large
        if stacked and any(_count(part) for part in child.children()):
            yield from _opened(child, f"{prefix}{name}.", large)
        else:
            yield f"{prefix}{name}", child


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
