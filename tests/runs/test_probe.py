"""A few seconds of training, from which the time and the memory of a run are estimated."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests import tiny
from toolkit.build.plan import plan
from toolkit.cli.main import main
from toolkit.host.registry import discover
from toolkit.recipe.read import parse
from toolkit.runs import probe as module
from toolkit.runs.probe import Probe, Step
from toolkit.system.device import peak_memory

MEASURED = Probe(
    batch=8,
    steps_per_epoch=10,
    epochs=3,
    steps=(Step(4.0, 1.0, frozen=False), Step(4.0, 1.0, frozen=False), Step(100.0, 1.0, frozen=False)),
    scoring=0.5,
    scored=(4, 6),
    kept=True,
    peak_memory=1,
    device="CPU",
    precision="fp32",
    frozen=False,
)


def test_later_epochs_do_not_wait_for_the_decoder_where_items_are_kept() -> None:
    assert (MEASURED.first_epoch, MEASURED.later_epoch, MEASURED.validation) == (40.0, 10.0, 2.0)
    assert MEASURED.whole == 40.0 + 2 * 10.0 + 3 * 2.0 + 0.5 * 10
    unkept = replace(MEASURED, kept=False)
    assert unkept.later_epoch == 40.0
    assert unkept.whole == 3 * 40.0 + 3 * 2.0 + 0.5 * 10


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and path.suffix != ".json"}


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.0)


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("memory", ["", "input.memory_gb=0"])
def test_it_is_an_estimate_and_leaves_nothing_behind(
    memory: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny.write_recipe(tmp_path, tiny.write_images(tmp_path / "images"))
    cache = Path(os.environ["TOOLKIT_CACHE"])
    before = files_below(tmp_path), files_below(cache)
    overrides = tiny.overridden([memory] if memory else [])
    assert main(["check", str(recipe), "--probe", *overrides]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("probe    trained 1 step of 8 items on ") for line in lines)
    estimates = " ".join(line for line in lines if line.startswith("estimate "))
    assert "an epoch trains for " in estimates
    assert "validation after each epoch: " in estimates
    assert "the whole run, 2 epochs and scores: " in estimates
    assert "memory at the peak: " in estimates
    assert lines[-2] == f"{recipe}: valid"
    assert (files_below(tmp_path), files_below(cache)) == before


def test_the_peak_of_a_gpu_is_what_its_allocator_had_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: {"cuda:0": 5, "cuda:1": 7}[str(device)])
    assert peak_memory(torch.device("cuda:1")) == 7
    assert peak_memory(torch.device("cpu")) > 2**20


@pytest.mark.usefixtures("brief")
def test_a_gpu_is_waited_for_after_each_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[str] = []
    monkeypatch.setattr(module.devices, "synchronize", lambda device: waited.append(str(device)))
    recipe = tiny.write_recipe(tmp_path)
    draft = parse(recipe, ["data.sample_images=4", "train.batch=4"])
    found = module.probe(plan(draft, discover()))
    assert len(waited) > len(found.steps)  # the warm-up and the scoring too


@pytest.mark.usefixtures("brief")
def test_frozen_weights_are_mentioned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tiny.RECIPE.replace(
        'name = "cnn"\nwidths = [8, 8]\ndropout = 0.1', 'name = "resnet18"\nfreeze = true\nthaw_epoch = 1'
    )
    recipe = tiny.write_recipe(tmp_path, text=text)
    sets = tiny.overridden(["data.sample_images=2", "train.batch=4", "data.valid_share=0.5"])
    assert main(["check", str(recipe), "--probe", *sets]) == 0
    assert "some weights are frozen" in capsys.readouterr().out


def test_a_look_at_the_recipe_alone_cannot_probe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tiny.write_recipe(tmp_path)), "--probe", "--recipe-only"]) == 2
    assert "not allowed with argument" in capsys.readouterr().err
