"""What a study costs besides training, and what pruning and proposing gain.

Overhead: from the end of one trial's last epoch to the first step of the next, in a worker that keeps data and imports
against one that starts each trial with nothing kept. Storage: one more trial, and one more report, in studies of many
trials, the journal file against databases. Quality: the validation error of the best trial after as many epochs, TPE
with Hyperband against random values without pruning. All on the built-in sample.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count, pairwise
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

from bench import postgres
from bench.data import Options
from bench.pairs import Effort, Figure, compare, unwatched
from bench.storages import Filled, filled
from toolkit.api.contracts import EpochRecord
from toolkit.build.kept import Kept
from toolkit.host.registry import discover
from toolkit.recipe.read import parse
from toolkit.runs import loop
from toolkit.training.fit import Event, StepDone, fit
from toolkit.training.state import Setup, State
from toolkit.tune.outcome import DONE
from toolkit.tune.queue import enqueue_own
from toolkit.tune.study import plan_study
from toolkit.tune.worker.trial import StudyLocation, Worker, joined

RECIPE = Path(__file__).parents[1] / "recipes" / "cifar10_cnn.toml"
SMALL = (
    *("data.sample_images=60", "data.valid_share=0.25", "model.widths=[16,32,32]"),
    *("train.batch=32", "train.threads=1"),
    "tune.space.train.batch.choices=[8,16,32]",
)
"""A network so small that a second thread would only wait for the first."""
OVERHEAD_SECONDS = 0.3
TRIALS = (1_000, 10_000)
EPOCHS = 9
FULL_RUNS = 10
"""Runs of `EPOCHS` whose epochs a study may spend, however it spreads them over trials."""


def figures(options: Options) -> Iterator[Figure]:
    yield overhead(options.effort(10))
    yield from storage(options.effort(5))
    yield quality(options.effort(3))


# Overhead


class Watch:
    """Notes when trials train: a stand-in for `fit` that passes its events on."""

    def __init__(self, fit: Callable[[State, Setup], Iterator[Event]]) -> None:
        self._fit = fit
        self.first = self.last = self.step = 0.0

    def __call__(self, state: State, setup: Setup) -> Iterator[Event]:
        steps: list[float] = []
        for event in self._fit(state, setup):
            if isinstance(event, StepDone):
                steps.append(time.perf_counter())
            elif isinstance(event, EpochRecord):
                self.last = time.perf_counter()
            yield event
        self.first = steps[0]
        self.step = median(after - before for before, after in pairwise(steps))


@dataclass
class Between:
    """One more trial of a worker; gives the seconds before its first step and after its last epoch."""

    worker: Worker
    watch: Watch
    warm: bool

    def __call__(self) -> float:
        if not self.warm:
            self.worker = replace(self.worker, scoring=replace(self.worker.scoring, kept=Kept()))
        began = time.perf_counter()
        one_more(self.worker)
        ended = time.perf_counter()
        return max(0.0, self.watch.first - self.watch.step - began) + ended - self.watch.last


def overhead(effort: Effort) -> Figure:
    """A worker that keeps what it can against one that keeps nothing."""
    overrides = ["train.epochs=1", "tune.pruner=none", "tune.sampler=random", f"tune.trials={2 * effort.pairs + 2}"]
    with ExitStack() as stack:
        watch = Watch(fit)
        stack.enter_context(mock.patch.object(loop, "fit", watch))
        kept, cold = (Between(stack.enter_context(begun(overrides)), watch, warm) for warm in (True, False))
        kept()
        cold()
        paired = compare(kept, cold, effort)
    seconds = median(paired.ours)
    late = (f"takes more than {OVERHEAD_SECONDS:g} s",) * (seconds > OVERHEAD_SECONDS)
    facts = (f"between={seconds:.3f}s target<={OVERHEAD_SECONDS:g}s", "data=sample")
    return Figure("tune/overhead", paired, facts=facts, late=late)


@contextmanager
def begun(overrides: Sequence[str], *, own: bool = True) -> Iterator[Worker]:
    """A worker of a study of the small recipe, in a folder that goes with it; `own`: the recipe's own values first."""
    with tempfile.TemporaryDirectory() as folder:
        planned = plan_study(parse(RECIPE, [*SMALL, *overrides]), discover())
        with joined(StudyLocation(Path(folder), None, "python -m bench tune"), planned) as worker:
            if own:
                enqueue_own(worker.study, planned.own)
            yield worker


