"""The components by the toolkit's rules, and what those cannot know: the formulas, the order, a run and its bundle."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from toolkit.api.contracts import DataSpec, Forward, Horizon
from toolkit.kit.testing import Case, conformance
from torch import nn

from toolkit_ordinal.inverse_sqrt import inverse_sqrt
from toolkit_ordinal.lamb import lamb
from toolkit_ordinal.ordinal import ordinal

RECIPE = Path(__file__).parents[1] / "toolkit_ordinal.toml"
AGES = DataSpec(("adult", "baby", "child", "old"), size=8)
ORDER = ("baby", "child", "adult", "old")

test_components = conformance(
    Case("task", "toolkit-ordinal:ordinal"),
    Case("task", "toolkit-ordinal:ordinal", {"order": list(ORDER)}, spec=AGES),
    Case("task", "toolkit-ordinal:ordinal", spec=DataSpec(("no", "yes"), size=8)),
    Case("optimizer", "toolkit-ordinal:lamb"),
    Case("optimizer", "toolkit-ordinal:lamb", {"weight_decay": 0.1}),
    Case("schedule", "toolkit-ordinal:inverse_sqrt"),
    Case("schedule", "toolkit-ordinal:inverse_sqrt", {"hold_epochs": 0.5, "cooldown": 0}),
)


def test_each_question_is_a_sigmoid_and_answers_follow() -> None:
    objective = ordinal(AGES, order=ORDER)
    asked = torch.tensor([0.8, 0.5, 0.25])
    outputs = torch.cat([asked.logit(), torch.zeros(1)])
    found = objective.logits(outputs).softmax(0)
    by_rank = [0.2, 0.8 * 0.5, 0.8 * 0.5 * 0.75, 0.8 * 0.5 * 0.25]
    expected = [by_rank[ORDER.index(name)] for name in AGES.classes]
    assert found.tolist() == pytest.approx(expected)
    assert not torch.allclose(found, outputs.softmax(0))


def test_the_loss_is_the_surprise_at_the_class() -> None:
    objective = ordinal(AGES, order=ORDER)
    outputs, targets = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    logits = objective.logits(outputs)
    expected = -logits.softmax(1)[torch.arange(6), targets].log()
    torch.testing.assert_close(objective.score(logits, targets), expected.mean())
    loss = objective.loss(cast(Forward, lambda pixels: outputs), torch.zeros(6, 3, 8, 8), targets)
    torch.testing.assert_close(loss, expected.sum())


@pytest.mark.parametrize("order", [("baby", "child"), ("baby", "child", "adult", "adult"), (*ORDER, "dead")])
def test_an_order_of_other_classes_is_refused(order: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=re.escape("order: must name each of adult, baby, child, old once, got baby")):
        ordinal(AGES, order=order)


def test_a_step_of_lamb_is_as_long_as_the_weights_times_the_rate() -> None:
    layers = [nn.Parameter(torch.tensor([3.0, 4.0])), nn.Parameter(torch.zeros(2))]
    before = [layer.detach().clone() for layer in layers]
    optimizer = lamb([{"params": layers}], lr=0.01)
    for layer in layers:
        layer.grad = torch.tensor([2.0, -2.0])
    optimizer.step()
    moved = [(layer - start).detach() for layer, start in zip(layers, before, strict=True)]
    assert float(moved[0].norm()) == pytest.approx(0.01 * 5, abs=1e-6)
    assert moved[0].tolist() == pytest.approx([-0.05 / math.sqrt(2), 0.05 / math.sqrt(2)], abs=1e-6)
    assert moved[1].tolist() == pytest.approx([-0.01, 0.01], abs=1e-6)  # weights of 0 have no length: a step of Adam


def test_the_rate_is_held_then_falls_with_the_root_and_ends_near_0() -> None:
    schedule = inverse_sqrt(Horizon(steps_per_epoch=10, epochs=10), "maximize", hold_epochs=1, cooldown=0.1)
    assert [schedule.factor(step) for step in (0, 10)] == [1, 1]
    assert schedule.factor(40) == pytest.approx(0.5)
    assert schedule.factor(99) == pytest.approx(math.sqrt(10 / 99) / 10)


def test_a_run_its_bundle_and_the_bundle_scored_agree(tmp_path: Path) -> None:
    smaller = ("data.sample_clips=8", "train.epochs=2", "clip.frames=2", "clip.rate=5", "clip.clips_per_video=2")
    changes = [word for change in smaller for word in ("--set", change)]

    def toolkit(*words: str | Path) -> None:
        subprocess.run([sys.executable, "-m", "toolkit", *words], check=True, cwd=tmp_path)

    toolkit("run", RECIPE, *changes)
    (run,) = runs_in(tmp_path)
    toolkit("export", run, "--name", "ages")
    toolkit("evaluate", "exports/ages")
    (scored,) = runs_in(tmp_path) - {run}
    first, second = (read_scores(folder) for folder in (run, scored))
    for name in ("loss", "log_loss", "accuracy", "f1_macro"):
        assert first[name] == pytest.approx(second[name], abs=1e-3), name
    # The surprise at the class, whether the task says so or the metric of its answers.
    assert first["loss"] == pytest.approx(first["log_loss"], abs=1e-4)


def runs_in(folder: Path) -> set[Path]:
    """All runs; `latest` links to one of them."""
    return {path for path in folder.glob("runs/*/*") if path.parent.name != "latest"}


def read_scores(run: Path) -> dict[str, Any]:
    """The scores of the test split."""
    found: dict[str, Any] = json.loads((run / "scores.json").read_text(encoding="utf-8"))["test"]
    return found
