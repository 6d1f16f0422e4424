"""What an objective may own and ask: a teacher, parameters of its own, several passes, sets of classes."""

from __future__ import annotations

import io
import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests import small
from toolkit.api.contract_checks import check_objective
from toolkit.api.contracts import Batch, DataSpec, Forward, TargetForm
from toolkit.api.errors import PluginError, ToolkitError
from toolkit.data.loader import target_tensor
from toolkit.training.answers import answers_of, averaged, logits_of
from toolkit.training.evaluate import Answered
from toolkit.training.fit import fit
from toolkit.training.network import Network
from toolkit.training.state import Setup, State
from toolkit_tasks.classification import Classification
from toolkit_tasks.multi_label import MultiLabel

SETS = DataSpec(("a", "b", "c"), 8, targets="set")


class Distillation(Classification):
    """Answers like a frozen teacher, as far as a temperature of its own that is trained allows."""

    def __init__(self) -> None:
        super().__init__(0.0, None)
        self.teacher = Network(small.model(seed=7), small.SPEC).requires_grad_(False).eval()
        self.temperature = nn.Parameter(torch.ones(()))
        self.asked: list[int] = []

    def loss(self, forward: Forward, pixels: Tensor, targets: Tensor) -> Tensor:
        taught = forward(pixels, self.teacher).softmax(1)
        self.asked.append(len(pixels))
        both = torch.cat([forward(pixels), forward(pixels.flip(-1))])
        return functional.cross_entropy(both / self.temperature, taught.repeat(2, 1), reduction="sum")

    def weight(self, targets: Tensor) -> int:
        return 2 * len(targets)


@pytest.fixture
def setup() -> Setup:
    return small.setup(small.Squares(20), small.Squares(9))


def distilling(setup: Setup) -> State:
    objective = Distillation()
    state = small.state(setup, objective=objective)
    state.optimizer.add_param_group({"params": [objective.temperature], "lr": 0.1, "base_lr": 0.1, "name": "objective"})
    return state


def test_what_an_objective_owns_is_trained_or_frozen_and_saved(setup: Setup) -> None:
    state = distilling(setup)
    objective = state.objective
    assert isinstance(objective, Distillation)
    teacher = [tensor.clone() for tensor in objective.teacher.state_dict().values()]
    list(fit(state, setup))
    assert objective.temperature.item() != 1
    assert all(map(torch.equal, teacher, objective.teacher.state_dict().values()))
    assert not objective.teacher.training
    assert objective.asked == [6] * 6
    assert {"temperature", *(f"teacher.{name}" for name in objective.teacher.state_dict())} == {
        *state.state_dict()["objective"]
    }


def test_training_with_an_objective_of_its_own_resumes_exactly(setup: Setup) -> None:
    whole, first, second = (distilling(setup) for _ in range(3))
    list(fit(whole, setup))
    for _ in itertools.islice(fit(first, setup), 2):
        pass
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    list(fit(second, setup))
    for name, tensor in whole.state_dict()["objective"].items():
        assert torch.equal(tensor, second.state_dict()["objective"][name]), name
    assert all(map(torch.equal, whole.network.state_dict().values(), second.network.state_dict().values()))


def test_gradients_of_the_objective_are_clipped_with_the_networks(setup: Setup) -> None:
    state = distilling(setup)
    before = [parameter.detach().clone() for parameter in state.parameters()]
    next(iter(fit(state, replace(setup, clip_norm=1e-6))))
    moved = torch.stack([(a - b.detach()).norm() for a, b in zip(before, state.parameters(), strict=True)]).norm()
    assert float(moved) <= 0.1 * 1.01e-6


# Sets of classes


def test_targets_that_are_sets_become_ones_and_zeros() -> None:
    assert target_tensor([(0, 2), (), (1,)], SETS).tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert target_tensor([2, 0], replace(SETS, targets="index")).tolist() == [2, 0]


class Present:
    """Counts the classes that it is given as present: those with a logit of at least 0."""

    def __init__(self) -> None:
        self.counts = torch.zeros(3)

    def update(self, logits: Tensor, targets: Tensor) -> None:
        self.counts += (logits >= 0).sum(0)

    def compute(self) -> dict[str, Any]:
        return {"present": self.counts.tolist()}


