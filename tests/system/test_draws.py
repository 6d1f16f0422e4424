"""Draws: an item's numbers are its own in any batch, on any device, and are distributed as they should be."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from toolkit.api.contracts import Draws, Visit
from toolkit.system import draws as module
from toolkit.system.draws import GROUP, ItemDraws, Turns, draws_of, draws_of_each, groups_of

CPU = torch.device("cpu")
Ask: TypeAlias = Callable[[Draws], Tensor]

ASKS: dict[str, Ask] = {
    "uniform": lambda draws: draws.uniform(-1, 3),
    "uniform, shaped": lambda draws: draws.uniform(shape=(2, 3)),
    "uniform, many": lambda draws: draws.uniform(shape=(40, 50)),
    "log_uniform": lambda draws: draws.log_uniform(0.1, 10),
    "normal": lambda draws: draws.normal(2, 3, (3,)),
    "normal, many": lambda draws: draws.normal(shape=(40, 50)),
    "beta": lambda draws: draws.beta(0.2),
    "chance": lambda draws: draws.chance(0.3),
    "integers": lambda draws: draws.integers(-2, 9),
    "integers, bounds": lambda draws: draws.integers(1, torch.full((len(draws),), 77, device=draws.device), (2,)),
    "bytes": lambda draws: draws.bytes((3, 5)),
    "bytes, many": lambda draws: draws.bytes((100, 100)),
    "orders": lambda draws: draws.orders(6),
    "seeds": lambda draws: torch.tensor(draws.seeds()),
}
"""All draws whose numbers are an item's own."""


def all_of(draws: Draws) -> Iterator[Tensor]:
    return (ask(draws) for ask in ASKS.values())


def drawn(
    items: Tensor, places: Tensor | None = None, size: int | None = None, *, seed: int = 3, place: int = 1
) -> ItemDraws:
    count = len(items)
    visit = Visit(items, torch.arange(count) if places is None else places, size or count)
    return draws_of_each(place + 1, visit, seed, CPU)[place]


# What numbers depend on


@given(
    st.lists(st.integers(0, 2**40), min_size=1, max_size=40, unique=True).flatmap(
        lambda items: st.tuples(st.just(items), st.lists(st.sampled_from(items), min_size=1, unique=True))
    )
)
def test_an_item_draws_the_same_in_any_batch(batches: tuple[list[int], list[int]]) -> None:
    items, share = batches
    places = torch.tensor([items.index(item) for item in share])
    whole, part = drawn(torch.tensor(items)), drawn(torch.tensor(share))
    for name, of_all, of_part in zip(ASKS, all_of(whole), all_of(part), strict=True):
        assert torch.equal(of_all[places], of_part), name


