"""The order of an epoch over blocks: every item once, few blocks at a time, whatever the ranks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from tests import small
from toolkit.data.blocks import AHEAD, WINDOW, BlockBatches, BlockOrder, Blocks
from toolkit.data.loader import Loader, batches_in
from toolkit.data.store.images import ImageStore
from toolkit.data.store.storage import Memory, stored_shape
from toolkit.system.ranks import Ranks


@dataclass
class InBlocks(small.Squares):
    """Squares in blocks of these sizes; remembers what was expected."""

    counts: Sequence[int] = ()
    expected: list[list[int]] = field(default_factory=list)

    @property
    def blocks(self) -> Sequence[int]:
        return self.counts

    def expect(self, blocks: Sequence[int]) -> None:
        self.expected.append(list(blocks))


def uneven(count: int) -> list[int]:
    """Sizes of `count` blocks."""
    return [5 + number % 7 for number in range(count)]


def in_blocks(counts: Sequence[int]) -> InBlocks:
    return InBlocks(sum(counts), counts=counts)


def uncached(split: InBlocks, ranks: Ranks | None = None) -> Loader:
    loader = Loader(ImageStore(split, small.SPEC, None, workers=1), small.SPEC, small.CPU)
    return replace(loader, ranks=ranks) if ranks else loader


def batches(counts: Sequence[int], size: int, *, seed: int = 0, epoch: int = 0, each: int = 1) -> BlockBatches:
    order = BlockOrder(Blocks(counts), seed, epoch)
    return BlockBatches(order, size, batches_in(sum(counts) * each, size), each=each)


def reads(order: Sequence[Sequence[int]]) -> int:
    """Blocks that come into use, counted each time."""
    return sum(len(set(now) - set(before)) for before, now in itertools.pairwise([[], *order]))


def test_a_block_has_its_items() -> None:
    blocks = Blocks([3, 1, 2])
    assert [list(blocks.of(block)) for block in range(3)] == [[0, 1, 2], [3], [4, 5]]
    assert [blocks.at(item) for item in range(6)] == [0, 0, 0, 1, 2, 2]
    assert blocks.items == 6
    assert Blocks([]).items == 0


@pytest.mark.parametrize("count", [1, WINDOW, 3 * WINDOW + 1, 400])
@pytest.mark.parametrize("size", [4, 32, 100])
def test_an_epoch_visits_each_item_once(count: int, size: int) -> None:
    found = torch.cat(list(batches(uneven(count), size)))
    assert sorted(found.tolist()) == list(range(sum(uneven(count))))


def test_each_epoch_and_seed_has_another_order() -> None:
    orders = {
        tuple(torch.cat(list(batches(uneven(50), 8, seed=seed, epoch=epoch))).tolist())
        for seed, epoch in itertools.product(range(2), range(2))
    }
    assert len(orders) == 4


@pytest.mark.parametrize("step", [0, 7, 20])
def test_any_batch_is_found_without_those_before(step: int) -> None:
    whole = list(batches(uneven(60), 16, epoch=3))
    assert torch.equal(batches(uneven(60), 16, epoch=3)[step], whole[step])


def test_no_batch_is_behind_the_last() -> None:
    with pytest.raises(IndexError):
        batches([4], 4)[1]


def test_clips_of_one_video_are_adjacent() -> None:
    found = torch.cat(list(batches(uneven(5), 8, each=3)))
    assert torch.equal(found.view(-1, 3) % 3, torch.arange(3).expand(len(found) // 3, 3))
    assert sorted(found.tolist()) == list(range(3 * sum(uneven(5))))


@pytest.mark.parametrize("count", [40, 2000])
def test_each_block_comes_into_use_about_once(count: int) -> None:
    found = batches(uneven(count), 64)
    steps = range(batches_in(sum(uneven(count)), 64))
    assert reads([found.blocks(step, slice(0, 64)) for step in steps]) <= 1.1 * count


@pytest.mark.parametrize("count", [40, 2000])
def test_the_blocks_of_a_batch_are_announced(count: int) -> None:
    blocks, found = Blocks(uneven(count)), batches(uneven(count), 64)
    for step in range(batches_in(blocks.items, 64)):
        announced = found.blocks(step, slice(0, 64))
        used = {blocks.at(item) for item in found[step].tolist()}
        assert used <= set(announced)
        if step:
            assert {blocks.at(item) for item in found[step - 1].tolist()} <= set(announced)


def test_ranks_need_blocks_of_their_own() -> None:
    """Of many blocks, two ranks together read hardly more than one rank does."""
    count, size = 2000, 64
    found = batches(uneven(count), size)
    steps = range(batches_in(sum(uneven(count)), size))
    together = sum(reads([found.blocks(step, mine) for step in steps]) for mine in (slice(0, 32), slice(32, 64)))
    assert together <= 1.1 * count


def test_items_of_a_batch_come_from_far_apart() -> None:
    blocks = Blocks([100] * 64)
    found = BlockBatches(BlockOrder(blocks, 0, 0), 64, 100)
    assert len({blocks.at(item) for item in found[50].tolist()}) > WINDOW // 2


@pytest.mark.parametrize("count", [1, 2, 4])
def test_ranks_visit_the_items_of_one_rank(count: int) -> None:
    def visited(ranks: Ranks) -> list[Tensor]:
        loader = uncached(in_blocks(uneven(60)))
        numbers = loader._numbers(16, seed=0, epoch=1)
        mine = [slice(16 * rank // count, 16 * (rank + 1) // count) for rank in range(count)]
        return [numbers[step][mine[ranks.rank]] for step in range(20)]

    parts = [visited(Ranks(rank, count)) for rank in range(count)]
    alone = [batch.index for batch in uncached(in_blocks(uneven(60))).training(16, [], seed=0, epoch=1, start=0)]
    assert all(
        torch.equal(torch.cat(shares), batch) for shares, batch in zip(zip(*parts, strict=True), alone, strict=False)
    )


def test_a_loader_announces_blocks_and_resumes_at_any_step() -> None:
    split = in_blocks(uneven(60))
    whole = [batch.index for batch in uncached(split).training(16, [], seed=0, epoch=0, start=0)]
    again = in_blocks(uneven(60))
    rest = [batch.index for batch in uncached(again).training(16, [], seed=0, epoch=0, start=9)]
    assert all(map(torch.equal, whole[9:], rest))
    assert reads(split.expected) <= 1.1 * 60
    assert len(again.expected) < len(split.expected)


def test_evaluation_announces_the_blocks_that_follow() -> None:
    split = in_blocks([10] * 12)
    list(uncached(split).evaluation(10))
    assert split.expected[0] == list(range(1 + AHEAD))
    assert split.expected[-1] == [11]


def test_what_is_kept_is_not_announced_again() -> None:
    split = in_blocks(uneven(8))
    store = ImageStore(split, small.SPEC, Memory((len(split), *stored_shape(small.SPEC))), workers=1)
    loader = Loader(store, small.SPEC, small.CPU)
    for epoch in range(2):
        split.expected.clear()
        list(loader.training(8, [], seed=0, epoch=epoch, start=0))
        assert bool(split.expected) == (epoch == 0)
    assert sorted(split.reads) == list(range(len(split)))


def test_a_block_with_one_item_that_is_not_kept_is_announced() -> None:
    split = in_blocks([4, 4, 4])
    store = ImageStore(split, small.SPEC, Memory((12, *stored_shape(small.SPEC))), workers=1)
    store.keep(torch.tensor([0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11]))
    store.expect([0, 1, 2])
    assert split.expected == [[1]]
