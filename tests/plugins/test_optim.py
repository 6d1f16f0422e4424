"""Optimizers step as torch's own; schedules are the curves their names promise."""

from __future__ import annotations

import copy
import inspect
import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import toolkit_optim
from tests import small
from toolkit.api.contracts import Horizon, Schedule
from toolkit.api.errors import Problem
from toolkit.host.offers import Offer
from toolkit.host.registry import discover
from toolkit.recipe.reading import read_signature
from toolkit_optim import optimizers, schedules
from toolkit_optim.schedules import constant, cosine, linear, one_cycle, plateau, step

TEN = Horizon(steps_per_epoch=10, epochs=10)
OPTIMIZERS, SCHEDULES = sorted(toolkit_optim.OPTIMIZERS), sorted(toolkit_optim.toolkit_schedules())


def torchs(name: str) -> type[torch.optim.Optimizer]:
    """The class of torch that an optimizer is named after."""
    classes = {one.__name__.lower(): one for one in vars(torch.optim).values() if inspect.isclass(one)}
    found: type[torch.optim.Optimizer] = classes[name]
    return found


def schedule(name: str, **args: Any) -> Schedule:
    made: Schedule = getattr(schedules, name)(TEN, "maximize", **({"every": 3} if name == "step" else {}), **args)
    return made


def test_nothing_heavy_is_loaded_to_list_what_there_is() -> None:
    code = "import sys, toolkit_optim; print({'torch', 'numpy', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# Schedules


@pytest.mark.parametrize("name", SCHEDULES)
@given(at=st.integers(0, 100))
def test_factors_lie_between_0_and_1(name: str, at: int) -> None:
    assert 0 <= schedule(name).factor(at) <= 1


def test_the_curves() -> None:
    assert [constant(TEN, "maximize").factor(at) for at in (0, 99)] == [1, 1]
    assert [step(TEN, "maximize", every=4).factor(at) for at in (39, 40, 80)] == pytest.approx([1, 0.1, 0.01])
    dropped = step(TEN, "maximize", milestones=[2, 5], gamma=0.5)
    assert [dropped.factor(at) for at in (19, 20, 50)] == [1, 0.5, 0.25]
    assert [cosine(TEN, "maximize", final=0.2).factor(at) for at in (0, 50, 100)] == pytest.approx([1, 0.6, 0.2])
    assert [one_cycle(TEN, "maximize").factor(at) for at in (0, 30, 100)] == pytest.approx([0.04, 1, 0])
    assert [linear(TEN, "maximize", final=0.5).factor(at) for at in (0, 50, 100)] == [1, 0.75, 0.5]
    line = one_cycle(TEN, "maximize", peak=0.5, start=0.0, shape="linear")
    assert [line.factor(at) for at in (0, 25, 50, 75)] == pytest.approx([0, 0.5, 1, 0.5])
    assert one_cycle(TEN, "maximize", peak=1.0).factor(100) == 1


def test_plateau_waits_then_drops() -> None:
    schedule = plateau(TEN, "minimize", gamma=0.5, patience=1, floor=0.3)
    factors = []
    for score in (1.0, 0.9, 0.9, 0.9, 0.9, 0.9):
        schedule.observe(score)
        factors.append(schedule.factor(0))
    assert factors == [1, 1, 0.5, 0.3, 0.3, 0.3]
    schedule = plateau(TEN, "maximize", gamma=0.5, patience=2)
    for score in (0.5, 0.5, 0.6, 0.6):
        schedule.observe(score)
        assert schedule.factor(0) == 1
    schedule.observe(0.6)
    assert schedule.factor(0) == 0.5


def test_step_takes_one_kind_of_drop() -> None:
    with pytest.raises(ValueError, match=r"^every: "):
        step(TEN, "maximize")


# Optimizers