@pytest.mark.parametrize("size", [1, 7, 64, 128])
def test_batches_of_any_size_make_one_epoch(size: int) -> None:
    items = torch.randperm(256, generator=torch.Generator().manual_seed(0))
    whole = list(all_of(drawn(items)))
    parts = [list(all_of(drawn(part))) for part in items.split(size)]
    for name, of_all, of_parts in zip(ASKS, whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(of_all, torch.cat(of_parts)), name


def test_seed_place_and_item_each_give_other_numbers() -> None:
    items = torch.arange(50)
    streams = [
        drawn(items, seed=seed, place=place).uniform(shape=(3,)).flatten()
        for seed, place in itertools.product((3, 4, 3 + 2**32, 3 + 2**62), (0, 1, 2))
    ]
    streams.append(drawn(items + 2**32, seed=3, place=0).uniform(shape=(3,)).flatten())
    numbers = torch.cat(streams)
    assert len(numbers.unique()) > 0.99 * len(numbers)


def test_a_draw_changes_none_before_it() -> None:
    alone, followed = drawn(torch.arange(9)), drawn(torch.arange(9))
    first = alone.uniform()
    assert torch.equal(followed.uniform(), first)
    assert not torch.equal(followed.uniform(), first)
    assert torch.equal(alone.chance(0.5), drawn_after(1).chance(0.5))


def drawn_after(words: int) -> ItemDraws:
    draws = drawn(torch.arange(9))
    draws.uniform(shape=(words,))
    return draws


@given(st.lists(st.sampled_from([0, 1, 2, 3, 4, 5, 9, 17, 40_000]), max_size=8))
def test_draws_take_the_words_of_a_stream_one_after_the_other(counts: list[int]) -> None:
    draws = drawn(torch.tensor([5, 2]))
    whole = draws._streams.on_host(1, 0, sum(counts) + 1)
    taken = [draws._words((count,)) for count in counts]
    assert np.array_equal(np.concatenate([whole[:, :0], *taken], axis=1), whole[:, : sum(counts)])


def test_draws_never_change() -> None:
    """Other numbers here mean that no older run can be resumed or repeated."""
    draws = drawn(torch.tensor([0, 1, 2**40]))
    assert [tensor[2].flatten()[:1].tolist() for tensor in all_of(draws)] == NEVER_CHANGES


NEVER_CHANGES: list[list[float]] = [
    [2.862495183944702],
    [0.8366824984550476],
    [0.77180016040802],
    [1.4374011754989624],
    [0.7586777210235596],
    [0.01414706464856863],
    [1.0],
    [True],
    [5],
    [57],
    [93],
    [125],
    [0],
    [3067692805592326967],
]


# Devices


def test_a_device_makes_the_same_words_as_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    items = torch.tensor([3, 2**33 + 1, 0])
    wanted = [*all_of(drawn(items))]
    monkeypatch.setattr(ItemDraws, "_words", ItemDraws._device_words)
    for name, found, host in zip(ASKS, all_of(drawn(items)), wanted, strict=True):
        assert torch.equal(found, host), name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("many", [1, 1 << 16])
def test_a_gpu_draws_the_same(many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    visit = Visit(torch.arange(100), torch.arange(100), 100)
    wanted = [*all_of(draws_of_each(1, visit, 3, CPU)[0])]
    monkeypatch.setattr(module, "MANY", many)
    (on_gpu,) = draws_of_each(1, visit, 3, torch.device("cuda"))
    for name, found, host in zip(ASKS, all_of(on_gpu), wanted, strict=True):
        assert name == "seeds" or found.is_cuda
        assert torch.equal(found.cpu(), host), name


# How numbers are distributed

MANY = 20_000


def many(seed: int = 0) -> ItemDraws:
    return draws_of(torch.arange(MANY), seed)


def is_even(counts: Tensor) -> bool:
    """Pearson's test: whether counts are as even as those of fair draws, of which one in 30,000 would be refused."""
    expected = counts.sum() / len(counts)
    spread = float(((counts - expected) ** 2 / expected).sum())
    freedom = len(counts) - 1
    return abs(spread - freedom) < 4.2 * math.sqrt(2 * freedom) + 6


def test_what_is_tested_for_evenness_can_fail() -> None:
    assert is_even(torch.full((16,), 1000.0))
    assert not is_even(torch.cat((torch.full((8,), 900.0), torch.full((8,), 1100.0))))


@pytest.mark.parametrize("seed", range(3))
def test_uniform_numbers_are_even_alone_and_in_pairs(seed: int) -> None:
    draws = many(seed)
    once, again = (draws.uniform() * 16).long(), (draws.uniform() * 16).long()
    other = (draws_of_each(2, Visit(torch.arange(MANY), torch.arange(MANY), MANY), seed, CPU)[1].uniform() * 16).long()
    next_epoch = (many(seed + 1).uniform() * 16).long()
    for pair in (once.roll(1), again, other, next_epoch):  # of the item before, draw after, place after, epoch after
        assert is_even((once * 16 + pair).bincount(minlength=256).float())
    assert is_even(once.bincount(minlength=16).float())


def test_every_bit_of_a_word_is_set_as_often() -> None:
    words = torch.from_numpy(many()._host_words((4,)).astype(np.int64))
    shares = torch.stack([(words >> bit & 1).double().mean() for bit in range(32)])
    assert ((shares - 0.5).abs() < 4.2 * 0.5 / math.sqrt(4 * MANY)).all()


def test_uniform_numbers_keep_their_limits() -> None:
    assert float(many().uniform().max()) < 1.0
    numbers = many().uniform(0.8, 1.2)
    assert 0.8 <= float(numbers.min()) < 0.8001
    assert 1.1999 < float(numbers.max()) <= 1.2
    largest = module._shares(np.array([2**32 - 1], np.uint64))
    assert np.float32(largest[0]) == 1 - 2.0**-24


def test_logarithms_are_uniform() -> None:
    numbers = many().log_uniform(0.5, 2)
    assert 0.5 <= float(numbers.min()) < 0.501
    assert 1.999 < float(numbers.max()) <= 2.0
    assert is_even(((numbers.double().log2() + 1) * 8).long().clamp(max=15).bincount(minlength=16).float())


def test_normal_numbers_are_normal() -> None:
    numbers = many().normal(5, 2).double()
    places = 0.5 * (1 + torch.erf((numbers - 5) / 2 / math.sqrt(2)))
    assert is_even((places * 64).long().bincount(minlength=64).float())
    assert numbers.mean() == pytest.approx(5, abs=0.06)
    assert numbers.std() == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 4.0])
