"""The tables of a recipe: what they hold, and what is wrong with one."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from tests.recipe.texts import SMALLEST, problems
from toolkit.recipe.read import load
from toolkit.recipe.tables import Use


def test_a_recipe_is_frozen(write):
    recipe = load(write(SMALLEST))
    with pytest.raises(ValidationError):
        recipe.seed = 3


def test_further_keys_of_a_component_are_its_arguments(write):
    text = SMALLEST.replace('name = "cnn"', 'name = "cnn"\nwidths = [8, 16]').replace(
        "lr = 0.1", "lr = 0.1\nmomentum = 0.9"
    )
    recipe = load(write(text))
    assert recipe.model.args == {"widths": [8, 16]}
    assert recipe.train.optimizer.args == {"momentum": 0.9}
    assert recipe.data.args == {}


def test_a_component_without_arguments_may_be_its_name_alone(write):
    recipe = load(
        write(
            'model = "cnn"\naugment = ["flip", {name = "crop", padding = 2}]\n'
            + SMALLEST.replace('[model]\nname = "cnn"', "")
        )
    )
    assert recipe.model == Use(name="cnn")
    assert recipe.augment == (Use(name="flip"), Use.model_validate({"name": "crop", "padding": 2}))


def test_home_is_expanded_in_the_root(write, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load(write(SMALLEST), ["data.root=~/x"]).data.root == tmp_path / "x"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (
            ("[train]", "[trian]"),
            ["train.epochs: is required", "train.batch: is required", 'trian: unknown key; did you mean "train"?'],
        ),
        (('name = "shapes"', ""), ["data.name: is required"]),
        (("lr = 0.1", ""), ["train.optimizer.lr: is required"]),
        (("lr = 0.1", "lr = 0"), ["train.optimizer.lr: must be greater than 0, got 0"]),
        (("lr = 0.1", "lr = inf"), ["train.optimizer.lr: must be a finite number, got Infinity"]),
        (
            ("lr = 0.1", "lr = 1\nparts.head.scale = 2"),
            ['train.optimizer.parts.head.scale: unknown key; did you mean "lr_scale"?'],
        ),
        (("epochs = 2", "epochs = 0"), ["train.epochs: must be at least 1, got 0"]),
        (("epochs = 2", 'epochs = "2"'), ['train.epochs: must be an integer, got "2"']),
        (("batch = 8", "batch = true"), ['train.batch: must be an integer or "auto", got true']),
        (("batch = 8", "batch = 8\nema = 1.0"), ["train.ema: must be less than 1, got 1.0"]),
        (
            ("batch = 8", "batch = 8\nprecision = 'bf61'"),
            ['train.precision: must be one of "auto", "bf16", "fp16", "fp32", got "bf61"; did you mean "bf16"?'],
        ),
        (("batch = 8", "batch = 8\noptimiser = 1"), ['train.optimiser: unknown key; did you mean "optimizer"?']),
        (("[data]", "[input]\nsiez = 32\n[data]"), ['input.siez: unknown key; did you mean "size"?']),
        (("[data]", "[input]\nmean = [0, 0]\n[data]"), ["input.mean: must have 3 items, got 2"]),
        (("[data]", "name = 'x'\n[data]"), ["name: unknown key: a recipe is named after its file"]),
        (("[data]", "[clip]\ncrops = 2\n[data]"), ["clip.crops: must be one of 1, 3, got 2"]),
        (("[data]", "export.precision = []\n[data]"), ["export.precision: must have at least 1 item, got 0"]),
        (
            ("[data]", 'export.precision = "int4"\n[data]'),
            [
                'export.precision: must be one of "auto", "fp32", "fp16", "int8" or an array, got "int4"; '
                'did you mean "int8"?'
            ],
        ),
        (("[data]", "seed = -1\n[data]"), ["seed: must be at least 0, got -1"]),
        (("[data]", "augment = 3\n[data]"), ["augment: must be an array, got 3"]),
        (("[data]", "augment = [3]\n[data]"), ["augment.0: must be a table, got 3"]),
        (("[data]", "augment = [{p = 1}]\n[data]"), ["augment.0.name: is required"]),
        (
            ("[model]", 'root = ""\n[model]'),
            ['data.root: must name a folder or a file, got ""; remove the key to use the default'],
        ),
        (('name = "cnn"', "name = 3"), ["model.name: must be a string, got 3"]),
        (('name = "cnn"', 'name = ""'), ['model.name: must be text of length 1 or more, got ""']),
        (("[data]", '"" = 1\n[data]'), ["unknown key"]),
        (("[data]", "epochs = 3\n[data]"), ['epochs: unknown key; did you mean "train.epochs"?']),
        (("batch = 8", "batch = 8\nseed = 1"), ['train.seed: unknown key; did you mean "seed"?']),
        (("batch = 8", "batch = 8\nlr = 1"), ['train.lr: unknown key; did you mean "train.optimizer.lr"?']),
        (("batch = 8", "batch = 8\ntrials = 1"), ['train.trials: unknown key; did you mean "tune.trials"?']),
        (("[data]", "frames = 8\n[data]"), ['frames: unknown key; did you mean "clip.frames"?']),
        (("[data]", "[optimizer]\nlr = 1\n[data]"), ['optimizer: unknown key; did you mean "train.optimizer"?']),
        (("batch = 8", "batch = 8\nzzz = 1"), ["train.zzz: unknown key"]),
    ],
)
def test_what_is_wrong_with_a_table(write, change: tuple[str, str], found: list[str]):
    assert problems(write(SMALLEST.replace(*change))) == found