def test_every_optimizer_of_torch_is_offered_but_for_three() -> None:
    """Those that need a closure, sparse gradients or matrices. Fails where another version of torch has more."""
    classes = [one for one in vars(torch.optim).values() if inspect.isclass(one)]
    known = {one.__name__ for one in classes if issubclass(one, torch.optim.Optimizer)}
    assert set(OPTIMIZERS) == {name.lower() for name in known - {"Optimizer", "LBFGS", "SparseAdam", "Muon"}}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_arguments_are_those_of_torch_and_all_are_explained(name: str) -> None:
    ours, theirs = getattr(optimizers, name), torchs(name)
    read = [(one.name, one.value, one.default) for one in read_signature(ours, ("lr",)).arguments]
    assert read == [(one.name, one.value, one.default) for one in read_signature(theirs, ("lr",)).arguments]
    assert read_signature(ours, ("lr",)).defaults == read_signature(theirs, ("lr",)).defaults
    assert [one.name for one in read_signature(ours, ("lr",)).arguments if not one.doc] == []


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_takes_a_step(name: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = small.optimizer(model, name, lr=0.1)
    model(torch.ones(2, 3, 3, 3)).square().sum().backward()
    optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("name", ["AdamW", "adamw", "ADAMW", "vision-toolkit:AdamW"])
def test_names_are_those_of_torch_in_any_case(name: str) -> None:
    found = discover({}).find("optimizer", name, "train.optimizer.name")
    assert isinstance(found, Offer)
    assert found.load() is optimizers.adamw


def test_what_needs_a_closure_is_unknown() -> None:
    found = discover({}).find("optimizer", "lbfgs", "train.optimizer.name")
    assert isinstance(found, Problem)
    assert str(found).startswith('train.optimizer.name: unknown optimizer "lbfgs"')


def test_fused_is_used_where_there_is_one() -> None:
    for name in OPTIMIZERS:
        has_one = "fused" in inspect.signature(torchs(name)).parameters
        assert bool(small.optimizer(nn.Linear(2, 2), name, lr=0.1).defaults.get("fused")) == has_one
        unfused = small.optimizer(nn.Linear(2, 2), name, lr=0.1, foreach=True)
        assert not unfused.defaults.get("fused")


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("sgd", {"nesterov": True}, "sgd: Nesterov momentum requires a momentum and zero dampening"),
        ("adamw", {"differentiable": True}, "adamw: `fused` does not support `differentiable`"),
    ],
)
def test_what_torch_refuses_is_the_recipes_fault(name: str, args: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        small.optimizer(nn.Linear(2, 2), name, lr=0.1, **args)


def test_a_fused_step_obeys_the_non_finite_flag() -> None:
    model = nn.Linear(2, 1)
    before = model.weight.detach().clone()
    optimizer = small.optimizer(model, "sgd", lr=0.1)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.found_inf = torch.ones(())  # type: ignore[attr-defined]
    optimizer.step()
    assert torch.equal(model.weight, before)
    assert not math.isnan(float(model.weight.detach().sum()))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_steps_as_torchs_own(name: str) -> None:
    torch.manual_seed(0)
    model, pixels = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)), torch.randn(5, 4)
    twin = copy.deepcopy(model)
    ours = small.optimizer(model, name, lr=0.01)
    theirs = torchs(name)(twin.parameters(), **({"fused": True} if ours.defaults.get("fused") else {}), lr=0.01)
    for number in range(3):
        for network, optimizer in ((model, ours), (twin, theirs)):
            optimizer.zero_grad()
            network(pixels).square().sum().backward()
            optimizer.step()
        ours.load_state_dict(ours.state_dict())
        assert all(map(torch.equal, model.parameters(), twin.parameters())), f"step {number}"


def test_a_step_does_not_import_torchs_compiler() -> None:
    """In a Python of its own, for another test may have imported it here."""
    code = """
import sys, torch
from toolkit_optim.optimizers import adam
model = torch.nn.Linear(2, 2)
optimizer = adam([{"params": list(model.parameters()), "name": "model"}], lr=0.1)
optimizer.zero_grad()
model(torch.ones(1, 2)).sum().backward()
optimizer.step()
optimizer.load_state_dict(optimizer.state_dict())
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
