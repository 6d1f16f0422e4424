"""Distillation: its arithmetic, its teacher, and what a learner needs without it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests import tiny
from tests.resuming import stopped_and_resumed
from toolkit.api.contracts import DataSpec
from toolkit.api.errors import RunFailed
from toolkit.build import featuring
from toolkit.build.assemble import assemble, training
from toolkit.build.featuring import training_of_run
from toolkit.build.plan import plan
from toolkit.cli.main import main
from toolkit.host.registry import discover
from toolkit.recipe.read import parse
from toolkit.training.checkpoint import BestCheckpoint
from toolkit.training.fit import StepDone, fit
from toolkit.training.taught import Asking, Taught
from toolkit_tasks.distill import Distillation, digest_of, distill

SPEC = DataSpec(("a", "b", "c"), 8)
PIXELS = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [-3.0, 4.0, 0.0], [1.0, 1.0, 1.0]])
TAUGHT = torch.tensor([[1.0, 0.0, 3.0], [5.0, -1.0, 0.0], [0.0, 0.5, 0.0], [0.2, 0.1, 0.0]])
TARGETS = torch.tensor([0, 2, 1, 0])


class Teacher(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2), requires_grad=False)


def forward(pixels: Tensor, network: nn.Module | None = None) -> Tensor:
    return (LOGITS if network is None else TAUGHT)[: len(pixels)]


class Featured:
    """Answers as `forward` does, from feature maps of the learner and vectors of the teacher."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(1)
        self.learned, self.shown = torch.randn(4, 5, 2, 2, generator=draw), torch.randn(4, 3, generator=draw)

    def __call__(self, features: Tensor, network: nn.Module | None = None) -> Tensor:
        assert features is (self.learned if network is None else self.shown)
        return forward(features, network)

    def features(self, pixels: Tensor, network: nn.Module | None = None) -> Tensor:
        return self.learned if network is None else self.shown


def made(teacher: nn.Module | None = None, **arguments: Any) -> Distillation:
    opened = teacher or Teacher()
    return distill(SPEC, teacher=Path("runs/teacher"), network_of=lambda path: opened, **arguments)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("labels", [0.0, 0.3, 1.0])
def test_soft_answers_are_hintons_loss(temperature: float, labels: float) -> None:
    loss = made(temperature=temperature, labels=labels, label_smoothing=0.1).loss(forward, PIXELS, TARGETS)
    known = (TAUGHT / temperature).softmax(1)
    asked = (LOGITS / temperature).softmax(1)
    divergence = sum(float(k * (k / a).log()) for k, a in zip(known.flatten(), asked.flatten(), strict=True))
    true = functional.cross_entropy(LOGITS, TARGETS, reduction="sum", label_smoothing=0.1)
    expected = labels * float(true) + (1 - labels) * temperature**2 * divergence
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_hard_answers_are_the_likeliest_class_of_the_teacher() -> None:
    loss = made(answers="hard", labels=0.25).loss(forward, PIXELS, TARGETS)
    hard = functional.cross_entropy(LOGITS, torch.tensor([2, 0, 1, 0]), reduction="sum")
    true = functional.cross_entropy(LOGITS, TARGETS, reduction="sum")
    torch.testing.assert_close(loss, 0.25 * true + 0.75 * hard)


def test_shares_of_classes_after_mixup_are_true_classes_too() -> None:
    shares = functional.one_hot(TARGETS, 3).float() * 0.8 + 0.2 / 3
    loss = made(labels=1.0).loss(forward, PIXELS, shares)
    torch.testing.assert_close(loss, functional.cross_entropy(LOGITS, shares, reduction="sum"))


