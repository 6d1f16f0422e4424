"""Whole epochs on noise, as a run trains them, against the bare step, a plain loop and Lightning's Trainer.

Ours augments, validates, shows its progress and saves checkpoints. The bare step does the arithmetic alone. The plain
loop and Lightning get their pixels decoded and cropped, and neither augment nor validate nor save.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

import torch
from torch.utils.data import TensorDataset

from bench import engines
from bench.gpu.generated import generated, item_bytes
from bench.gpu.rows import Row
from bench.gpu.schedule import Setting
from bench.pairs import Effort, Timer, compare
from bench.train import ENDLESS, RECIPES, BareEpoch, affordable_items, timed, whole_epochs
from toolkit.build.assemble import Assembly, assemble, training
from toolkit.build.plan import Plan, plan
from toolkit.host.registry import discover
from toolkit.recipe.read import parse
from toolkit.system.device import peak_memory

PAIRS = 5
SECONDS = 1.5
"""What a bare epoch takes, where that is fewer items than these."""
MOST_ITEMS, MOST_BYTES = 50_000, 2**31
WARM_UP = 2
"""Epochs before the first timing: videos are kept when they are asked for a second time."""
WORKERS = 8
"""Of the DataLoader of the others, on a GPU."""
GOAL = 0.95
"""Least speed, as a share of the bare step's."""
TINY = 1
"""Batches of an epoch in a rehearsal."""


class Chosen(NamedTuple):
    """A recipe and what is changed in it."""

    recipe: str
    overrides: tuple[str, ...]

    def planned(self, *further: str) -> Plan:
        return plan(parse(RECIPES / f"{self.recipe}.toml", [*self.overrides, *further]), discover())


TINY_IMAGES = Chosen(
    "cifar10_cnn", ("data.sample_images=20", "model.widths=[4]", "train.batch=16", "train.precision=fp32")
)
TINY_CLIPS = Chosen(
    "har_x3d_s",
    (
        *("model.name=x3d_xs", "model.weights=none", "clip.frames=4", "input.size=32", "input.stored=36"),
        *("data.sample_clips=3", "train.batch=2", "train.precision=fp32"),
    ),
)


@dataclass(frozen=True)
class Case:
    chosen: Chosen
    tiny: Chosen
    """What a rehearsal trains, after it has planned what is chosen: clips in one part, small images in all others."""
    others: bool = True
    """Whether a plain loop and Lightning are measured too."""
    needs: str = ""
    """A package that the model comes from."""


def measured(case: Case, setting: Setting) -> Iterator[Row]:
    if case.needs and find_spec(case.needs) is None:
        yield Row("epochs", skipped=f"{case.needs} is not installed: pip install -e '.[{case.needs}]'")
        return
    effort, assembly = setting.effort(PAIRS), assemble(_planned(case, setting))
    with tempfile.TemporaryDirectory() as folder, whole_epochs(assembly, Path(folder)) as whole_epoch:
        for _ in range(WARM_UP):
            whole_epoch()
        peak = peak_memory(assembly.device) / 2**30 if assembly.device.type == "cuda" else None
        for name, make in _sides(assembly).items():
            if name == "bare step" or case.others:
                yield _against(name, make, partial(timed, whole_epoch), assembly, effort, peak, setting)


def _against(
    name: str,
    make: Callable[[], Timer],
    ours: Timer,
    assembly: Assembly,
    effort: Effort,
    peak: float | None,
    setting: Setting,
) -> Row:
    if name == "Lightning" and find_spec("lightning") is None:
        return Row(f"against {name}", skipped="lightning is not installed: pip install -e '.[bench]'")
    theirs = make()
    theirs()
    goal = GOAL if name == "bare step" and not setting.rehearsal else None
    paired = compare(ours, theirs, effort, goal)
    items = assembly.train.epoch_items(assembly.recipe.train.batch_size)
    rates = (f"{items / median(paired.ours):,.0f} items/s", f"theirs {items / median(paired.theirs):,.0f}")
    batch = f"batch {assembly.recipe.train.batch_size}, {assembly.precision}"
    return Row.of_ratio(f"against {name}", paired, at_least=goal, peak_gib=peak, facts=(*rates, batch))


