"""A few seconds of real training, from which the time and the memory of a run are estimated. It writes no file: the
decoded images of the probe stay in memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import median

from toolkit.api.contracts import EpochRecord
from toolkit.build.assemble import Assembly, assemble, training
from toolkit.build.batch_size import settled
from toolkit.build.featuring import with_features
from toolkit.build.kept import Kept
from toolkit.build.plan import Plan
from toolkit.system import device as devices
from toolkit.training.evaluate import answering
from toolkit.training.fit import StepDone, fit
from toolkit.training.state import Setup, State

SECONDS = 10.0
"""How long training steps are measured, after the warm-up."""
SCORING_SECONDS = 3.0
"""How long the scoring of a split is measured."""
WARM_UP = 2
"""Steps before the first that counts: they choose kernels, compile and take memory."""


@dataclass(frozen=True)
class Step:
    """What one training step took."""

    seconds: float
    """With the wait for its batch."""
    computing: float
    frozen: bool
    """Whether some weights got no gradient."""


@dataclass(frozen=True)
class Probe:
    """What a probe measured, and what it says of the whole run."""

    batch: int
    steps_per_epoch: int
    epochs: int
    steps: tuple[Step, ...]
    """Those that count."""
    scoring: float
    """Seconds to score one item."""
    scored: tuple[int, int]
    """Items of the validation and of the test split."""
    kept: bool
    """Whether an item is decoded once, so that later epochs do not wait for the decoder."""
    peak_memory: int
    """Bytes, of the device where that is a GPU."""
    device: str
    precision: str
    frozen: bool
    """Whether some weights are frozen: an epoch that trains them later takes longer."""
    features: bool = False
    """Whether the first epoch computes what a frozen backbone gives for all items, and the later ones train on it."""

    @property
    def first_epoch(self) -> float:
        """Seconds of training in the first epoch, which decodes."""
        return self.steps_per_epoch * median(step.seconds for step in self.steps)

    @property
    def later_epoch(self) -> float:
        """Seconds of training in an epoch after the first."""
        if self.features:
            return 0.0  # about: a head takes a small part of the time
        computing = self.steps_per_epoch * median(step.computing for step in self.steps)
        return min(computing, self.first_epoch) if self.kept else self.first_epoch

    @property
    def validation(self) -> float:
        """Seconds to score the validation split once."""
        return self.scoring * self.scored[0]

    @property
    def whole(self) -> float:
        """Seconds of all epochs and of the scores at the end."""
        validations = 1 if self.features else self.epochs
        epochs = self.first_epoch + (self.epochs - 1) * self.later_epoch + validations * self.validation
        return epochs + self.scoring * sum(self.scored)


@devices.enough_memory()
def probe(planned: Plan) -> Probe:
    """Train for about `SECONDS` as a run of `planned` would, with initial weights that are not loaded."""
    kept = Kept()
    planned = settled(planned, kept)
    recipe = planned.resolved
    unkept = recipe.model_copy(update={"input": recipe.input.model_copy(update={"cache_gb": 0.0})})
    assembly = assemble(replace(planned, resolved=unkept), notes=())
    state, setup = training(assembly)
    steps = tuple(_measured(state, setup))
    return Probe(
        batch=setup.batch,
        steps_per_epoch=setup.steps,
        epochs=setup.epochs,
        steps=steps[WARM_UP:] or steps,
        scoring=_scoring(assembly, state, setup),
        scored=(len(assembly.valid.store), len(assembly.test.store)),
        kept=recipe.input.cache_gb > 0 or assembly.train.store.resident(assembly.device, 1.0),
        peak_memory=devices.peak_memory(assembly.device),
        device=devices.describe(assembly.device),
        precision=assembly.precision,
        frozen=steps[0].frozen,
        features=with_features(assembly, setup).features is not None,
    )


def _measured(state: State, setup: Setup) -> Iterator[Step]:
    """The steps of the first seconds of training; of a short training all. The device is waited for after each."""
    done, waited = time.perf_counter(), 0.0
    deadline = float("inf")
    count = 0
    for event in fit(state, setup):
        if isinstance(event, StepDone):
            count += 1
            devices.synchronize(state.device)
            now = time.perf_counter()
            frozen = any(one.grad is None for one in state.network.parameters())
            yield Step(now - done, max(now - done - (event.waited - waited), 0.0), frozen)
            waited = event.waited
            if count == WARM_UP:
                deadline = now + SECONDS
            if count > WARM_UP and now >= deadline:
                return
        elif isinstance(event, EpochRecord):
            waited = 0.0
        done = time.perf_counter()


def _scoring(assembly: Assembly, state: State, setup: Setup) -> float:
    """Seconds to score one item, with its decoding; 0 where there is nothing to score."""
    loader = next((one for one in (assembly.valid, assembly.test) if len(one.store)), None)
    if loader is None:
        return 0.0
    batches = loader.evaluation(setup.eval_batch)
    answers = answering(state.judged, state.objective, batches, setup.autocast, average=loader.average)
    started, per_item = time.perf_counter(), 0.0
    for answered in answers:
        devices.synchronize(state.device)
        seconds = time.perf_counter() - started
        per_item = seconds / answered
        if seconds > SCORING_SECONDS:
            break
    return per_item