def test_features_are_matched_by_a_projection_to_length_1() -> None:
    torch.manual_seed(0)
    objective, asked = made(features=0.7, labels=0.3), Featured()
    loss = objective.loss(asked, PIXELS, TARGETS)
    assert objective.projection is not None
    ours = asked.learned.mean((2, 3)) @ objective.projection.weight.T + objective.projection.bias
    distance = sum(
        (one / one.norm() - other / other.norm()).square().sum() for one, other in zip(ours, asked.shown, strict=True)
    )
    answers = made(labels=0.3).loss(forward, PIXELS, TARGETS)
    torch.testing.assert_close(loss, answers + 0.7 * distance)
    loss.backward()
    assert objective.projection.weight.grad is not None
    assert set(objective.state_dict()) == {"taught_by", "projection.weight", "projection.bias"}
    fresh = made(features=0.7, labels=0.3)
    fresh.load_state_dict(objective.state_dict())
    torch.testing.assert_close(fresh.loss(asked, PIXELS, TARGETS), loss)


def test_no_checkpoint_holds_the_teacher_and_another_one_is_refused() -> None:
    objective = made()
    assert not objective.taught_by.any()
    objective.loss(forward, PIXELS, TARGETS)
    assert set(objective.state_dict()) == {"taught_by"}
    same, other = Teacher(), Teacher()
    other.weight.data[0] = 2
    resumed = made(same)
    resumed.load_state_dict(objective.state_dict())
    resumed.loss(forward, PIXELS, TARGETS)
    resumed = made(other)
    resumed.loss(forward, PIXELS, TARGETS)  # opened before the state is loaded, as a run does
    resumed.load_state_dict(objective.state_dict())
    with pytest.raises(RunFailed, match=r"^runs/teacher: not the teacher that this run began with"):
        resumed.loss(forward, PIXELS, TARGETS)
    assert digest_of(same.state_dict()) != digest_of(other.state_dict())


