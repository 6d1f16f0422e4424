"""When a run trains on features by itself, when it is asked to, and what it says where that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import tiny
from toolkit.build import featuring
from toolkit.build.assemble import assemble
from toolkit.build.featuring import training_of_run
from toolkit.build.plan import plan
from toolkit.host.registry import discover
from toolkit.recipe.read import parse
from toolkit.training.fit import fit
from toolkit.training.state import Setup

FROZEN = """
[data]
name = "cifar10"
valid_share = 0.2

[model]
name = "resnet18"
freeze = true

[train]
epochs = 2
batch = 8
device = "cpu"
precision = "fp32"

[train.optimizer]
name = "sgd"
lr = 0.05
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return tiny.write_recipe(tmp_path, tiny.write_images(tmp_path / "data"), text=FROZEN)


def setup_of(recipe: Path, *overrides: str) -> Setup:
    return training_of_run(assemble(plan(parse(recipe, overrides), discover())))[1]


FLIP = 'augment=["horizontal_flip"]'


@pytest.mark.parametrize(
    ("overrides", "views"),
    [
        ([], 1),
        (["train.feature_views=0"], None),
        ([FLIP], None),
        ([FLIP, "train.feature_views=3"], 3),
        (["model.freeze=false"], None),
        (["model.thaw_epoch=1"], None),
        (["model.freeze=false", "train.trained_layers=0"], 1),
        (["model.freeze=false", "train.trained_layers=1"], None),
        (["model.freeze=false", "train.trained_layers=0", "train.thaw_every=1"], None),
        (["model.freeze=false", "train.trained_layers=0", "train.fixres={size=16, layers=0}"], None),
    ],
)
def test_features_are_computed_once_where_they_stay_the_same(
    recipe: Path, overrides: list[str], views: int | None
) -> None:
    features = setup_of(recipe, *overrides).features
    assert (features and features.views) == views


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["model.freeze=false"], "the backbone is trained, so its features change"),
        (["model.thaw_epoch=1"], "the backbone is trained, so its features change"),
        (['model={name="wide_resnet", depth=10, width=1}'], 'model "wide_resnet" has no backbone and head of its own'),
        (
            ["model.freeze=false", "train.trained_layers=0", "train.thaw_every=1"],
            "what is trained changes from epoch to epoch: remove train.thaw_every and train.fixres",
        ),
        (['augment=["mixup"]'], 'augmentation "mixup" changes targets, which are not kept with features'),
    ],
)
def test_a_recipe_that_asks_for_features_that_would_change_is_refused(
    recipe: Path, overrides: list[str], reason: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert tiny.run(recipe, tmp_path / "runs", *overrides, "train.feature_views=2") == 2
    shown = capsys.readouterr().err
    assert f"train.feature_views=2: {reason}" in " ".join(shown.split())
    assert "--set train.feature_views=0" in shown


def test_features_that_memory_has_no_room_for_are_refused_or_computed_in_each_step(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(featuring, "memory_available", lambda: 1000)
    assert setup_of(recipe, "input.memory_gb=0.1").features is None
    assert tiny.run(recipe, tmp_path / "runs", "input.memory_gb=0.1", "train.feature_views=1") == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "features take 0.0 GiB, and 0.0 GiB of memory are free" in shown


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (
            ["train.trained_layers=1"],
            'model "resnet18" has frozen its backbone itself: unfreeze it (--set model.freeze=false)',
        ),
        (
            ["train.schedule.warmup_steps=2", "train.schedule.warmup_epochs=1"],
            "train.schedule.warmup_steps=2: give either warmup_steps or warmup_epochs",
        ),
        (
            ["train.thaw_every=1", "train.trained_layers=0"],
            'train.thaw_every=1: model "resnet18" has frozen its backbone itself: unfreeze it '
            "(--set model.freeze=false)",
        ),
        (
            ["train.fixres={size=16}"],
            'train.fixres.layers: model "resnet18" has frozen its backbone itself',
        ),
        (
            ["model.freeze=false", "train.thaw_every=1"],
            "train.thaw_every=1: requires train.trained_layers, the number of layers trained at first",
        ),
        (
            ["model.freeze=false", "train.fixres={size=16, epochs=2}"],
            "train.fixres.epochs: must be less than train.epochs = 2, got 2",
        ),
        (
            ["model.freeze=false", "train.fixres.size=32"],
            "train.fixres.size=32: must be less than input.size = 32, got 32",
        ),
        (
            ["model.freeze=false", "train.fixres={size=16}", "train.strategy=fsdp"],
            'train.fixres={size=16}\': cannot be combined with train.strategy = "fsdp"',
        ),
        (
            ['model={name="timm", model="vit_tiny_patch16_224"}', "input.size=64", "train.fixres={size=32, layers=0}"],
            'model "timm" takes items of 64 px alone (',
        ),
        (
            ['model={name="timm", model="vit_tiny_patch16_224"}', "input.size=64", "train.fixres={size=32, layers=0}"],
            "train at 32 px without train.fixres, then start another run from that one (--set model.weights=RUN "
            "--set input.size=64 --set train.trained_layers=0)",
        ),
    ],
)
def test_keys_that_contradict_each_other_are_refused(
    recipe: Path, overrides: list[str], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny.run(recipe, tmp_path / "runs", *overrides) == 2
    assert problem in " ".join(capsys.readouterr().err.split())


def test_a_run_on_features_has_the_weights_of_one_on_pixels(recipe: Path) -> None:
    networks = []
    for views in (1, 0):
        assembly = assemble(plan(parse(recipe, [f"train.feature_views={views}"]), discover()))
        state, setup = training_of_run(assembly)
        assert (setup.features is None) == (views == 0)
        list(fit(state, setup))
        networks.append(state.network.state_dict())
    once, each = networks
    assert all(torch.allclose(once[name], each[name], atol=1e-4) for name in each)
