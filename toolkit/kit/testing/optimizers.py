"""The rules of optimizers, asked with parameters of several shapes in two groups, as the core makes them."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.kit.testing.case import Subject
from toolkit.kit.testing.rulebook import DoesNotApply, Rulebook

RULES = Rulebook("optimizer")

LR = 0.01
SHAPES = {"kernel": (4, 3, 2, 2), "matrix": (3, 5), "vector": (5,), "scalar": ()}
GROUPS = {"backbone": ("kernel", "vector"), "head": ("matrix", "scalar")}
TARGET = 2.0
"""Where the convex loss is least: the sum of the squared distances of all parameters to it."""

Weights = dict[str, nn.Parameter]


@RULES.rule
def groups(subject: Subject) -> Iterator[str]:
    """`param_groups` holds the given groups in order, each with its parameters and every key that the core set."""
    weights = drawn()
    found = build(subject, weights).param_groups
    for place, (name, of) in enumerate(GROUPS.items()):
        group = found[place] if place < len(found) else {}
        wrong = [key for key, value in (("name", name), ("base_lr", LR), ("lr", LR)) if group.get(key) != value]
        if wrong:
            yield f"group {place} ({name}): {wrong[0]} is {group.get(wrong[0])}"
        elif {id(one) for one in group["params"]} != {id(weights[one]) for one in of}:
            yield f"group {place} ({name}) has other parameters"


@RULES.rule
def steps(subject: Subject) -> Iterator[str]:
    """Steps without a closure lower a convex loss of parameters of any shape."""
    weights = drawn()
    before = loss(weights)
    take_steps(build(subject, weights), weights, 20)
    after = loss(weights)
    if not after < before:
        yield f"the loss is {before:.6g} before 20 steps and {after:.6g} after them"


@RULES.rule
def rates(subject: Subject) -> Iterator[str]:
    """Each group's `lr` is read before every step: at 0 its parameters stop, at most one step later."""
    weights = drawn()
    optimizer = build(subject, weights)
    take_steps(optimizer, weights, 3)
    optimizer.param_groups[0]["lr"] = 0.0
    take_steps(optimizer, weights, 1)
    before = values(weights)
    take_steps(optimizer, weights, 3)
    moved = changed(weights, before)
    for name in GROUPS["backbone"]:
        if name in moved:
            yield f"the {name} moves at a rate of 0"
    for name in GROUPS["head"]:
        if name not in moved:
            yield f"the {name} stays at a rate of {LR}"


@RULES.rule
def decay(subject: Subject) -> Iterator[str]:
    """A group's own `weight_decay` replaces the argument: at 0 its parameters move as without decay."""
    if not subject.takes("weight_decay"):
        raise DoesNotApply("it has no argument weight_decay")
    decayed, free = drawn(), drawn()
    # Small gradients: an optimizer that divides by their size shows a decay only where it turns their signs.
    take_steps(build(subject, decayed, {"head": {"weight_decay": 0.0}}, weight_decay=0.1), decayed, 5, scale=1e-3)
    take_steps(build(subject, free, weight_decay=0.0), free, 5, scale=1e-3)
    unlike = changed(decayed, values(free))
    for name in GROUPS["head"]:
        if name in unlike:
            yield f"the {name} decays in a group whose weight_decay is 0"
    for name in GROUPS["backbone"]:
        if name not in unlike:
            yield f"the {name} does not decay in a group whose weight_decay is 0.1"


@RULES.rule
def absent(subject: Subject) -> Iterator[str]:
    """A parameter without a gradient does not move, even where no parameter has one."""
    weights = drawn()
    optimizer = build(subject, weights)
    take_steps(optimizer, weights, 3)
    for without in (("kernel", "scalar"), tuple(SHAPES)):
        before = values(weights)
        take_steps(optimizer, weights, 2, without=without)
        for name in set(without) & changed(weights, before):
            yield f"the {name} moves without a gradient"


