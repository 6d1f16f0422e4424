"""A part of the training items: of all classes, with whole sources, smaller parts inside of larger ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from toolkit.api.contracts import Data, DataSpec, Targets
from toolkit.data.fraction import with_fraction
from toolkit.data.images import ArrayItems
from toolkit.data.videos import ArrayVideos, FramesOf


def data(targets: Targets, sources: dict[str, str] | None = None, form: str = "index") -> Data:
    ids = tuple(f"item-{number}" for number in range(len(targets)))
    split = ArrayItems(ids, targets, ids, torch.zeros(len(targets), 3, 2, 2, dtype=torch.uint8))
    spec = DataSpec(("a", "b", "c"), 8, targets=form)  # type: ignore[arg-type]
    return Data(spec, split, split, split, sources=sources or {})


TARGETS = (0,) * 60 + (1,) * 30 + (2,) * 10


@pytest.mark.parametrize("seed", range(3))
def test_smaller_parts_are_inside_of_larger_ones(seed: int) -> None:
    parts = [{*with_fraction(data(TARGETS), share, seed).train.ids} for share in (0.05, 0.1, 0.33, 0.5, 1.0)]
    assert [len(part) for part in parts] == [5, 10, 33, 50, 100]
    assert all(small < large for small, large in pairwise(parts))


@pytest.mark.parametrize(("share", "counts"), [(0.1, (6, 3, 1)), (0.5, (30, 15, 5)), (0.02, (1, 1, 1))])
def test_classes_keep_their_shares_and_none_is_lost(share: float, counts: tuple[int, ...]) -> None:
    found = Counter(with_fraction(data(TARGETS), share, 0).train.targets)
    for number, wanted in enumerate(counts):
        assert abs(found[number] - wanted) <= 1
        assert found[number] > 0


def test_another_seed_draws_other_items() -> None:
    first, other = (with_fraction(data(TARGETS), 0.1, seed).train.ids for seed in (0, 1))
    assert {*first} != {*other}


def test_other_splits_stay_and_the_protocol_says_the_share() -> None:
    found = with_fraction(data(TARGETS), 0.1, 0)
    assert (len(found.valid), len(found.test)) == (100, 100)
    assert found.protocol["train_fraction"] == 0.1


def test_sources_are_whole() -> None:
    sources = {f"item-{number}": f"video-{number // 10}" for number in range(100)}
    found = with_fraction(data(TARGETS, sources), 0.25, 0)
    assert {*Counter(sources[name] for name in found.train.ids).values()} == {10}
    assert {*found.train.targets} == {0, 1, 2}


def test_frames_come_and_go_with_their_videos() -> None:
    ids = tuple(f"v{number}" for number in range(10))
    videos = ArrayVideos(ids, (0, 1) * 5, ids, torch.zeros(10, 4, 3, 2, 2, dtype=torch.uint8), 10.0)
    framed = FramesOf(videos, 2)
    found = with_fraction(Data(DataSpec(("a", "b"), 8), framed, framed, framed), 0.4, 0)
    assert len(found.train) == 8
    assert len({name.partition("#")[0] for name in found.train.ids}) == 4


@pytest.mark.parametrize(
    ("form", "targets"),
    [("set", tuple((number % 3,) for number in range(90))), ("number", tuple((float(n), 0.0, 1.0) for n in range(90)))],
)
def test_sets_and_numbers_are_spread_too(form: str, targets: Targets) -> None:
    found = with_fraction(data(targets, form=form), 1 / 3, 0).train
    assert 30 <= len(found) <= 33
    first = [target[0] for target in found.targets]  # type: ignore[index]
    assert max(first) - min(first) >= (2 if form == "set" else 60)


def test_the_whole_is_the_whole() -> None:
    whole = data(TARGETS)
    assert list(with_fraction(whole, 1.0, 0).train.ids) == list(whole.train.ids)
    assert replace(with_fraction(whole, 1.0, 0), train=whole.train).spec == whole.spec