SMALL = ("train.epochs=1", "model.widths=[4,4]", "train.metric=accuracy")


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A recipe, and a run of it that may teach."""
    folder = tmp_path_factory.mktemp("distill")
    recipe = tiny.write_recipe(folder, tiny.write_images(folder / "images"))
    assert tiny.run(recipe, folder / "teachers", *SMALL) == 0
    return recipe, tiny.only_run(folder / "teachers")


def learner(recipe: Path, teacher: Path, *overrides: str) -> Any:
    task = [f'task={{name="distill", teacher="{teacher}"}}', *overrides]
    return plan(parse(recipe, [*SMALL, "model.widths=[4,8]", "train.epochs=2", *task]), discover())


def test_the_teacher_answers_as_its_run_does_and_resuming_is_exact(taught: tuple[Path, Path]) -> None:
    recipe, teacher = taught
    planned = learner(recipe, teacher)
    assembly = assemble(planned)
    state, setup = training(assembly)
    assert isinstance(assembly.objective, Distillation)
    best, network = BestCheckpoint.load(teacher / "best.pt"), assembly.objective.teacher
    assert all(torch.equal(network.state_dict()[name], value) for name, value in best.network.items())
    assert not network.training
    list(fit(state, setup))
    resumed = stopped_and_resumed(planned, after=4)
    assert all(torch.equal(weight, resumed[name]) for name, weight in state.network.state_dict().items())


FLIPS = "augment=[{name='horizontal_flip'}, {name='alternating_flip'}]"


def trained(planned: Any, *, known: bool) -> tuple[list[float], dict[str, Tensor], Any]:
    """Losses, weights and what is known of the teacher."""
    state, setup = training_of_run(assemble(planned))
    taught = setup.taught
    events = list(fit(state, setup if known else replace(setup, taught=None)))
    return [float(one.loss) for one in events if isinstance(one, StepDone)], state.network.state_dict(), taught


@pytest.mark.parametrize(
    ("overrides", "asks"),
    [
        (["augment=[]"], 24),
        ([FLIPS], 48),
        ([FLIPS, "task.features=0.5", "train.accumulate=2", "train.ema=0.9"], 48),
    ],
)
def test_answers_that_are_computed_once_train_as_those_of_each_step(
    taught: tuple[Path, Path], overrides: list[str], asks: int
) -> None:
    planned = learner(*taught, *overrides)
    losses, weights, answers = trained(planned, known=True)
    assert isinstance(answers, Taught)
    assert answers._rows is not None
    assert answers._rows.shape[:2] == (asks // 24, 24)
    expected, others, _ = trained(planned, known=False)
    assert losses == pytest.approx(expected, abs=1e-6)
    for name, value in weights.items():
        torch.testing.assert_close(value, others[name], atol=1e-6, rtol=1e-6)
    resumed = stopped_and_resumed(planned, after=4, begin=training_of_run)
    assert all(torch.equal(weight, resumed[name]) for name, weight in weights.items())


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ([], 'augmentation "random_crop" changes pixels'),
        (["augment=['horizontal_flip', 'cutout']"], 'augmentation "cutout" changes pixels'),
    ],
)
def test_a_teacher_of_pixels_that_change_is_asked_in_each_step(
    taught: tuple[Path, Path], overrides: list[str], reason: str
) -> None:
    state, setup = training_of_run(assemble(learner(*taught, *overrides)))
    assert setup.taught == reason
    assert next(fit(state, setup)) == Asking(1, reason)


def test_answers_that_memory_has_no_room_for_are_not_kept(
    taught: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(featuring, "memory_available", lambda: 100)
    _, setup = training_of_run(assemble(learner(*taught, "augment=[]", "input.memory_gb=0.1")))
    assert setup.taught == "answers take 0.0 GiB, and 0.0 GiB of memory are free"


def test_a_run_says_how_its_teacher_is_asked(
    taught: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, teacher = taught
    task = f'task={{name="distill", teacher="{teacher}"}}'
    for overrides, line in (
        (["augment=[]"], "answers of the teacher to 24 images computed once, in "),
        ([FLIPS], "answers of the teacher to 48 images computed once, in "),
        ([], 'the teacher answers in each step: augmentation "random_crop" changes pixels'),
    ):
        assert tiny.run(recipe, tmp_path, *SMALL, task, *overrides) == 0
        assert capsys.readouterr().out.count(line) == 1


def test_a_learner_without_features_is_refused(
    taught: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, teacher = taught
    task = f'task={{name="distill", teacher="{teacher}", features=0.5}}'
    model = "model={name='wide_resnet', depth=10, width=1}"
    assert tiny.run(recipe, tmp_path, SMALL[0], SMALL[2], model, task) == 2
    assert "model WideResNet: model.name: has no backbone and head of its own" in capsys.readouterr().err


def test_a_learner_is_evaluated_without_its_teacher(taught: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, teacher = taught
    moved = tmp_path / "moved"
    shutil.copytree(teacher, moved)
    task = f'task={{name="distill", teacher="{moved}", features=0.5}}'
    assert tiny.run(recipe, tmp_path / "runs", *SMALL, task) == 0
    shutil.rmtree(moved)
    assert main(["evaluate", str(tiny.only_run(tmp_path / "runs"))]) == 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["input.size=16"], "was trained with another input.size"),
        (["input.mean=[0.1, 0.1, 0.1]"], "was trained with another input.mean"),
    ],
)
def test_a_teacher_of_other_pixels_is_refused(
    taught: tuple[Path, Path], overrides: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, teacher = taught
    task = f'task={{name="distill", teacher="{teacher}"}}'
    assert tiny.run(recipe, tmp_path, *SMALL, task, *overrides) == 2
    assert message in capsys.readouterr().err


def test_what_is_not_a_run_is_no_teacher(
    taught: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, _ = taught
    for path, message in ((tmp_path / "x", "not a run that has weights"), (tmp_path, "a folder without best.pt")):
        assert tiny.run(recipe, tmp_path / "runs", *SMALL, f'task={{name="distill", teacher="{path}"}}') != 0
        assert message in capsys.readouterr().err
        assert main(["check", str(recipe), "--set", f'task={{name="distill", teacher="{path}"}}']) != 0
        assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_recipe_with_a_teacher_may_be_checked(taught: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    recipe, teacher = taught
    task = f'task={{name="distill", teacher="{teacher}"}}'
    assert main(["check", str(recipe), *tiny.overridden([*SMALL, task])]) == 0
    assert "valid" in capsys.readouterr().out
