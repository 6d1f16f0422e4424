"""How long training still takes, estimated from all steps that this process has taken."""

from __future__ import annotations

from toolkit.api.contracts import EpochRecord
from toolkit.training.fit import Event, StepDone

WARM_UP = 3
"""Steps at the start that compile, allocate and fill caches: dropped as soon as there are others."""
MEMORY = 200
"""Steps that the mean looks back on: under a new load the estimate moves there without jumping."""


class Pace:
    """Learns from the events of training how long a step and a validation take."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._before: StepDone | None = None
        self._step_seconds = 0.0
        self._seen = 0
        self._valid_seconds = 0.0

    def see(self, event: Event) -> None:
        match event:
            case StepDone():
                if (seconds := self._seconds_of(event)) is not None:
                    self._learn(seconds)
                self._before = event
            case EpochRecord():
                self._valid_seconds = event.valid_seconds

    def left(self) -> float | None:
        """Seconds until the last epoch ends; None before the second step."""
        now = self._before
        if now is None or not self._seen:
            return None
        epochs_to_come = self._epochs - now.epoch
        steps = epochs_to_come * now.steps + now.steps - now.step
        return steps * self._step_seconds + (epochs_to_come + 1) * self._valid_seconds

    def _seconds_of(self, event: StepDone) -> float | None:
        """None for the first step of this process: what it took is not known after a resume, and is not typical."""
        before = self._before
        if before is None:
            return None
        return event.seconds - before.seconds if before.epoch == event.epoch else event.seconds

    def _learn(self, seconds: float) -> None:
        self._seen += 1
        counted = self._seen if self._seen <= WARM_UP else self._seen - WARM_UP
        self._step_seconds += (seconds - self._step_seconds) / min(counted, MEMORY)


def time_left(seconds: float) -> str:
    """`45 s left`, `8 min left`, `2 h 5 min left`."""
    return f"{duration(seconds)} left"


def duration(seconds: float) -> str:
    """`45 s`, `8 min`, `2 h 5 min`."""
    if seconds < 60:
        return f"{max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    hours, rest = divmod(minutes, 60)
    return f"{minutes} min" if not hours else f"{hours} h {rest} min"
