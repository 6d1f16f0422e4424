"""CIFAR-10 against the clock.

On the clock: the network, its whitening by training images, the checks of what was built, all training, and the answers
on the test images in six views. Off the clock: decoding, copying the images to the device, and one discarded training
of another seed. No image is held out, so nothing is validated. The mean is over as many seeds as fit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from bench.gpu.reference import Reference
from bench.gpu.rows import Row
from bench.gpu.schedule import Setting
from bench.pairs import compare
from bench.train import RECIPES
from toolkit.build.assemble import Assembly, assemble, training
from toolkit.build.kept import Kept
from toolkit.build.plan import Plan, plan
from toolkit.data.images import ImageFiles
from toolkit.host.registry import discover
from toolkit.recipe.read import parse
from toolkit.system.device import peak_memory, synchronize
from toolkit.training.evaluate import evaluate
from toolkit.training.fit import fit

SEEDS, BUDGET = 50, 120.0
"""Runs that a mean is asked to be of, and the seconds after which no further one begins."""
ACCURACY, SECONDS = 94.0, 1.0
"""Goals of the means: percent of the test images, and seconds."""
PAIRS = 10
GOAL = 1 / 0.75
"""Least speed against the reference."""
NEEDS_DATA = Row(
    "accuracy and seconds", skipped="needs the images of CIFAR-10: --data FOLDER, with the official files or folders"
)
SAMPLE = ("data.sample_images=20", "model.widths=[8,8]", "train.epochs=1", "train.batch=50", "train.precision=fp32")


@dataclass(frozen=True)
class Run:
    seconds: float
    accuracy: float
    """Percent, as the recipe evaluates."""
    one_view: float


def cifar10_94(setting: Setting) -> Iterator[Row]:
    """Accuracy and seconds of `recipes/cifar10_94.toml`, all training images used."""
    root = _root(setting)
    if root is None and not setting.rehearsal:
        yield NEEDS_DATA
        return
    overrides = SAMPLE if setting.rehearsal else (f"data.root={root}",)
    kept = Kept()
    assembly, _ = timed_run(planned("cifar10_94", [*overrides, "seed=1000"]), kept)
    begun, runs = time.monotonic(), list[Run]()
    while len(runs) < (2 if setting.rehearsal else SEEDS) and time.monotonic() - begun < BUDGET:
        assembly, run = timed_run(planned("cifar10_94", [*overrides, f"seed={len(runs)}"]), kept)
        runs.append(run)
    yield from summary(runs, _facts(assembly, len(runs)), peak_memory(assembly.device), goals=not setting.rehearsal)


def against_reference(setting: Setting) -> Iterator[Row]:
    """Seconds of `recipes/cifar10_94.toml` against those of the reference, in turns; each on its clock."""
    root = _root(setting)
    if root is None and not setting.rehearsal:
        yield NEEDS_DATA
        return
    overrides = SAMPLE if setting.rehearsal else (f"data.root={root}",)
    kept, seeds = Kept(), count()
    assembly, _ = timed_run(planned("cifar10_94", [*overrides, "seed=1000"]), kept)
    reference = Reference(assembly)
    reference(1000)
    found: dict[str, list[float]] = {"ours": [], "theirs": []}

    def ours() -> float:
        _, run = timed_run(planned("cifar10_94", [*overrides, f"seed={next(seeds)}"]), kept)
        found["ours"].append(run.accuracy)
        return run.seconds

    def theirs() -> float:
        seconds, accuracy = reference(next(seeds))
        found["theirs"].append(accuracy)
        return seconds

    goal = None if setting.rehearsal else GOAL
    paired = compare(ours, theirs, setting.effort(PAIRS), goal)
    accuracies = (f"{fmean(found['ours']):.2f} %", f"theirs {fmean(found['theirs']):.2f} %")
    yield Row.of_ratio("against airbench94_muon's recipe", paired, at_least=goal, facts=accuracies)


def _root(setting: Setting) -> Path | None:
    return setting.options.cifar10() or setting.options.folder("cifar-10-batches-py")


def planned(recipe: str, overrides: Sequence[str]) -> Plan:
    held = ("data.valid_share=0",)
    return plan(parse(Path(RECIPES) / f"{recipe}.toml", [*held, *overrides]), discover())


def timed_run(planned: Plan, kept: Kept) -> tuple[Assembly, Run]:
    started = time.perf_counter()
    assembly = assemble(planned, kept)
    state, setup = training(assembly)
    for _ in fit(state, setup):
        pass
    accuracy = _accuracy(assembly, setup.eval_batch)
    synchronize(assembly.device)
    seconds = time.perf_counter() - started
    model: Any = assembly.network.model
    model.views = 1
    return assembly, Run(seconds, accuracy, _accuracy(assembly, setup.eval_batch))


def _accuracy(assembly: Assembly, batch: int) -> float:
    batches = assembly.test.evaluation(batch)
    found = evaluate(assembly.network, assembly.objective, batches, assembly.metrics(), assembly.autocast)
    return 100 * found.scalars()["accuracy"]


def _facts(assembly: Assembly, runs: int) -> tuple[str, ...]:
    files = isinstance(assembly.data.train, ImageFiles)
    said = "the built-in sample" if assembly.spec.sample else "image files" if files else "the official files"
    few = (f"fewer than the {SEEDS} runs of the counting rules",) if runs < SEEDS else ()
    return (f"{len(assembly.train.store)} images of {said}", assembly.precision, *few)


def summary(runs: Sequence[Run], facts: tuple[str, ...], peak: int, *, goals: bool) -> Iterator[Row]:
    """Means with the interval of two standard errors, of two runs or more."""
    columns = {
        "test accuracy": ([run.accuracy for run in runs], "%", facts),
        "test accuracy, one view": ([run.one_view for run in runs], "%", ()),
        "training and evaluation": ([run.seconds for run in runs], "s", ()),
    }
    for what, (values, unit, said) in columns.items():
        mean, deviation = fmean(values), stdev(values)
        error = 2 * deviation / math.sqrt(len(values))
        yield Row(
            what,
            mean,
            unit,
            len(values),
            interval=(mean - error, mean + error),
            at_least=ACCURACY if goals and what == "test accuracy" else None,
            at_most=SECONDS if goals and unit == "s" else None,
            peak_gib=peak / 2**30 if unit == "s" else None,
            facts=(f"sd {deviation:.3g} {unit}", *said),
        )
