"""The ladder: what each step changes, the answers that need no training, costs, resuming, and when it ends."""

from __future__ import annotations

import json
import math
import mmap
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from tests import tiny
from tests.runs.test_compare import right, write_run
from toolkit.api.errors import EXIT_STOPPED, EXIT_USAGE, Stopped, UsageError
from toolkit.build.plan import plan
from toolkit.cli import ladder as command
from toolkit.cli.main import main
from toolkit.host.registry import discover
from toolkit.recipe.read import parse
from toolkit.recipe.tables import Recipe
from toolkit.runs.compare.contender import Contender
from toolkit.runs.files import read_run
from toolkit.runs.ladder import probe as probes
from toolkit.runs.ladder import session
from toolkit.runs.ladder.measuring import forget_peak, peak
from toolkit.runs.ladder.probe import Majority, fit_probe
from toolkit.runs.ladder.steps import UNTIL, Climb, Cost, chosen, recipes

FROZEN = """
[data]
name = "cifar10"
valid_share = 0.2

[model]
name = "resnet18"
freeze = true
thaw_epoch = 1

[[augment]]
name = "horizontal_flip"

[train]
epochs = 1
batch = 8
device = "cpu"
precision = "fp32"

[train.optimizer]
name = "sgd"
lr = 0.05
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tiny.write_recipe(tmp_path, tiny.write_images(tmp_path / "images"), text=FROZEN)


def of(recipe: Path, *overrides: str, until: str = "full") -> dict[str, Recipe]:
    registry = discover()
    planned = plan(parse(recipe, overrides), registry)
    return {step.name: one for step, one in recipes(planned, registry, until)}


def test_each_step_trains_more_layers_of_the_same_recipe(recipe: Path) -> None:
    found = of(recipe)
    assert list(found) == ["majority", "zero-shot", "probe", "head", "last-block", "full"]
    layers = {name: one.train.trained_layers for name, one in found.items()}
    assert layers == {"majority": 0, "zero-shot": 0, "probe": 0, "head": 0, "last-block": 1, "full": None}
    views = {name: one.train.feature_views for name, one in found.items()}
    assert views == {"majority": 1, "zero-shot": 1, "probe": 1, "head": 1, "last-block": None, "full": None}
    for name, one in found.items():
        assert not one.model.args["freeze"]
        assert "thaw_epoch" not in one.model.args
        assert bool(one.augment) == (name in ("last-block", "full"))
        assert (one.seed, one.train.epochs, one.data.args) == (0, 1, found["full"].data.args)


def test_no_step_thaws_layers_or_changes_sizes(recipe: Path) -> None:
    found = of(recipe, "model.freeze=false", "train.epochs=3", "train.trained_layers=0", "train.thaw_every=1")
    assert all(one.train.thaw_every is None for one in found.values())
    found = of(recipe, "train.epochs=3", "train.fixres={size=16}")
    assert all(one.train.fixres is None for one in found.values())


def test_until_names_the_last_step(recipe: Path) -> None:
    assert list(of(recipe, until="probe")) == ["majority", "zero-shot", "probe"]
    assert list(of(recipe, until="no-gain")) == list(of(recipe))
    assert command.STEPS == UNTIL
    assert len(chosen("full")) == 6


def test_a_task_of_other_targets_has_no_ladder(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ladder", str(recipe), "--set", "task.name=regression"]) == EXIT_USAGE
    assert 'ladder: task "regression" is not about one class for each item' in capsys.readouterr().err


def test_a_model_without_a_backbone_has_no_ladder(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ladder", str(recipe), "--set", 'model={name="wide_resnet"}']) == EXIT_USAGE
    shown = capsys.readouterr().err
    assert 'ladder: model "wide_resnet" has no backbone and head of its own' in shown
    assert "--set model=resnet18" in shown
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "ladder: a recipe is missing"),
        (["--resume", "x", "--until", "head"], "ladder: --until has no meaning with --resume"),
        (["--resume", "x", "--set", "seed=1"], "ladder: --set has no meaning with --resume"),
        (["r.toml", "--resume", "x"], "ladder: a recipe has no meaning with --resume"),
        (["--resume", "x"], "x: not a ladder (it has no ladder.json)"),
        (["r.toml", "--until", "heads"], "--until"),
    ],
)
def test_mistakes_on_the_command_line(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["ladder", *words]) == EXIT_USAGE
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"until": "x", "names": [], "costs": {}}',
        '{"until": "full", "names": ["x"], "costs": {}}',
        '{"until": "full", "names": [], "costs": {"a": 1}}',
    ],
)
def test_a_damaged_ladder_names_its_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "ladder.json").write_text(text)
    with pytest.raises(UsageError, match=r"ladder\.json: cannot be read"):
        Climb.read(tmp_path)


def test_costs_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = Climb(
        "head", ["majority", "probe", "head"], {"majority": Cost(1.5, 3, math.nan), "probe": Cost(2.0, 4, 0.1)}
    )
    written.write(tmp_path)
    read = Climb.read(tmp_path)
    assert read.until == "head"
    assert [step.name for step in read.steps] == ["majority", "probe", "head"]
    assert read.costs["probe"] == written.costs["probe"]
    assert math.isnan(read.costs["majority"].latency)


def test_the_majority_answers_with_the_shares_of_the_classes() -> None:
    model = Majority([0, 2, 2, 2], classes=3)
    answers = model(torch.zeros(5, 3, 4, 4)).softmax(1)
    assert torch.allclose(answers, torch.tensor([0.25, 0.0, 0.75]).expand(5, 3))


class Rows(nn.Module):
    """Stands in for a network whose features are its input."""

    def features(self, pixels: Tensor) -> Tensor:
        return pixels


def assembly(targets: np.ndarray, classes: int, sources: dict[str, str] | None = None) -> Any:
    ids = [f"{number:03}" for number in range(len(targets))]
    train = type("Train", (), {"ids": ids, "targets": targets.tolist(), "__len__": lambda self: len(ids)})()
    data = SimpleNamespace(train=train, sources=sources or {})
    spec = SimpleNamespace(classes=tuple(map(str, range(classes))))
    return SimpleNamespace(data=data, spec=spec, network=Rows(), device=torch.device("cpu"))


@pytest.mark.parametrize("classes", [2, 3])
def test_the_probe_answers_as_scikit_learn_does(classes: int) -> None:
    draw = np.random.default_rng(0)
    targets = draw.integers(0, classes, 90)
    inputs = (draw.normal(size=(90, 6)) + targets[:, None] * [2, 0, 0, 1, 0, 0]).astype(np.float32) * 10 + 3
    probe, strength = fit_probe(assembly(targets, classes), torch.from_numpy(inputs))
    standard = (inputs - inputs.mean(0)) / inputs.std(0)
    known = LogisticRegression(C=strength, max_iter=1000).fit(standard, targets).predict_proba(standard)
    answers = probe(torch.from_numpy(inputs)).softmax(1).detach().numpy()
    assert np.abs(answers - known).max() < 1e-3
    assert strength in (0.01, 0.1, 1.0, 10.0)


def test_a_class_without_training_items_is_never_answered() -> None:
    targets = np.array([0, 2] * 10)
    inputs = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    probe, _ = fit_probe(assembly(targets, 3), inputs)
    assert 1 not in probe(inputs).argmax(1).tolist()
    alone, strength = fit_probe(assembly(np.zeros(4, dtype=np.int64), 2), inputs[:4])
    assert alone(inputs).argmax(1).tolist() == [0] * 20
    assert strength == 1.0


def test_items_of_one_source_are_never_divided() -> None:
    targets = np.array([0, 1] * 12)
    sources = {f"{number:03}": f"video {number // 4}" for number in range(24)}
    for kept, held in probes._divided(targets, [sources[f"{number:03}"] for number in range(24)]):
        assert {number // 4 for number in kept}.isdisjoint({number // 4 for number in held})


def test_the_peak_of_memory_counts_from_where_it_was_forgotten() -> None:
    forget_peak()
    before = peak(torch.device("cpu"))
    with mmap.mmap(-1, 1 << 28) as held:  # not of torch, which may take what was freed
        for page in range(0, len(held), mmap.PAGESIZE):
            held[page] = 1
        grown = peak(torch.device("cpu")) - before
    assert grown > 1 << 27


def contender(folder: Path, name: str, answers: list[bool]) -> Contender:
    return Contender(name, (read_run(write_run(folder / name, answers)),))


def test_a_step_pays_where_it_is_better_beyond_chance(tmp_path: Path) -> None:
    few, many = right(0.3), right(0.9)
    low, high = contender(tmp_path, "low", few), contender(tmp_path, "high", many)
    again = contender(tmp_path, "again", many)
    assert session._pays([low])
    assert session._pays([low, high])
    assert not session._pays([low, high, again])
    assert not session._pays([high, low])


@pytest.mark.slow  # trains a head on features, and writes the reports of two steps
def test_a_ladder_stops_and_goes_on(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise Stopped("stopped by a signal", exit_code=EXIT_STOPPED, next_step="run --resume")

    with monkeypatch.context() as patched:
        patched.setattr(session, "resume_run", interrupted)
        assert main(["ladder", str(recipe), "--until", "head"]) == EXIT_STOPPED
    folder = tiny.only_run(Path("runs"))
    shown = capsys.readouterr()
    assert f"next:  python -m toolkit ladder --resume {folder}" in shown.err
    assert (folder / "probe" / "report.html").is_file()
    before = Climb.read(folder).costs
    assert set(before) == {"majority", "probe", "head"}

    assert main(["ladder", "--resume", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "step 3 of 3" in out
    assert "step 1 of 3" not in out
    assert re.search(r"│ head +│ +\d+\.\d %", out)
    after = Climb.read(folder).costs
    assert after["probe"] == before["probe"]
    assert after["head"].seconds > before["head"].seconds
    assert after["head"].latency > 0
    assert all(cost.memory > 0 for cost in after.values())
    scores = {name: json.loads((folder / name / "scores.json").read_text()) for name in after}
    assert scores["majority"]["test"]["accuracy"] == pytest.approx(1 / 3)
    assert len({json.dumps(one["protocol"]) for one in scores.values()}) == 1
    assert "C = " in (folder / "probe" / "facts.json").read_text()
    page = (folder / "ladder.html").read_text()
    assert "frozen features, logistic regression" in page
    assert "python -m toolkit ladder" in page
    assert (folder / "table.md").read_text().startswith("| step | what is trained |")


def test_a_model_that_knows_no_names_has_no_such_step(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ladder", str(recipe), "--until", "zero-shot"]) == EXIT_USAGE
    said = capsys.readouterr().err
    assert 'ladder: model "resnet18" does not know classes by their names, so it has no step zero-shot' in said
    assert "next:  use one that does: python -m toolkit ladder har_openclip --until zero-shot" in said