@RULES.rule
def zeros(subject: Subject) -> Iterator[str]:
    """Gradients of 0 leave all parameters finite, from the first step on."""
    weights = drawn()
    optimizer = build(subject, weights)
    for _ in range(3):
        for weight in weights.values():
            weight.grad = torch.zeros_like(weight)
        optimizer.step()
    take_steps(optimizer, weights, 1)
    for name, weight in weights.items():
        if not weight.isfinite().all():
            yield f"the {name} becomes non-finite"


@RULES.rule
def state(subject: Subject) -> Iterator[str]:
    """A new optimizer that loads the state continues bit for bit, even where a parameter had no gradient yet."""
    weights = drawn()
    optimizer = build(subject, weights)
    take_steps(optimizer, weights, 3, without=("matrix",))
    saved = io.BytesIO()
    torch.save(optimizer.state_dict(), saved)
    saved.seek(0)
    resumed = {name: nn.Parameter(weight.detach().clone()) for name, weight in weights.items()}
    second = build(subject, resumed)
    second.load_state_dict(torch.load(saved, weights_only=True))
    take_steps(optimizer, weights, 3)
    take_steps(second, resumed, 3)
    for name in sorted(changed(resumed, values(weights))):
        yield f"the {name} differs"


@RULES.rule
def apart(subject: Subject) -> Iterator[str]:
    """Two optimizers share nothing: the same gradients give the same steps."""
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        weights = drawn()
        take_steps(build(subject, weights), weights, 3)
        found.append(weights)
    for name in sorted(changed(found[1], values(found[0]))):
        yield f"the {name} differs with the second one"


@RULES.rule
def flag(subject: Subject) -> Iterator[str]:
    """An optimizer whose `defaults` set `fused` changes no parameter while its `found_inf` is 1."""
    weights = drawn()
    optimizer = build(subject, weights)
    if not optimizer.defaults.get("fused"):
        raise DoesNotApply("its defaults do not set fused")
    optimizer.found_inf = torch.ones(())  # type: ignore[attr-defined] # as the core and torch's GradScaler set it
    before = values(weights)
    take_steps(optimizer, weights, 1)
    for name in sorted(changed(weights, before)):
        yield f"the {name} moves"


def drawn() -> Weights:
    """The parameters at the start of training, always the same."""
    rng = torch.Generator().manual_seed(0)
    return {name: nn.Parameter(torch.randn(shape, generator=rng)) for name, shape in SHAPES.items()}


def build(
    subject: Subject, weights: Weights, own: dict[str, dict[str, Any]] | None = None, **args: Any
) -> torch.optim.Optimizer:
    """A fresh optimizer; `own` is what the core writes into single groups besides the usual."""
    given = [
        {"params": [weights[one] for one in of], "lr": LR, "base_lr": LR, "name": name, **(own or {}).get(name, {})}
        for name, of in GROUPS.items()
    ]
    optimizer: torch.optim.Optimizer = subject.build(given, lr=LR, **args)
    return optimizer


def take_steps(
    optimizer: torch.optim.Optimizer,
    weights: Weights,
    count: int,
    *,
    without: Collection[str] = (),
    scale: float = 1.0,
) -> None:
    """Steps down the convex loss, times `scale`; the parameters `without` get no gradient."""
    for _ in range(count):
        optimizer.zero_grad(set_to_none=True)
        for name, weight in weights.items():
            weight.grad = None if name in without else 2 * scale * (weight.detach() - TARGET)
        optimizer.step()


def loss(weights: Weights) -> float:
    """The convex loss, in double precision."""
    return sum(float((weight.detach().double() - TARGET).square().sum()) for weight in weights.values())


def values(weights: Weights) -> dict[str, Tensor]:
    """Copies of what the parameters hold."""
    return {name: weight.detach().clone() for name, weight in weights.items()}


def changed(weights: Weights, before: dict[str, Tensor]) -> set[str]:
    """The parameters that do not hold these values, bit for bit."""
    return {name for name, weight in weights.items() if not torch.equal(weight.detach(), before[name])}
