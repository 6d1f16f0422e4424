from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest
import torch

from tests.tiny import RECIPE, SIDE, write_images, write_recipe
from toolkit.build import kept
from toolkit.build.assemble import Assembly, assemble, training
from toolkit.build.kept import Kept
from toolkit.build.plan import plan
from toolkit.data.store.images import ImageStore
from toolkit.data.store.storage import Mapped, Memory
from toolkit.host.registry import discover
from toolkit.recipe.read import load, overridden

REGISTRY = discover()


class Bench:
    """Assembles the small recipe with overrides, keeping what it can."""

    def __init__(self, path: Path) -> None:
        self.recipe, self.kept = load(path), Kept()

    def made(self, *overrides: str) -> Assembly:
        return assemble(plan(overridden(self.recipe, "tiny.toml", overrides), REGISTRY), self.kept)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(write_recipe(tmp_path, write_images(tmp_path / "images"), text=RECIPE))


@pytest.mark.parametrize(
    "override", ["train.batch=4", "model.dropout=0.3", "seed=7", "train.epochs=1", "augment.random_crop.padding=1"]
)
def test_what_says_nothing_of_the_data_leaves_it(bench: Bench, override: str) -> None:
    assert bench.made().data is bench.made(override).data


@pytest.mark.parametrize(
    "override", ["data.valid_share=0.4", "input.size=24", "input.on_corrupt=skip", "input.memory_gb=0.5"]
)
def test_data_that_differs_is_opened_again(bench: Bench, override: str) -> None:
    before = bench.made().data
    assert bench.made(override).data is not before


def test_a_split_outside_memory_leaves_its_room_to_the_others(bench: Bench) -> None:
    one_item = 3 * SIDE**2
    loaders = bench.made(f"input.memory_gb={20 * one_item / 2**30}").loaders()
    assert [len(loader.store) for loader in loaders.values()] == [24, 6, 12]
    kept_in = [type(loader.store.storage) for loader in loaders.values() if isinstance(loader.store, ImageStore)]
    assert kept_in == [Mapped, Memory, Memory]


def test_the_data_before_the_last_is_let_go(bench: Bench) -> None:
    before = weakref.ref(bench.made().data)
    bench.made("input.size=24")
    gc.collect()
    assert before() is None


def test_a_network_is_never_kept(bench: Bench) -> None:
    one = bench.made()
    training(one)
    before = weakref.ref(one.network)
    other = bench.made()
    assert other.network is not one.network
    del one, other
    gc.collect()
    assert before() is None


def test_a_summary_is_that_of_the_model(bench: Bench) -> None:
    first = bench.made().summary
    assert bench.made("train.batch=4").summary is first
    wider = bench.made("model.widths=[16, 16]").summary
    assert wider.multiply_adds > first.multiply_adds
    assert bench.made("input.size=24").summary.multiply_adds < first.multiply_adds


def test_the_environment_is_asked_for_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(kept, "describe_environment", lambda device: asked.append(device) or {"python": "3"})
    assert [bench.made().environment() for _ in range(2)] == [{"python": "3"}] * 2
    assert asked == [torch.device("cpu")]


@pytest.mark.parametrize(
    ("override", "forgets"),
    [
        ("train.optimizer.lr=0.02", False),
        ("seed=7", False),
        ("train.epochs=1", False),
        ("augment.random_crop.padding=1", False),
        ("model.dropout=0.3", True),
        ("train.batch=4", True),
        ("input.size=24", True),
        ("train.precision=bf16", True),
    ],
)
def test_what_is_compiled_serves_where_the_step_is_the_same(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, override: str, forgets: bool
) -> None:
    """Dynamo reuses its code for a second network of the same shape, but recompiles it for another shape."""
    reset = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: reset.append(1))
    bench.made("train.compile=true")
    bench.made("train.compile=true", "train.optimizer.lr=0.03")
    assert reset == []
    bench.made("train.compile=true", override)
    assert bool(reset) == forgets
