"""What a run would build, built without its memory and time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import tiny
from toolkit.api.errors import RecipeError
from toolkit.build.assemble import assemble, training
from toolkit.build.plan import Plan, plan
from toolkit.build.rehearsal import Rehearsal, rehearse
from toolkit.host.registry import discover
from toolkit.recipe.read import parse


def planned(folder: Path, *overrides: str) -> Plan:
    recipe = tiny.write_recipe(folder)
    return plan(parse(recipe, ["data.sample_images=4", *overrides]), discover())


def rehearsed(of: Plan) -> Rehearsal:
    return rehearse(of, of.data())


@pytest.mark.parametrize("name", ["sgd", "adamw", "rmsprop", "adagrad"])
def test_what_the_optimizer_keeps_is_what_it_keeps_in_training(name: str, tmp_path: Path) -> None:
    of = planned(tmp_path, f"train.optimizer={{name = '{name}', lr = 0.01}}", "train.schedule=constant")
    state, _ = training(assemble(of))
    for parameter in state.network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    state.optimizer.step()
    kept = [value for one in state.optimizer.state.values() for value in one.values() if value is not None]
    expected = sum(value.nbytes for value in kept)
    found = rehearsed(of)
    assert found.parameters == found.trained == sum(one.numel() for one in state.network.parameters())
    # A step's own count is kept once a parameter, whose share in a small one is larger.
    assert found.state_bytes == pytest.approx(expected, abs=8 * len(kept))
    assert found.bytes == 8 * found.parameters + (found.state_bytes or 0)


def test_the_model_takes_no_memory_and_needs_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.device] = []
    build = Plan.model

    def watched(self: Plan, *args: object, initial_weights: bool = True) -> torch.nn.Module:
        assert not initial_weights
        model = build(self, *args, initial_weights=initial_weights)  # type: ignore[arg-type]
        made.extend({parameter.device for parameter in model.parameters()})
        return model

    monkeypatch.setattr(Plan, "model", watched)
    rehearsed(planned(tmp_path))
    assert made == [torch.device("meta")]


@pytest.mark.parametrize("missing", ["/absent/weights.bin", "absent.safetensors", "/dev/zero"])
def test_a_path_of_weights_that_leads_nowhere_is_a_problem(tmp_path: Path, missing: str) -> None:
    with pytest.raises(RecipeError) as caught:
        rehearsed(planned(tmp_path, f"model.weights='{missing}'"))
    assert [str(problem) for problem in caught.value.problems] == [
        f"model.weights: {missing}: no such run or weights file"
    ]


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("train.device=cuda", 'train.device: "cuda" asked for, 0 CUDA devices found; did you mean "auto"?'),
        ("train.precision=fp16", 'train.precision: fp16 trains on CUDA only; did you mean "bf16"?'),
    ],
)
def test_what_this_machine_lacks_is_a_problem(tmp_path: Path, override: str, problem: str) -> None:
    with pytest.raises(RecipeError) as caught:
        rehearsed(planned(tmp_path, override))
    assert [str(one) for one in caught.value.problems] == [problem]


def test_a_model_that_needs_numbers_is_built_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = Plan.model

    def reading(self: Plan, *args: object, initial_weights: bool = True) -> torch.nn.Module:
        torch.linspace(0, 1, 3).tolist()  # as models do for the rate of each layer
        return build(self, *args, initial_weights=initial_weights)  # type: ignore[arg-type]

    monkeypatch.setattr(Plan, "model", reading)
    assert rehearsed(planned(tmp_path)).parameters > 0
