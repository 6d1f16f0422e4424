"""Randomness without state: the same place draws the same, every other place differently."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from toolkit.system.randomness import derive, order, seed_globally

PLACES = st.lists(st.integers(0, 10**6) | st.sampled_from(["order", "augment", "step"]), max_size=4).map(tuple)


@given(st.integers(0, 2**63 - 1), PLACES, st.integers(0, 2**63 - 1), PLACES)
def test_unlike_places_have_unlike_seeds(
    seed: int, place: tuple[int | str, ...], other_seed: int, other: tuple[int | str, ...]
) -> None:
    assert 0 <= derive(seed, *place) < 2**63
    assert (derive(seed, *place) == derive(other_seed, *other)) == ((seed, *place) == (other_seed, *other))


def test_neighbouring_places_are_unrelated() -> None:
    """Bits of neighbouring seeds differ in half of their places, as those of independent draws do."""
    seeds = [derive(0, "augment", epoch, step, place) for epoch, step, place in itertools.product(range(8), repeat=3)]
    assert len(set(seeds)) == 512
    differing = [(a ^ b).bit_count() for a, b in itertools.pairwise(seeds)]
    assert sum(differing) / len(differing) == pytest.approx(63 / 2, abs=1)


def test_seeds_never_change() -> None:
    """Another number here means that no older run can be resumed or repeated."""
    assert derive(0, "order", 0) == 1829853113658518448
    assert order(6, 0, 0).tolist() == [2, 5, 0, 3, 1, 4]


@given(st.integers(0, 300), st.integers(0, 2**32), st.integers(0, 1000))
def test_an_order_is_a_permutation(count: int, seed: int, epoch: int) -> None:
    places = order(count, seed, epoch)
    assert places.dtype == torch.int64
    assert sorted(places.tolist()) == list(range(count))


def test_orders_differ_by_seed_and_epoch_and_leave_the_global_state() -> None:
    before = torch.get_rng_state()
    orders = {tuple(order(50, seed, epoch).tolist()) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_draws_from_the_place_it_is_seeded_with() -> None:
    def draw(*place: int | str) -> list[float]:
        seed_globally(torch.device("cpu"), 0, *place)
        return torch.rand(3).tolist()

    assert draw("step", 0, 1) == draw("step", 0, 1)
    assert draw("step", 0, 1) != draw("step", 1, 0)


def test_seeding_is_that_of_torch_without_noting_down_the_call_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(derive(0, "step", 0, 1))
    drawn = torch.rand(3)
    monkeypatch.setattr("traceback.format_stack", lambda: pytest.fail("the call stack is noted down"))
    seed_globally(torch.device("cpu"), 0, "step", 0, 1)
    assert torch.equal(torch.rand(3), drawn)


@pytest.mark.gpu  # it asks for a GPU's draws
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_seeded_too() -> None:
    def draw() -> list[float]:
        seed_globally(torch.device("cuda"), 0, "step", 0, 1)
        return torch.rand(3, device="cuda").tolist()

    assert draw() == draw()
