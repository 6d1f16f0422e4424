"""Overrides: what they change, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.recipe.texts import LISTS, SMALLEST, problems
from toolkit.recipe.read import load
from toolkit.recipe.tables import Use


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("train.epochs=5", lambda recipe: recipe.train.epochs == 5),
        ("train.epochs = 5", lambda recipe: recipe.train.epochs == 5),
        ("model.name=densenet121", lambda recipe: recipe.model.name == "densenet121"),
        ("model=densenet121", lambda recipe: recipe.model == Use(name="densenet121")),
        ("data.root=../x", lambda recipe: recipe.data.root == Path("../x")),
        ('data.root="3"', lambda recipe: recipe.data.root == Path("3")),
        ("model.freeze=true", lambda recipe: recipe.model.args == {"freeze": True}),
        ("model.text=a=b", lambda recipe: recipe.model.args == {"text": "a=b"}),
        ('model.text="a\\nb"', lambda recipe: recipe.model.args == {"text": "a\nb"}),
        ("model.text=1\nother = 2", lambda recipe: recipe.model.args == {"text": "1\nother = 2"}),
        ("model.widths=[1, 2]", lambda recipe: recipe.model.args == {"widths": [1, 2]}),
        ("model.a.b=1", lambda recipe: recipe.model.args == {"a": {"b": 1}}),
        ("input.size=64", lambda recipe: recipe.input.size == 64),
        ("train.optimizer.parts.head.lr_scale=3", lambda recipe: recipe.train.optimizer.parts["head"].lr_scale == 3),
        ("train.schedule=cosine", lambda recipe: recipe.train.schedule.name == "cosine"),
        ("augment.crop.padding=5", lambda recipe: recipe.augment[1].args == {"padding": 5}),
        ("augment.1.padding=5", lambda recipe: recipe.augment[1].args == {"padding": 5}),
        ("augment.flip.p=0.1", lambda recipe: recipe.augment[0].args == {"p": 0.1}),
        ("augment.3.p=0.1", lambda recipe: [use.args for use in recipe.augment[2:]] == [{}, {"p": 0.1}]),
        ("augment.0=noise", lambda recipe: recipe.augment[0].name == "noise"),
        ("augment=[]", lambda recipe: recipe.augment == ()),
        ("metrics.calibration.bins=5", lambda recipe: recipe.metrics[-1].args == {"bins": 5}),
    ],
)
def test_overrides(write, override: str, read: Any):
    assert read(load(write(LISTS), [override]))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs", "train.epochs: an override must look like key=value, such as train.epochs=20"),
        ("=3", "=3: an override must look like key=value, such as train.epochs=20"),
        ("train..epochs=3", "train..epochs=3: an override must look like key=value, such as train.epochs=20"),
        ("train.epochs=", 'train.epochs: needs a value after "=" (write "" for an empty string)'),
        ("train.epochs.x=3", 'train.epochs.x: cannot be set: the parent of "x" is a value, not a table'),
        ("augment.corp.padding=3", 'augment.corp.padding: there is no element "corp"; did you mean "crop"?'),
        ("augment.9.padding=3", 'augment.9.padding: there is no element "9"'),
        ("augment.noise.p=3", 'augment.noise.p: there is no element "noise"'),
        ("trackers.mlflow.every=3", 'trackers.mlflow.every: there is no element "mlflow"'),
        ("train.epoch=3", 'train.epoch: unknown key; did you mean "train.epochs"?'),
        ("train.epochs=many", 'train.epochs: must be an integer, got "many"'),
        ("train.compile=True", 'train.compile: must be true or false, got "True"; did you mean "true"?'),
        ("name=x", "name: unknown key: a recipe is named after its file"),
        ("model.text=\udcff", "model.text: is not valid UTF-8"),
        ("seed=" + "[" * 9000, None),
    ],
)
def test_what_is_wrong_with_an_override(write, override: str, message: str | None):
    found = problems(write(LISTS), override)
    assert len(found) == 1
    assert message is None or found == [message]


def test_later_overrides_win(write):
    assert load(write(SMALLEST), ["seed=1", "seed=2"]).seed == 2


def test_a_table_is_replaced_whole(write):
    assert load(write(SMALLEST), ["model.width=3", 'model={name = "mlp"}']).model == Use(name="mlp")
