"""A soup is the plain mean of weights of runs that are alike; others are refused."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests import tiny
from toolkit.api.errors import EXIT_DONE, EXIT_USAGE
from toolkit.cli.main import main
from toolkit.runs.soup import mean_weights
from toolkit.training.checkpoint import BestCheckpoint

SMALL = ("train.epochs=1", "model.widths=[4,4]", "train.metric=accuracy")


def test_each_weight_is_the_mean_and_counts_are_those_of_the_first() -> None:
    states = [{"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(3), "extra": "a"},
              {"w": torch.tensor([2.0, 6.0]), "n": torch.tensor(5), "extra": "b"},
              {"w": torch.tensor([6.0, 1.0]), "n": torch.tensor(7), "extra": "c"}]  # fmt: skip
    found = mean_weights(states)
    assert torch.equal(found["w"], torch.tensor([3.0, 3.0]))
    assert (int(found["n"]), found["extra"]) == (3, "a")
    half = mean_weights([{"w": torch.tensor([1e-3], dtype=torch.float16)} for _ in range(3)])
    assert half["w"].dtype == torch.float16
    assert torch.equal(half["w"], torch.tensor([1e-3], dtype=torch.float16))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A run, one like it with another seed and other weights, and one whose recipe has another model."""
    folder = tmp_path_factory.mktemp("soup")
    recipe = tiny.write_recipe(folder, tiny.write_images(folder / "images"))
    assert tiny.run(recipe, folder / "runs", *SMALL) == EXIT_DONE
    first = tiny.only_run(folder / "runs")
    best = BestCheckpoint.load(first / "best.pt")
    moved = {name: value * 1.5 if value.is_floating_point() else value for name, value in best.network.items()}
    changed = {"second": ("^seed = 0$", "seed = 1"), "other": (r"^widths = \[4, 4\]$", "widths = [4, 8]")}
    for name, (before, after) in changed.items():
        shutil.copytree(first, first.with_name(name))
        recipe_there, count = re.subn(before, after, best.origin.recipe, flags=re.MULTILINE)
        assert count == 1
        origin = replace(best.origin, recipe=recipe_there)
        replace(best, origin=origin, network=moved).save(first.with_name(name) / "best.pt")
    return first, first.with_name("second"), first.with_name("other")


def test_the_soup_of_runs_is_their_mean_and_may_be_evaluated(
    runs: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, _ = runs
    assert main(["soup", str(first), str(second), "--runs", str(tmp_path)]) == EXIT_DONE
    shown = capsys.readouterr().out
    assert "test accuracy: the soup " in shown
    soup = tiny.only_run(tmp_path, "tiny-soup")
    mixed, *parts = (BestCheckpoint.load(run / "best.pt") for run in (soup, first, second))
    for name, value in mixed.network.items():
        one, two = (part.network[name] for part in parts)
        expected = (one.double() + two.double()) / 2 if value.is_floating_point() else one
        assert torch.equal(value, expected.to(value.dtype)), name
    facts = json.loads((soup / "facts.json").read_text())
    assert f"the mean weights of 2 runs: {first.name}, {second.name}" in facts["notes"]
    assert main(["evaluate", str(soup)]) == EXIT_DONE
    again = json.loads(next((soup / "evaluations").glob("*/scores.json")).read_text())
    assert again["test"] == json.loads((soup / "scores.json").read_text())["test"]


def test_runs_that_are_not_alike_are_refused(
    runs: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, _, other = runs
    for words, message, step in (
        ([str(first), str(other)], "differs from", f"python -m toolkit soup {first} RUN"),
        ([str(first)], "soup: needs two runs or more", "--seeds 3"),
        ([str(first), str(first)], "soup: a run is named twice", f"python -m toolkit soup {first} RUN"),
        ([str(first), str(tmp_path / "nothing")], "no such directory", "next:"),
    ):
        assert main(["soup", *words, "--runs", str(tmp_path / "soups")]) == EXIT_USAGE
        shown = capsys.readouterr().err
        assert message in shown
        assert step in shown
    assert not (tmp_path / "soups").exists()
