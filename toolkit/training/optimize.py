"""Parameter groups, frozen layers and warm-up: what the core adds to any optimizer and schedule."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from toolkit.api.contracts import Grouped, Layered, Objective, Schedule, Undecayed
from toolkit.transfer.layers import layers_of


def warmed_up(schedule: Schedule, steps: float) -> Schedule:
    """`schedule` with its factor raised linearly from near 0 over the first `steps` steps."""
    return _WarmUp(schedule, steps) if steps > 0 else schedule


@dataclass(frozen=True)
class _WarmUp:
    inner: Schedule
    steps: float

    def factor(self, step: int) -> float:
        return min(1.0, (step + 1) / self.steps) * self.inner.factor(step)

    def observe(self, score: float) -> None:
        self.inner.observe(score)

    def state_dict(self) -> dict[str, float]:
        return self.inner.state_dict()

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self.inner.load_state_dict(state)


@dataclass(frozen=True)
class Layers:
    """A model's layers from the input on, without its head, by the prefixes of their parameters' names."""

    prefixes: Sequence[Sequence[str]]

    @classmethod
    def of(cls, model: nn.Module) -> Layers:
        """Those that the model names; else those that `layers_of` finds, of which the last one is the head."""
        return cls(model.layers() if isinstance(model, Layered) else layers_of(model)[:-1])

    def __len__(self) -> int:
        return len(self.prefixes)

    def depth(self, name: str) -> int:
        """The number of the layer that a parameter or module of this name is part of; the head's is `len(self)`."""
        for number, prefixes in enumerate(self.prefixes):
            if any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes):
                return number
        return len(self)


@dataclass(frozen=True)
class LayerDecay:
    """Learning rates that fall from the head to the input, as BEiT (arXiv 2106.08254) fine-tunes: the head has the
    whole rate, the last layer `decay` of it, the one before `decay` squared, and so on."""

    decay: float
    depths: Mapping[int, int]
    """From the id of a parameter to the number of its layer."""
    count: int
    """Layers without the head."""

    @classmethod
    def of(cls, model: nn.Module, decay: float) -> LayerDecay:
        layers = Layers.of(model)
        depths = {id(parameter): layers.depth(name) for name, parameter in model.named_parameters()}
        return cls(decay, depths, len(layers))

    def depth(self, parameter: nn.Parameter) -> int:
        """Parameters of the objective have the depth of the head."""
        return self.depths.get(id(parameter), self.count)

    def scale(self, depth: int) -> float:
        return float(self.decay ** (self.count - depth))


def undecayed(model: nn.Module) -> frozenset[int]:
    """The ids of the parameters that the model itself wants not to decay."""
    names = set(model.no_weight_decay()) if isinstance(model, Undecayed) else set[str]()
    return frozenset(id(parameter) for name, parameter in model.named_parameters() if name in names)


def parameter_groups(
    parts: Mapping[str, nn.Module],
    lr: float,
    lr_scales: Mapping[str, float],
    *,
    decay_norms_and_biases: bool,
    layer_decay: LayerDecay | None = None,
    undecayed: Collection[int] = (),
) -> Iterator[dict[str, Any]]:
    """Groups by part (`backbone`, `head`; a model without parts is all `model`), by layer where the rate falls with
    depth, and by whether they decay. `undecayed` are ids of parameters that go with norms and biases.

    Each has a `name` and its `base_lr`, which the loop multiplies by the schedule's factor.
    """

    def bare(parameter: nn.Parameter) -> bool:
        return not decay_norms_and_biases and (parameter.ndim < 2 or id(parameter) in undecayed)

    for part, module in parts.items():
        rate = lr * lr_scales.get(part, 1.0)
        for name, scale, parameters in _by_depth(part, list(module.parameters()), layer_decay):
            shared = {"lr": rate * scale, "base_lr": rate * scale}
            decaying = [one for one in parameters if not bare(one)]
            if decaying:
                yield {"params": decaying, **shared, "name": name}
            if len(decaying) < len(parameters):
                rest = [one for one in parameters if bare(one)]
                yield {"params": rest, **shared, "name": f"{name} norms and biases", "weight_decay": 0.0}


def _by_depth(
    part: str, parameters: Sequence[nn.Parameter], layer_decay: LayerDecay | None
) -> Iterator[tuple[str, float, Sequence[nn.Parameter]]]:
    """The parameters of a part by layer, each layer with its name and the factor on its rate."""
    if layer_decay is None:
        yield part, 1.0, parameters
        return
    for depth in sorted({layer_decay.depth(one) for one in parameters}):
        name = part if depth == layer_decay.count else f"{part} layer {depth}"
        yield name, layer_decay.scale(depth), [one for one in parameters if layer_decay.depth(one) == depth]


def freeze_layers(model: nn.Module, trained: int) -> None:
    """Let gradients reach the head and the last `trained` layers alone."""
    for parameter in _frozen(model, trained):
        parameter.requires_grad_(False)


def frozen_modules(model: nn.Module, trained: int | None) -> list[nn.Module]:
    """The modules that `freeze_layers` has frozen all parameters of, and what they hold: they stay in evaluation mode,
    so that batch norm keeps its statistics and nothing is dropped."""
    if trained is None:
        return []
    frozen = {id(parameter) for parameter in _frozen(model, trained)}
    found: dict[nn.Module, None] = {}
    for module in model.modules():
        held = [id(parameter) in frozen for parameter in module.parameters()]
        if held and all(held):
            found.update(dict.fromkeys(module.modules()))
    return list(found)


def _frozen(model: nn.Module, trained: int) -> Iterator[nn.Parameter]:
    layers = Layers.of(model)
    for name, parameter in model.named_parameters():
        if layers.depth(name) < len(layers) - trained:
            yield parameter


def model_parts(model: nn.Module) -> Mapping[str, nn.Module]:
    """The model's named parts; one part `model` where it names none."""
    return model.parts() if isinstance(model, Grouped) else {"model": model}


def trained_parts(model: nn.Module, objective: Objective) -> Mapping[str, nn.Module]:
    """What is trained, by the names under which a recipe scales learning rates: `objective` where it has weights."""
    own = any(parameter.requires_grad for parameter in objective.parameters())
    return {**model_parts(model), **({"objective": cast(nn.Module, objective)} if own else {})}
