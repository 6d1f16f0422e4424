"""Muon: updates are orthogonal, all filters of one shape at once; the rest steps as torch's SGD."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from toolkit_optim.muon import Muon, muon, orthogonal


def matrices(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def published(matrix: Tensor, iterations: int) -> Tensor:
    """The iteration as the paper writes it, of one matrix that is at least as wide as high."""
    a, b, c = 3.4445, -4.7750, 2.0315
    found = matrix / matrix.norm()
    for _ in range(iterations):
        square = found @ found.T
        found = a * found + (b * square + c * square @ square) @ found
    return found


@pytest.mark.parametrize("shape", [(3, 4, 9), (3, 9, 4), (1, 5, 5)])
def test_updates_of_all_matrices_at_once_are_those_of_each(shape: tuple[int, int, int]) -> None:
    given = matrices(*shape)
    for matrix, found in zip(given, orthogonal(given, 3), strict=True):
        wide = matrix if shape[1] <= shape[2] else matrix.T
        expected = published(wide, 3)
        assert torch.allclose(found, expected if shape[1] <= shape[2] else expected.T, atol=1e-5)


def test_singular_values_come_near_1() -> None:
    values = torch.linalg.svdvals(orthogonal(matrices(2, 16, 64), 5))
    assert values.min() > 0.5
    assert values.max() < 1.3
    assert torch.isfinite(orthogonal(torch.zeros(1, 3, 4), 3)).all()


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(16, 2))


def stepped(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3) -> None:
    pixels = matrices(5, 3, 8, 8)
    for _ in range(steps):
        optimizer.zero_grad()
        model(pixels).square().sum().backward()
        optimizer.step()


def groups(model: nn.Module) -> list[dict[str, object]]:
    return [{"params": list(model.parameters()), "lr": 0.1, "base_lr": 0.2, "name": "model"}]


def test_what_is_not_a_filter_steps_as_torchs_sgd() -> None:
    ours = nn.Linear(4, 3)
    theirs = copy.deepcopy(ours)
    mine = muon(groups(ours), lr=0.2, others=0.5, others_momentum=0.8, weight_decay=0.01)
    # At half the rate; the decay is a share of the weight at the full one.
    sgd = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.8, nesterov=True, weight_decay=0.01 / 0.1)
    pixels = matrices(5, 4)
    for _ in range(4):
        for model, optimizer in ((ours, mine), (theirs, sgd)):
            optimizer.zero_grad()
            model(pixels).square().sum().backward()
            optimizer.step()
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-6)
    assert torch.allclose(ours.bias, theirs.bias, atol=1e-6)


@pytest.mark.parametrize("nesterov", [True, False])
def test_filters_step_as_written_down_one_by_one(nesterov: bool) -> None:
    model = nn.Conv2d(3, 4, 3, bias=False)
    expected = model.weight.detach().clone()
    past = torch.zeros_like(expected)
    optimizer = muon(groups(model), lr=0.2, momentum=0.6, nesterov=nesterov)
    for step in range(3):
        gradient = matrices(4, 3, 3, 3) + step
        model.weight.grad = gradient.clone()
        optimizer.step()
        past = 0.6 * past + gradient
        direction = gradient + 0.6 * past if nesterov else past
        expected = expected * 2 / expected.norm()
        expected = expected - 0.1 * published(direction.flatten(1), 3).view_as(expected)
    assert torch.allclose(model.weight, expected, atol=1e-5)


def test_a_rate_of_0_and_a_missing_gradient_change_nothing() -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    optimizer = muon([{**group, "lr": 0.0, "base_lr": 0.0} for group in groups(model)], lr=0.1, normalise=False)
    optimizer.step()
    stepped(model, optimizer)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_going_on_from_a_state_is_exact() -> None:
    whole, resumed = network(), network()
    stepped(whole, first := muon(groups(whole), lr=0.2, weight_decay=0.01), steps=4)
    stepped(resumed, second := muon(groups(resumed), lr=0.2, weight_decay=0.01), steps=2)
    third = muon(groups(resumed), lr=0.2, weight_decay=0.01)
    third.load_state_dict(second.state_dict())
    stepped(resumed, third, steps=2)
    assert isinstance(first, Muon)
    assert all(map(torch.equal, whole.state_dict().values(), resumed.state_dict().values()))


def test_filters_that_ranks_divide_are_refused() -> None:
    divided = nn.Parameter(torch.zeros(2, 2, 2))
    divided.placements = ()  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r'^muon: needs whole filters, which train\.strategy = "fsdp" divides'):
        muon([{"params": [divided]}], lr=0.1)