def test_beta_has_the_moments_of_its_distribution(alpha: float) -> None:
    numbers = many().beta(alpha).double()
    assert ((numbers >= 0) & (numbers <= 1)).all()
    variance, fourth = 1 / (4 * (2 * alpha + 1)), 3 / (16 * (2 * alpha + 1) * (2 * alpha + 3))
    assert numbers.mean() == pytest.approx(0.5, abs=0.015)
    assert (numbers - 0.5).square().mean() == pytest.approx(variance, rel=0.03)
    assert (numbers - 0.5).pow(4).mean() == pytest.approx(fourth, rel=0.05)


def test_beta_of_one_is_uniform() -> None:
    assert is_even((many().beta(1.0) * 32).long().clamp(max=31).bincount(minlength=32).float())


@pytest.mark.parametrize("alpha", [1e-6, 1e6])
def test_beta_of_an_extreme_alpha_is_a_number(alpha: float) -> None:
    numbers = many().beta(alpha)
    assert torch.isfinite(numbers).all()
    assert ((numbers >= 0) & (numbers <= 1)).all()


def test_chances_are_as_asked() -> None:
    assert not many().chance(0.0).any()
    assert many().chance(1.0).all()
    assert many().chance(0.3).double().mean() == pytest.approx(0.3, abs=0.014)


def test_integers_bytes_and_orders_are_even() -> None:
    draws = many()
    assert is_even((draws.integers(-3, 10) + 3).bincount(minlength=13).float())
    assert is_even(draws.bytes((3,)).long().flatten().bincount(minlength=256).float())
    ranks = (draws.orders(4) * torch.tensor([64, 16, 4, 1])).sum(dim=1).unique(return_counts=True)[1]
    assert len(ranks) == 24
    assert is_even(ranks.float())
    bounds = torch.arange(MANY) % 7 + 1
    assert (draws.integers(0, bounds) < bounds).all()


def test_seeds_are_of_63_bits_and_unlike() -> None:
    seeds = many().seeds()
    assert len(set(seeds)) == MANY
    assert 0 <= min(seeds) < 2**50
    assert 2**63 - 2**50 < max(seeds) < 2**63


# Groups


@pytest.mark.parametrize(
    ("count", "groups"),
    [(0, []), (1, [0]), (3, [0] * 3), (5, [0] * 5), (8, [0] * 4 + [1] * 4), (11, [0] * 4 + [1] * 7)],
)
def test_groups_are_consecutive_and_none_is_small(count: int, groups: list[int]) -> None:
    assert groups_of(count).tolist() == groups


@given(st.integers(0, 40), st.integers(0, 100))
def test_each_is_the_partner_of_one_other_of_its_group(count: int, seed: int) -> None:
    groups = groups_of(count)
    partners = draws_of(torch.arange(count), seed).partners()
    assert sorted(partners.tolist()) == list(range(count))
    assert torch.equal(groups[partners], groups)
    assert count < 2 or not (partners == torch.arange(count)).any()


def test_any_other_of_a_group_is_as_likely() -> None:
    partners = many().partners() % GROUP
    own = torch.arange(MANY) % GROUP
    counts = (own * GROUP + partners).bincount(minlength=GROUP**2).view(GROUP, GROUP)
    assert (counts.diagonal() == 0).all()
    assert is_even(counts[~torch.eye(GROUP, dtype=torch.bool)].float())


@given(st.permutations(range(12)), st.sets(st.sampled_from(range(3)), min_size=1))
def test_partners_are_the_same_in_any_batch_of_whole_groups(order: list[int], kept: set[int]) -> None:
    items = torch.arange(12) * 7 + 3
    wanted = items[drawn(items).partners()]
    share = torch.tensor([place for place in order if place // GROUP in kept])
    found = items[share][drawn(items[share], share, 12).partners()]
    assert torch.equal(found, wanted[share])


def test_an_item_whose_group_was_skipped_is_its_own_partner() -> None:
    assert drawn(torch.tensor([4, 9, 8]), torch.tensor([4, 8, 9]), 12).partners().tolist() == [0, 2, 1]


def test_alternating_draws_turn_over_from_epoch_to_epoch() -> None:
    items = torch.arange(4096)
    visit = Visit(items, items, len(items))

    def coins(epoch: int, seed: int = 5, place: int = 0) -> torch.Tensor:
        draws = draws_of_each(place + 1, visit, seed * 1000 + epoch, CPU, turns=Turns(seed, epoch))[place]
        draws.uniform()  # takes nothing from it
        return draws.alternating()

    assert torch.equal(coins(0), coins(2))
    assert torch.equal(coins(0), ~coins(1))
    assert abs(float(coins(0).float().mean()) - 0.5) < 0.03
    for other in (coins(0, seed=6), coins(0, place=1)):
        assert abs(float((coins(0) == other).float().mean()) - 0.5) < 0.03
    few = draws_of_each(1, Visit(items[7:9], torch.arange(2), 2), 0, CPU, turns=Turns(5, 0))[0]
    assert torch.equal(few.alternating(), coins(0)[7:9])