def one_more(worker: Worker) -> None:
    """Let the worker take one trial."""
    planned = worker.planned
    done = worker.study.get_trials(deepcopy=False, states=DONE)
    tune = planned.tune.model_copy(update={"trials": len(done) + 1})
    replace(worker, scoring=replace(worker.scoring, planned=replace(planned, tune=tune))).work()


# Storage


def storage(effort: Effort) -> Iterator[Figure]:
    """The journal file against each database, at each number of trials."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        binaries = postgres.programs()
        if binaries is None:
            print("tune/storage: PostgreSQL skipped, since it is not installed", file=sys.stderr)
        for trials in TRIALS:
            journal = stack.enter_context(filled(folder / f"journal-{trials}", None, trials))
            urls = {"sqlite": f"sqlite:///{folder}/{trials}.db"}
            if binaries:
                urls["postgresql"] = stack.enter_context(postgres.server(binaries))
            for kind, url in urls.items():
                with filled(folder / f"{kind}-{trials}", url, trials) as other:
                    yield from _beside(journal, kind, other, trials, effort)


def _beside(journal: Filled, kind: str, other: Filled, trials: int, effort: Effort) -> Iterator[Figure]:
    opened = (f"opened={journal.opened:.2g}s", f"{kind}_opened={other.opened:.2g}s")
    for what in ("trial", "report"):
        paired = compare(getattr(journal, what), getattr(other, what), effort)
        ours, theirs = (f"{1000 * median(side):.3g}ms" for side in (paired.ours, paired.theirs))
        yield Figure(f"tune/{what}/{kind}_{trials}", paired, facts=(f"journal={ours}", f"{kind}={theirs}", *opened))


# Quality


@dataclass
class Study:
    """Each call is a study with another seed; gives the validation error of its best trial."""

    sampler: str
    pruner: str
    epochs: list[int] = field(default_factory=list)
    trials: list[int] = field(default_factory=list)
    _seeds: Iterator[int] = field(default_factory=count)

    def __call__(self) -> float:
        seed, budget = next(self._seeds), FULL_RUNS * EPOCHS
        sampler = f"tune.sampler={{name={self.sampler!r},seed={seed}}}"
        overrides = [f"seed={seed}", f"train.epochs={EPOCHS}", sampler, f"tune.pruner={self.pruner}"]
        with begun([*overrides, f"tune.trials={budget}"], own=False) as worker:
            spent = 0
            while spent + EPOCHS <= budget:
                one_more(worker)
                spent = sum(len(trial.intermediate_values) for trial in worker.study.get_trials(deepcopy=False))
            self.epochs.append(spent)
            self.trials.append(len(worker.study.trials))
            return 1 - float(worker.study.best_value)


def quality(effort: Effort) -> Figure:
    """The error of the best trial, TPE with Hyperband against random values without pruning, at equal epochs. Neither
    begins with the recipe's own values, which are good already."""
    ours, theirs = Study("tpe", '{name="hyperband",reduction_factor=4}'), Study("random", "none")
    paired = compare(ours, theirs, effort, watch=unwatched)
    facts: dict[str, Any] = {
        "error": f"{median(paired.ours):.3f}",
        "random_error": f"{median(paired.theirs):.3f}",
        "epochs": median(ours.epochs),
        "random_epochs": median(theirs.epochs),
        "trials": median(ours.trials),
        "random_trials": median(theirs.trials),
        "data": "sample",
    }
    return Figure("tune/quality", paired, facts=tuple(f"{name}={value}" for name, value in facts.items()))
