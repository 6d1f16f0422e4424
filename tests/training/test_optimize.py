"""Schedules are the curves their names promise; groups hold every parameter once."""

from __future__ import annotations

import copy
import inspect
import math
import subprocess
import sys
from collections.abc import Mapping

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from toolkit.training.optimize import (
    Horizon,
    build_optimizer,
    constant,
    cosine,
    model_parts,
    one_cycle,
    optimizer_factory,
    optimizer_names,
    parameter_groups,
    plateau,
    schedule_factory,
    schedule_names,
    step,
    warmed_up,
)

TEN = Horizon(steps_per_epoch=10, epochs=10)


class Parted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.top = nn.Linear(4, 2)

    def parts(self) -> Mapping[str, nn.Module]:
        return {"backbone": self.body, "head": self.top}


@pytest.mark.parametrize("name", schedule_names())
@given(at=st.integers(0, 100))
def test_factors_lie_between_0_and_1(name: str, at: int) -> None:
    args = {"every": 3} if name == "step" else {}
    assert 0 <= schedule_factory(name)(TEN, "maximize", **args).factor(at) <= 1


def test_the_curves() -> None:
    assert [constant(TEN, "maximize").factor(at) for at in (0, 99)] == [1, 1]
    assert [step(TEN, "maximize", every=4).factor(at) for at in (39, 40, 80)] == pytest.approx([1, 0.1, 0.01])
    dropped = step(TEN, "maximize", milestones=[2, 5], gamma=0.5)
    assert [dropped.factor(at) for at in (19, 20, 50)] == [1, 0.5, 0.25]
    assert [cosine(TEN, "maximize", final=0.2).factor(at) for at in (0, 50, 100)] == pytest.approx([1, 0.6, 0.2])
    assert [one_cycle(TEN, "maximize").factor(at) for at in (0, 30, 100)] == pytest.approx([0.04, 1, 0])
    line = one_cycle(TEN, "maximize", peak=0.5, start=0.0, shape="linear")
    assert [line.factor(at) for at in (0, 25, 50, 75)] == pytest.approx([0, 0.5, 1, 0.5])
    assert one_cycle(TEN, "maximize", peak=1.0).factor(100) == 1


def test_warm_up_rises_linearly() -> None:
    warm = warmed_up(constant(TEN, "maximize"), 4)
    assert [warm.factor(at) for at in range(5)] == [0.25, 0.5, 0.75, 1, 1]


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


def test_groups_hold_every_parameter_once_and_scale_by_part() -> None:
    model = Parted()
    groups = list(parameter_groups(model_parts(model), 0.1, {"backbone": 0.5}, decay_norms_and_biases=False))
    assert {group["name"]: group["lr"] for group in groups} == {
        "backbone": 0.05,
        "backbone norms and biases": 0.05,
        "head": 0.1,
        "head norms and biases": 0.1,
    }
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    assert all(group["weight_decay"] == 0 for group in groups if "biases" in group["name"])


@pytest.mark.parametrize("name", optimizer_names())
def test_every_optimizer_takes_a_step(name: str) -> None:
    model = Parted()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = build_optimizer(model_parts(model), name, {}, lr=0.1, lr_scales={}, decay_norms_and_biases=True)
    model.top(model.body(torch.ones(2, 3, 3, 3)).flatten(1)).square().sum().backward()
    optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_names_are_those_of_torch_in_any_case() -> None:
    assert optimizer_factory("AdamW") is optimizer_factory("adamw") is torch.optim.AdamW
    assert {"sgd", "adam", "adamw", "rmsprop"} <= set(optimizer_names())
    with pytest.raises(KeyError):
        optimizer_factory("lbfgs")


def test_fused_is_used_where_there_is_one() -> None:
    for name in optimizer_names():
        built = build_optimizer(model_parts(Parted()), name, {}, lr=0.1, lr_scales={}, decay_norms_and_biases=True)
        has_one = "fused" in inspect.signature(optimizer_factory(name)).parameters
        assert bool(built.defaults.get("fused")) == has_one


def test_a_fused_step_obeys_the_non_finite_flag() -> None:
    model = nn.Linear(2, 1)
    before = model.weight.detach().clone()
    optimizer = build_optimizer(model_parts(model), "sgd", {}, lr=0.1, lr_scales={}, decay_norms_and_biases=True)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.found_inf = torch.ones(())  # type: ignore[attr-defined]
    optimizer.step()
    assert torch.equal(model.weight, before)
    assert not math.isnan(float(model.weight.detach().sum()))


@pytest.mark.parametrize("name", optimizer_names())
def test_an_optimizer_steps_as_torchs_own(name: str) -> None:
    torch.manual_seed(0)
    model, pixels = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)), torch.randn(5, 4)
    twin = copy.deepcopy(model)
    ours = build_optimizer(model_parts(model), name, {}, lr=0.01, lr_scales={}, decay_norms_and_biases=True)
    theirs = optimizer_factory(name)(
        twin.parameters(), **({"fused": True} if ours.defaults.get("fused") else {}), lr=0.01
    )
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
from toolkit.training.optimize import build_optimizer, model_parts
model = torch.nn.Linear(2, 2)
optimizer = build_optimizer(model_parts(model), "adam", {}, lr=0.1, lr_scales={}, decay_norms_and_biases=False)
optimizer.zero_grad()
model(torch.ones(1, 2)).sum().backward()
optimizer.step()
optimizer.load_state_dict(optimizer.state_dict())
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
