"""A learning-rate range test (Smith 2017, arXiv 1506.01186): train for a few steps while the rate rises, and see where
the loss falls and where it explodes. It trains a network of its own, so no run is begun."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from toolkit.api.errors import RunFailed
from toolkit.api.files import write_atomically
from toolkit.build.assemble import assemble, training
from toolkit.build.batch_size import settled
from toolkit.build.kept import Kept
from toolkit.build.plan import Plan
from toolkit.data.loader import Share
from toolkit.system import device as devices
from toolkit.system.randomness import seed_globally
from toolkit.training.fit import begin_epoch, training_batches
from toolkit.training.state import Setup, State
from toolkit.training.step import train_step

LOWEST, HIGHEST = 1e-7, 10.0
"""Rates of the first and of the last step, between which they rise by the same factor."""
STEPS = 100
SMOOTHING = 0.9
"""Weight of the past in the running mean of the loss, without which one odd batch decides."""
EXPLODED = 4.0
"""Multiple of the lowest loss at which the test ends."""
PLATEAU = 10
"""Steps at the start whose rates are too low to change anything."""
FALL = 0.99
"""Share of the mean loss there below which the lowest one has to be: else it only varies."""
MARGIN = 10.0
"""What the rate of the lowest loss is divided by: there the loss is about to rise, as fastai's rule has it."""


@dataclass(frozen=True)
class RateRange:
    """The smoothed loss at each rate that was tried."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    batch: int

    @property
    def proposed(self) -> float | None:
        """A tenth of the rate at which the loss is lowest, in two digits; None where the loss does not fall."""
        lowest = min(self.losses)
        start = self.losses[:PLATEAU]
        if not lowest < FALL * sum(start) / len(start):
            return None
        return float(f"{self.rates[self.losses.index(lowest)] / MARGIN:.1e}")


@devices.enough_memory()
def find_rate(planned: Plan) -> RateRange:
    """Train as a run of `planned` would, with rates from low to high; each part of the model keeps its `lr_scale`."""
    kept = Kept()
    assembly = assemble(settled(planned, kept), kept)
    state, setup = training(assembly)
    own = assembly.recipe.train.optimizer.lr
    begin_epoch(state, setup)
    rates, losses = list[float](), list[float]()
    mean = 0.0
    for step, batch in enumerate(itertools.islice(_batches(setup), STEPS)):
        rate = LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1))
        loss = _loss_of(state, setup, batch, step, rate / own)
        if loss is None:
            break
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        rates.append(rate)
        losses.append(mean / (1 - SMOOTHING ** (step + 1)))
        if losses[-1] > EXPLODED * min(losses):
            break
    if not losses:
        raise RunFailed(
            f"the loss is not finite at the lowest rate, {LOWEST:g}",
            next_step="look at the data and the weights; --set train.precision=fp32 rules out a lack of precision",
        )
    return RateRange(tuple(rates), tuple(losses), setup.batch)


def _batches(setup: Setup) -> Iterator[Share]:
    """Training batches of one epoch after the other; those whose items were all skipped are passed over."""
    for epoch in itertools.count():
        batches = training_batches(setup, epoch=epoch)
        yield from (batch for batch in batches if batch.items)


def _loss_of(state: State, setup: Setup, batch: Share, step: int, scale: float) -> float | None:
    """The loss before a step at `scale` times the recipe's rates; None where it is not finite."""
    for group in state.optimizer.param_groups:
        group["lr"] = scale * group["base_lr"]
    seed_globally(state.device, setup.seed, "step", 0, step)
    try:
        loss = float(train_step(state, setup, batch))
    except RunFailed:
        if int(state.totals.failed_at) < 0:  # it failed for another reason than its loss
            raise
        return None
    return loss if math.isfinite(loss) else None


def draw(found: RateRange, title: str, path: Path) -> None:
    """Write the curve, with the proposed rate, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(found.rates, found.losses)
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss, smoothed")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    if found.proposed is not None:
        axes.axvline(found.proposed, linestyle="--", color="black", label=f"proposed {found.proposed:g}")
        axes.legend()
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=150)
    write_atomically(path, image.getvalue())