def test_a_metric_sees_a_class_as_present_from_its_own_threshold() -> None:
    objective = MultiLabel(3, choose=False, positive_weights=None)
    objective.thresholds.copy_(torch.tensor([0.5, 0.9, 0.1]))
    logits = torch.tensor([[0.1, 2.0, -2.0], [-0.1, 2.3, -2.3]])
    answered = Answered(torch.arange(2), logits, torch.ones(2, 3))
    evaluation = answered.scored(objective, [Present()])
    assert evaluation.scores["present"] == [1, 1, 1]
    assert evaluation.scores["loss"] == pytest.approx(
        float(functional.binary_cross_entropy_with_logits(logits, torch.ones(2, 3)))
    )
    torch.testing.assert_close(evaluation.answers, logits.sigmoid())
    assert evaluation.thresholds is not None
    assert evaluation.thresholds.tolist() == pytest.approx([0.5, 0.9, 0.1])
    given = answered.scored(objective, [Present()], torch.tensor([0.01, 0.01, 0.01]))
    assert given.scores["present"] == [2, 2, 2]


def test_an_objective_of_a_set_of_classes_learns(setup: Setup) -> None:
    """Of squares that show nothing, their grey, or both."""
    sets = DataSpec(("dark", "bright"), 8, targets="set")

    class Both(small.Squares):
        @property
        def targets(self) -> list[tuple[int, ...]]:  # type: ignore[override]
            return [((), (0,), (0, 1))[index % 3] for index in range(self.count)]

    learning = replace(setup, train=small.loader(Both(20), sets), valid=small.loader(Both(9), sets), augmentations=[])
    learning = replace(learning, metrics=list, metric="loss", direction="minimize", epochs=3)
    state = small.state(learning, objective=MultiLabel(2, choose=True, positive_weights=None))
    losses = [record.train_loss for record in fit(state, learning) if hasattr(record, "train_loss")]
    assert losses[-1] < losses[0]
    assert state.objective.thresholds is not None
    assert state.objective.thresholds.tolist() != [0.5, 0.5]


@pytest.mark.parametrize(
    ("form", "answers"),
    [("index", [[0.2, 0.5, 0.3]]), ("set", [[0.2, 0.9, 0.5]])],
)
def test_logits_of_answers_answer_the_same(form: Any, answers: list[list[float]]) -> None:
    logits = logits_of(torch.tensor(answers), form)
    torch.testing.assert_close(answers_of(logits, form), torch.tensor(answers))
    assert logits_of(torch.tensor([[0.0, 1.0]]), form).isfinite().all()


def test_views_are_averaged_by_the_form_of_targets() -> None:
    views = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    forms: tuple[TargetForm, ...] = ("index", "set")
    for form in forms:
        found = averaged(views, form, 2, "probabilities")
        expected = answers_of(views, form).view(2, 3, 3).mean(1)
        torch.testing.assert_close(answers_of(found, form), expected)
        torch.testing.assert_close(averaged(views, form, 2, "logits"), views.view(2, 3, 3).mean(1))


# What is checked before training


def failed(what: str, error: BaseException | None) -> ToolkitError:
    return PluginError(f"{what} ({type(error).__name__})")


class NoNumber(Classification):
    def loss(self, forward: Forward, pixels: Tensor, targets: Tensor) -> Tensor:
        return super().loss(forward, pixels, targets) * torch.nan


class PerItem(Classification):
    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(logits, targets, reduction="none")


class Logarithms(Classification):
    def logits(self, outputs: Tensor) -> Tensor:
        return outputs.log()


class Raising(Classification):
    def weight(self, targets: Tensor) -> int:
        raise KeyError("no weight")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (NoNumber, r"gave tensor\(nan.* as its loss, not a finite scalar"),
        (PerItem, r"gave tensor\(\[.* as its score, not a finite scalar"),
        (Logarithms, r"(?s)gave tensor.* as its logits, not finite numbers \[2, 2\]"),
        (Raising, r"cannot compute its loss \(KeyError\)"),
    ],
)
def test_an_objective_that_breaks_its_contract_is_found_before_training(
    kind: type[Classification], message: str
) -> None:
    with pytest.raises(PluginError, match=message):
        check_objective(kind(0.0, None), Network(small.model(), small.SPEC), small.SPEC, small.CPU, failed)


def test_batches_of_sets_may_be_mixed(setup: Setup) -> None:
    targets = torch.tensor([[1.0, 0, 0.3], [0, 0, 0]])
    objective = MultiLabel(3, choose=False, positive_weights=None)
    batch = Batch(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), targets, torch.arange(2))
    loss = objective.loss(lambda pixels, network=None: torch.zeros(len(pixels), 3), batch.pixels, batch.targets)
    assert float(loss / objective.weight(targets)) == pytest.approx(0.6931, abs=1e-4)
