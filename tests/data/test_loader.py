"""Loaders: what they compute does not depend on how they fetch."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from tests import small
from toolkit.api.errors import DataError
from toolkit.data.loader import Loader, augment, batches_in
from toolkit.data.store.images import ImageStore


@pytest.mark.parametrize(
    ("count", "size", "batches"), [(20, 6, 3), (18, 6, 3), (5, 6, 1), (0, 6, 0), (6, 6, 1), (7, 6, 1)]
)
def test_the_last_partial_batch_is_skipped_unless_alone(count: int, size: int, batches: int) -> None:
    assert batches_in(count, size) == batches
    loader = small.loader(small.Squares(count))
    assert len(list(loader.training(size, [], seed=0, epoch=0, start=0))) == batches


def test_an_epoch_visits_each_item_once_in_a_new_order(squares: small.Squares) -> None:
    loader = small.loader(squares)

    def visited(epoch: int) -> list[int]:
        return [i for batch in loader.training(6, [], seed=0, epoch=epoch, start=0) for i in batch.index.tolist()]

    assert sorted(visited(0)) == list(range(24))
    assert visited(0) == visited(0)
    assert visited(0) != visited(1)


def test_resident_streamed_and_uncached_batches_are_equal(squares: small.Squares) -> None:
    def batches(loader: Loader) -> list[torch.Tensor]:
        fetched = loader.training(6, [small.noise, small.noise], seed=5, epoch=2, start=0)
        return [torch.cat([batch.pixels.flatten(), batch.targets]) for batch in fetched]

    kept = small.loader(squares)
    streamed = batches(kept)
    resident = batches(kept)
    uncached = batches(Loader(ImageStore(squares, small.SPEC, None, workers=2), small.SPEC, small.CPU))
    assert all(map(torch.equal, streamed, resident))
    assert all(map(torch.equal, streamed, uncached))


@pytest.mark.parametrize("size", [1, 8, 24])
def test_an_item_is_drawn_the_same_in_batches_of_any_size(squares: small.Squares, size: int) -> None:
    def seen(size: int, epoch: int = 2) -> torch.Tensor:
        batches = list(small.loader(squares).training(size, [small.noise, small.noise], seed=5, epoch=epoch, start=0))
        order = torch.cat([batch.index for batch in batches]).argsort()
        return torch.cat([batch.pixels for batch in batches])[order]

    assert torch.equal(seen(size), seen(12))
    assert not torch.equal(seen(size, epoch=3), seen(12))


def test_what_is_skipped_changes_no_draw_and_no_place_of_the_others() -> None:
    def visits(broken: frozenset[int]) -> list[tuple[int, int]]:
        loader = small.loader(small.Squares(12, broken=broken), skip=True)
        found = [batch.visit for batch in loader.training(12, [], seed=0, epoch=0, start=0)]
        return [pair for one in found if one for pair in zip(one.items.tolist(), one.places.tolist(), strict=True)]

    assert visits(frozenset({1, 7})) == [pair for pair in visits(frozenset()) if pair[0] not in {1, 7}]


def test_what_is_no_training_batch_is_not_augmented(squares: small.Squares) -> None:
    (batch,) = small.loader(squares).evaluation(24)
    with pytest.raises(AssertionError, match="nothing to draw by"):
        augment(batch, [small.noise], small.CPU, seed=0, epoch=0)


def test_one_epoch_decodes_also_what_its_last_batch_leaves_out_and_ends_the_decoding_threads(
    decoding: Callable[[], int],
) -> None:
    loader = small.loader(small.Squares(20))
    list(loader.training(6, [], seed=0, epoch=0, start=0))
    assert loader.store.complete
    assert decoding() == 0


def test_evaluation_visits_all_in_order_cropped(squares: small.Squares) -> None:
    spec = replace(small.SPEC, size=4, stored=8)
    batches = list(small.loader(squares, spec).evaluation(10))
    assert [len(batch.index) for batch in batches] == [10, 10, 4]
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(24))
    assert torch.equal(batches[0].pixels[1], squares.read(1)[:, 2:6, 2:6])
    assert batches[0].targets.tolist() == [0, 1] * 5


def test_errors_of_the_thread_are_raised_to_the_caller() -> None:
    loader = small.loader(small.Squares(12, broken=frozenset({11})))
    with pytest.raises(DataError, match="square/011"):
        list(loader.evaluation(4))


def test_skipped_items_leave_their_batch() -> None:
    loader = small.loader(small.Squares(12, broken=frozenset({1})), skip=True)
    for _ in ("streamed", "resident"):
        first, *_ = loader.evaluation(4)
        assert first.index.tolist() == [0, 2, 3]
    assert loader.store.complete


def test_leaving_early_ends_the_thread(squares: small.Squares) -> None:
    batches = small.loader(squares).training(2, [], seed=0, epoch=0, start=0)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    gc.collect()
    deadline = time.monotonic() + 5
    while any(thread.name.startswith("prefetch") for thread in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(thread.name.startswith("prefetch") for thread in threading.enumerate())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("resident", [True, False])
def test_batches_on_a_gpu_are_the_same(squares: small.Squares, resident: bool) -> None:
    device = torch.device("cuda")
    on_cpu = list(small.loader(squares).evaluation(7))
    storage = small.loader(squares).store.storage if resident else None
    loader = Loader(ImageStore(squares, small.SPEC, storage, workers=2), small.SPEC, device)
    for _ in range(2):
        on_gpu = list(loader.evaluation(7))
        assert all(batch.pixels.is_cuda for batch in on_gpu)
        assert all(torch.equal(a.pixels, b.pixels.cpu()) for a, b in zip(on_cpu, on_gpu, strict=True))
