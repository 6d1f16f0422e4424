"""Shipped recipes, smaller, on 1, 2 and 4 ranks: the same batches, losses and scores.

Other sums round otherwise, and a deep network magnifies that from step to step. So in float32 less is asked of it, and
in float64 what only a fault would change.

`TOOLKIT_WHOLE_RECIPES=1 pytest tests/training/test_recipes_on_ranks.py` trains more of a ResNet-18 than CI does.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.ranks import together
from toolkit.api.contracts import EpochRecord
from toolkit.build.assemble import assemble, training
from toolkit.build.plan import plan
from toolkit.host.registry import discover
from toolkit.recipe.read import parse
from toolkit.system.ranks import ALONE, Ranks
from toolkit.training.evaluate import evaluate
from toolkit.training.fit import StepDone, fit

RECIPES = Path(__file__).parents[2] / "recipes"
WHOLE = bool(os.environ.get("TOOLKIT_WHOLE_RECIPES"))
CNN = ("model={name='cnn', widths=[8], dropout=0.3}", "input.size=16", "input.stored=20", "data.sample_clips=8")
SHALLOW = {
    "cifar10_cnn": ("data.sample_images=20", "model.widths=[16]", "model.dropout=0.2"),
    "har_resnet50": CNN,
    "har_resnet50_attention": (*CNN, "clip.frames=4", "model.head=attention"),
}
CLIPS, SIZE, FRAMES = (20, 64, 4) if WHOLE else (6, 32, 2)
RESNET = (
    *("model.name=resnet18", "model.weights=none", "model.stem=imagenet"),
    *(f"input.size={SIZE}", f"input.stored={SIZE + 8}", f"data.sample_clips={CLIPS}"),
)
DEEP = {"har_resnet50": RESNET, "har_resnet50_attention": (*RESNET, f"clip.frames={FRAMES}")}
COUNTS = (2, 4) if WHOLE else (2,)
EPOCHS = 2


@dataclasses.dataclass
class Found:
    """What one rank has computed."""

    batches: list[tuple[Any, ...]]
    """Of the first epoch: index, pixels and targets of whole batches."""
    losses: list[float]
    accuracy: list[float]
    drawn_by_rank: Sequence[str]
    untrained: tuple[torch.Tensor, dict[str, float]]
    """Logits and scores of the initial weights."""


def trained(ranks: Ranks, *, recipe: str, overrides: Sequence[str], dtype: torch.dtype) -> Found:
    torch.set_num_threads(1)
    usual = (f"train.epochs={EPOCHS}", "train.batch=16", "train.precision=fp32", "metrics=['accuracy']", "trackers=[]")
    planned = plan(parse(RECIPES / f"{recipe}.toml", [*overrides, *usual]), discover())
    assembly = assemble(planned, ranks=ranks)
    assembly.network.to(dtype)
    state, setup = training(assembly)
    shares = setup.train.training(setup.batch, setup.augmentations, seed=setup.seed, epoch=0, start=0)
    batches = [joined(ranks.gather((share.index, share.pixels, share.targets))) for share in shares]
    evaluation = setup.valid.evaluation(setup.eval_batch)
    untrained = evaluate(
        state.network,
        state.objective,
        evaluation,
        setup.metrics(),
        setup.autocast,
        average=setup.valid.average,
        ranks=ranks,
    )
    events = list(fit(state, setup))
    return Found(
        batches,
        [float(event.loss) for event in events if isinstance(event, StepDone)],
        [event.valid["accuracy"] * len(setup.valid.store) for event in events if isinstance(event, EpochRecord)],
        state.parallel.drawn_by_rank,
        (untrained.logits, untrained.scalars()),
    )


def joined(parts: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


@pytest.mark.slow  # trains each recipe in three processes
@pytest.mark.parametrize(("recipe", "overrides"), SHALLOW.items())
def test_a_recipe_means_the_same_on_any_number_of_ranks(recipe: str, overrides: Sequence[str]) -> None:
    for alone, found in compared(recipe, overrides, torch.float32):
        steps = len(alone.losses) // EPOCHS
        assert found.losses[:steps] == pytest.approx(alone.losses[:steps], rel=1e-5)


@pytest.mark.slow  # trains each recipe in three processes
@pytest.mark.parametrize(("recipe", "overrides"), DEEP.items())
def test_in_float64_deep_networks_agree_for_all_epochs(recipe: str, overrides: Sequence[str]) -> None:
    for alone, found in compared(recipe, overrides, torch.float64):
        assert found.losses == pytest.approx(alone.losses, rel=1e-12)


@pytest.mark.slow  # trains each recipe in three processes
@pytest.mark.skipif(not WHOLE, reason="takes long: runs with TOOLKIT_WHOLE_RECIPES=1")
@pytest.mark.parametrize(("recipe", "overrides"), DEEP.items())
def test_in_float32_deep_networks_begin_alike_and_end_as_accurate(recipe: str, overrides: Sequence[str]) -> None:
    for alone, found in compared(recipe, overrides, torch.float32):
        assert found.losses[0] == pytest.approx(alone.losses[0], rel=1e-5)


def compared(recipe: str, overrides: Sequence[str], dtype: torch.dtype) -> Iterator[tuple[Found, Found]]:
    """One rank, and each of several. Whatever the network, all see the same batches, answer alike before they train,
    and end with the same accuracy."""
    work = partial(trained, recipe=recipe, overrides=overrides, dtype=dtype)
    alone = work(ALONE)
    steps = len(alone.losses) // EPOCHS
    assert steps > 1
    assert len(set(alone.losses)) == len(alone.losses)
    for count in COUNTS:
        for found in together(work, count):
            for batch, expected in zip(found.batches, alone.batches, strict=True):
                assert all(torch.equal(one, other) for one, other in zip(batch, expected, strict=True))
            assert found.accuracy[-1] == pytest.approx(alone.accuracy[-1], abs=2.01)
            assert found.drawn_by_rank == []
            assert torch.equal(found.untrained[0], alone.untrained[0])
            assert found.untrained[1] == alone.untrained[1]
            yield alone, found