def _planned(case: Case, setting: Setting) -> Plan:
    planned = case.chosen.planned(ENDLESS)
    if setting.rehearsal:
        tiny = case.tiny.planned(ENDLESS)
        return generated(tiny, TINY * tiny.resolved.train.batch_size)
    batch = planned.resolved.train.batch_size
    fitting = MOST_BYTES // item_bytes(planned.data().spec) // batch * batch
    affordable = affordable_items(generated(planned, 2 * batch), SECONDS)
    return generated(planned, min(affordable, fitting, MOST_ITEMS))


def _sides(assembly: Assembly) -> dict[str, Callable[[], Timer]]:
    return {
        "bare step": partial(_bare, assembly),
        "plain loop": partial(_plain, assembly),
        "Lightning": partial(_lightning, assembly),
    }


def _bare(assembly: Assembly) -> Timer:
    return partial(timed, BareEpoch(_apart(assembly)))


def _plain(assembly: Assembly) -> Timer:
    """The second of two epochs: the first starts the workers."""
    state, setup = training(_apart(assembly))
    state.network.train()
    twice, items, workers = replace(setup, epochs=2), _items(assembly), _workers(assembly)
    return lambda: engines.plain(state, twice, items, workers=workers)[1]


def _lightning(assembly: Assembly) -> Timer:
    """As `_plain`."""
    state, setup = training(_apart(assembly))
    state.network.train()
    twice, items, workers = replace(setup, epochs=2), _items(assembly), _workers(assembly)
    precision: Literal["32-true", "bf16-mixed"] = "bf16-mixed" if assembly.precision == "bf16" else "32-true"
    return lambda: engines.lightning(state, twice, items, 1, precision=precision, workers=workers)[1]


def _apart(assembly: Assembly) -> Assembly:
    """The same with a network of its own, initialised in the same way."""
    return assemble(assembly.plan, assembly.kept)


def _items(assembly: Assembly) -> TensorDataset:
    """The training items on the CPU, as the network takes them."""
    store = assembly.train.store
    pixels = assembly.train.first(len(store)).contiguous()
    return TensorDataset(pixels, torch.as_tensor(store.split.targets))


def _workers(assembly: Assembly) -> int:
    return min(WORKERS, os.cpu_count() or 1) if assembly.device.type == "cuda" else 0


SIZES = ("input.size=224", "input.stored=256", "model.weights=none", "data.sample_clips=3")

cnn = partial(measured, Case(Chosen("cifar10_cnn", ("data.sample_images=20",)), TINY_IMAGES, others=False))
record = partial(
    measured,
    Case(
        Chosen("cifar10_94", ("data.sample_images=20",)),
        Chosen("cifar10_94", ("data.sample_images=20", "model.widths=[8,8]", "train.batch=16", "train.precision=fp32")),
        others=False,
    ),
)
resnet50 = partial(measured, Case(Chosen("har_resnet50", (*SIZES, "train.batch=256")), TINY_IMAGES))
x3d_m = partial(measured, Case(Chosen("har_x3d_s", (*SIZES, "model.name=x3d_m", "train.batch=64")), TINY_CLIPS))
slow_r50 = partial(measured, Case(Chosen("har_slow_r50", (*SIZES, "train.batch=32")), TINY_IMAGES))
slowfast_r50 = partial(measured, Case(Chosen("har_slowfast_r50", (*SIZES, "train.batch=32")), TINY_IMAGES))
videomae_s = partial(
    measured, Case(Chosen("har_videomae_s", (*SIZES, "train.batch=32")), TINY_IMAGES, needs="transformers")
)
