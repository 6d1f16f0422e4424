"""Groups hold every parameter once; warm-up goes with any schedule."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from toolkit.api.contracts import Curve
from toolkit.training.optimize import model_parts, parameter_groups, warmed_up


class Parted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.top = nn.Linear(4, 2)

    def parts(self) -> Mapping[str, nn.Module]:
        return {"backbone": self.body, "head": self.top}


def test_warm_up_rises_linearly() -> None:
    warm = warmed_up(Curve(lambda step: 1.0), 4)
    assert [warm.factor(at) for at in range(5)] == [0.25, 0.5, 0.75, 1, 1]


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
