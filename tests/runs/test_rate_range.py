"""The learning-rate range test."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests import tiny
from toolkit.build.plan import plan
from toolkit.cli.main import main
from toolkit.host.registry import discover
from toolkit.recipe.read import parse
from toolkit.runs import rate_range
from toolkit.runs.rate_range import HIGHEST, LOWEST, RateRange, find_rate

FLAT = (1e-7,) * 10
"""Rates that change nothing."""


def test_a_tenth_of_the_rate_of_the_lowest_loss_is_proposed() -> None:
    assert RateRange((*FLAT, 1e-2, 1e-1, 1.0), (*[2.0] * 10, 1.9, 0.5, 5.0), 8).proposed == 0.01
    assert RateRange((*FLAT, 1e-2, 0.1234), (*[2.0] * 10, 1.9, 0.5), 8).proposed == 0.012


def test_no_rate_is_proposed_where_the_loss_does_not_fall() -> None:
    assert RateRange((*FLAT, 1e-2, 1e-1), (*[2.0] * 10, 1.99, 3.0), 8).proposed is None


def test_rates_rise_and_parts_keep_their_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_range, "STEPS", 12)
    step, seen = rate_range.train_step, list[dict[str, float]]()

    def watched(state, setup, batch):  # type: ignore[no-untyped-def]
        seen.append({group["name"]: group["lr"] for group in state.optimizer.param_groups})
        return step(state, setup, batch)

    monkeypatch.setattr(rate_range, "train_step", watched)
    sets = ["data.sample_images=4", "train.optimizer.parts.backbone.lr_scale=0.5"]
    found = find_rate(plan(parse(tiny.write_recipe(tmp_path), sets), discover()))
    assert found.rates[0] == LOWEST
    assert list(found.rates) == sorted(found.rates)
    assert found.rates[-1] <= HIGHEST * 1.001
    used = [rates["backbone"] for rates in seen[: len(found.rates)]]
    assert used == pytest.approx([rate * 0.5 for rate in found.rates])


def test_it_ends_where_the_loss_explodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_range, "STEPS", 30)
    monkeypatch.setattr(rate_range, "HIGHEST", 1e9)
    found = find_rate(plan(parse(tiny.write_recipe(tmp_path), ["data.sample_images=4"]), discover()))
    assert len(found.rates) < 30


def test_the_command_draws_and_proposes_and_starts_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tiny.write_recipe(tmp_path, tiny.write_images(tmp_path / "images"))
    runs = tmp_path / "runs"
    assert main(["run", str(recipe), "--find-lr", "--runs", str(runs)]) == 0
    printed = capsys.readouterr().out
    (picture,) = runs.iterdir()
    assert picture.name == "tiny-learning-rates.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "proposed learning rate: " in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("next:  ")]
    command = shlex.split(line.removeprefix("next:  python -m toolkit "))
    assert command[:2] == ["run", str(recipe)]
    assert command[-1].startswith("train.optimizer.lr=")
    assert main(["check", str(recipe), "--recipe-only", *command[2:]]) == 0


def test_it_has_no_meaning_with_resume(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--resume", "runs/a/b", "--find-lr"]) == 2
    printed = capsys.readouterr().err
    assert "run: --find-lr has no meaning with --resume" in printed
    assert "next:  python -m toolkit run runs/a/b/recipe.toml --find-lr" in printed
