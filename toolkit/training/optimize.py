"""Parameter groups and warm-up: what the core adds to any optimizer and schedule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from toolkit.api.contracts import Grouped, Schedule


def warmed_up(schedule: Schedule, steps: float) -> Schedule:
    """`schedule` with its factor raised linearly from near 0 over the first `steps` steps."""
    return _WarmUp(schedule, steps) if steps > 0 else schedule


@dataclass(frozen=True)
class _WarmUp:
    inner: Schedule
    steps: float

    def factor(self, step: int) -> float:
        return min(1.0, (step + 1) / self.steps) * self.inner.factor(step)

    def observe(self, score: float) -> None:
        self.inner.observe(score)

    def state_dict(self) -> dict[str, float]:
        return self.inner.state_dict()

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self.inner.load_state_dict(state)


def parameter_groups(
    parts: Mapping[str, nn.Module], lr: float, lr_scales: Mapping[str, float], *, decay_norms_and_biases: bool
) -> Iterator[dict[str, Any]]:
    """Groups by part (`backbone`, `head`; a model without parts is all `model`), and by whether they decay.

    Each has a `name` and its `base_lr`, which the loop multiplies by the schedule's factor.
    """
    for part, module in parts.items():
        rate = lr * lr_scales.get(part, 1.0)
        parameters = list(module.parameters())
        decayed = [p for p in parameters if decay_norms_and_biases or p.ndim > 1]
        bare = [p for p in parameters if not (decay_norms_and_biases or p.ndim > 1)]
        if decayed:
            yield {"params": decayed, "lr": rate, "base_lr": rate, "name": part}
        if bare:
            yield {"params": bare, "lr": rate, "base_lr": rate, "name": f"{part} norms and biases", "weight_decay": 0.0}


def model_parts(model: nn.Module) -> Mapping[str, nn.Module]:
    """The model's named parts; one part `model` where it names none."""
    return model.parts() if isinstance(model, Grouped) else {"model": model}
