"""`toolkit.run` and `toolkit.open_run`, as programs and notebooks call them. docs/how-to/python.md is executed by
test_docs."""

from __future__ import annotations

import tomllib
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch

import toolkit
from tests import tiny
from toolkit.api.errors import DataError, MissingRunError, RecipeError
from toolkit.data.pixels import read_pixels


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> toolkit.Run:
    folder = tmp_path_factory.mktemp("notebook")
    recipe = tiny.write_recipe(folder, tiny.write_images(folder / "images"), name="<tiny>")
    return toolkit.run(recipe, {"train.epochs": 1, "augment": ["horizontal_flip"]}, runs=folder / "runs")


def test_a_run_has_what_the_command_writes(run: toolkit.Run) -> None:
    assert run.path.parent.name == "<tiny>"
    assert [record.epoch for record in run.records] == [1]
    assert 0 <= run.scores["test"]["accuracy"] <= 1
    assert len(run.answers) == len(tiny.CLASSES) * tiny.PER_CLASS["test"]
    assert "<html" in run.report.read_text(encoding="utf-8")


def test_overrides_are_values_of_any_type(run: toolkit.Run) -> None:
    text = run.directory.recipe.read_text(encoding="utf-8")
    assert "epochs = 1\n" in text
    assert 'name = "horizontal_flip"' in text
    assert "random_crop" not in text


def test_the_network_answers_as_the_bundle_does(run: toolkit.Run) -> None:
    pixels = read_pixels(run.path.parents[2] / "images" / "test" / "red" / "00.png")
    network = run.network()
    assert not network.training
    with torch.inference_mode():
        logits = network(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    answers = run.bundle().predict(pixels)
    np.testing.assert_allclose(logits.softmax(-1).numpy(), answers.probabilities, atol=1e-4)


def test_a_notebook_shows_the_scores(run: toolkit.Run) -> None:
    shown = run._repr_html_()
    assert "<b>&lt;tiny&gt;</b>: " in shown
    assert "<tr><td>score</td><td>valid</td><td>test</td></tr>" in shown
    assert " %</td>" in shown


def test_a_run_that_was_stopped_says_so(run: toolkit.Run, tmp_path: Path) -> None:
    stopped = tmp_path / "runs" / "tiny" / "stopped"
    stopped.mkdir(parents=True)
    for file in (run.directory.recipe, run.directory.records, run.directory.facts):
        (stopped / file.name).write_bytes(file.read_bytes())
    assert toolkit.open_run(stopped)._repr_html_().endswith("<p>not finished after 1 epoch</p>")


def test_a_traceback_shows_every_problem(run: toolkit.Run) -> None:
    recipe = run.path.parents[2] / "<tiny>.toml"
    with pytest.raises(RecipeError) as refused:
        toolkit.run(recipe, {"train.epochz": 2, "model.dropout": "big"})
    lines = traceback.format_exception(refused.value)
    assert '--set train.epochz=2: unknown key; did you mean "epochs"?\n' in lines
    assert any(line.startswith("--set 'model.dropout=\"big\"': must be a number") for line in lines)


def test_a_recipe_may_be_tables(tmp_path: Path) -> None:
    tables = tomllib.loads(tiny.RECIPE)
    with pytest.raises(RecipeError) as refused:
        toolkit.run({**tables, "trian": {}}, runs=tmp_path, name="mine")
    assert refused.value.__notes__[0] == 'mine: trian: unknown key; did you mean "train"?'
    assert not any(line.startswith("next") for line in refused.value.__notes__)
    tables["data"]["root"] = str(tmp_path / "missing")
    with pytest.raises(DataError, match="missing"):
        toolkit.run(tables, runs=tmp_path)


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingRunError, match="nothing") as missing:
        toolkit.open_run(tmp_path / "nothing")
    assert traceback.format_exception(missing.value)[-1].startswith("next:  ")
