"""Groups hold every parameter once, rates fall with depth as published, layers freeze, rates warm up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from toolkit.api.contracts import Curve
from toolkit.training.optimize import (
    LayerDecay,
    Layers,
    freeze_layers,
    frozen_modules,
    model_parts,
    parameter_groups,
    undecayed,
    warmed_up,
)
from toolkit.transfer.classifier import Classifier


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


class Blocks(nn.Module):
    """A transformer's parameters, as BEiT and timm name them."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.pos_embed = nn.Parameter(torch.zeros(1, 5, 4))
        self.patch_embed = nn.Conv2d(3, 4, 2)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4), nn.Dropout(0.1)) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(4)

    def no_weight_decay(self) -> set[str]:
        return {"cls_token", "pos_embed"}


def classifier(depth: int = 12, **arguments: Any) -> Classifier:
    return Classifier(Blocks(depth), nn.Linear(4, 2), **arguments)


def groups_of(model: nn.Module, decay: float, *, decay_all: bool = False) -> list[dict[str, Any]]:
    return list(
        parameter_groups(
            model_parts(model),
            1.0,
            {},
            decay_norms_and_biases=decay_all,
            layer_decay=LayerDecay.of(model, decay),
            undecayed=undecayed(model),
        )
    )


def test_rates_fall_with_depth_as_beit_and_timm_have_it() -> None:
    # layer_id is 0 for the embeddings, i + 1 for block i and depth + 1 for what follows; the factor is
    # decay ** (depth + 1 - layer_id). Final norms count with the head there, so the plugin names the layers.
    published = [["cls_token", "pos_embed", "patch_embed"], *([f"blocks.{number}"] for number in range(12))]
    model = classifier(layers=published)
    scale = {id(one): group["lr"] for group in groups_of(model, 0.75) for one in group["params"]}
    of = {name: scale[id(one)] for name, one in model.named_parameters()}
    assert of["backbone.pos_embed"] == of["backbone.patch_embed.weight"] == 0.75**13
    for number in range(12):
        assert of[f"backbone.blocks.{number}.1.weight"] == 0.75 ** (12 - number)
    assert of["backbone.norm.weight"] == of["head.weight"] == of["head.bias"] == 1.0
    assert len(of) == len(list(model.parameters()))


def test_the_models_own_list_norms_and_biases_do_not_decay() -> None:
    model = classifier(depth=2)
    bare = {id(one) for group in groups_of(model, 0.5) if group.get("weight_decay") == 0 for one in group["params"]}
    names = {name.removeprefix("backbone.") for name, one in model.named_parameters() if id(one) in bare}
    norms = {f"{layer}.{kind}" for layer in ("blocks.0.0", "blocks.1.0", "norm") for kind in ("weight", "bias")}
    biases = {"patch_embed.bias", "blocks.0.1.bias", "blocks.1.1.bias", "head.bias"}
    assert names == {"cls_token", "pos_embed"} | norms | biases
    assert not any("weight_decay" in group for group in groups_of(model, 0.5, decay_all=True))


def test_groups_are_named_by_layer_and_hold_every_parameter_once() -> None:
    model = classifier(depth=2)
    names = [group["name"] for group in groups_of(model, 0.5)]
    layers = [f"backbone layer {number}{kind}" for number in range(3) for kind in ("", " norms and biases")]
    assert names == [*layers, "head", "head norms and biases"]
    held = [id(one) for group in groups_of(model, 0.5) for one in group["params"]]
    assert sorted(held) == sorted(map(id, model.parameters()))


@pytest.mark.parametrize(("trained", "frozen"), [(0, 3), (1, 2), (2, 1), (3, 0), (9, 0)])
def test_all_but_the_last_layers_are_frozen(trained: int, frozen: int) -> None:
    model = classifier(depth=2)
    freeze_layers(model, trained)
    assert all(one.requires_grad for one in model.head.parameters())
    layers = Layers.of(model)
    for name, one in model.named_parameters():
        assert one.requires_grad == (layers.depth(name) >= frozen)
    model.train()
    for module in frozen_modules(model, trained):
        module.eval()
    dropouts = [module.training for module in model.modules() if isinstance(module, nn.Dropout)]
    assert dropouts == [depth >= frozen for depth in (1, 2)]
    assert model.head.training


def test_a_model_without_parts_has_its_last_layer_as_head() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    freeze_layers(model, 0)
    assert [name for name, one in model.named_parameters() if one.requires_grad] == ["3.weight", "3.bias"]
    assert frozen_modules(model, 0) == [model[0], model[1]]
    assert frozen_modules(model, None) == []
