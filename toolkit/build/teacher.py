"""The network of a finished run, opened for another one that learns from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from toolkit.api.contracts import DataSpec
from toolkit.api.errors import Problem, WeightsError, first_few
from toolkit.build.plan import Plan, plan
from toolkit.host.registry import discover
from toolkit.recipe.read import invalid, parse_text
from toolkit.recipe.tables import Recipe
from toolkit.system.checkpoints import BEST
from toolkit.training.checkpoint import BestCheckpoint
from toolkit.training.network import Network
from toolkit.transfer.trained import weights_at

PIXELS = ("size", "fit", "mean", "std")
"""Keys of `input` that say which pixels a network sees, and how it normalises them."""


def open_network(learner: Plan, spec: DataSpec, device: torch.device, path: Path) -> Network:
    """The network of the run at `path`: see `toolkit.api.contracts.NetworkOf`. `spec` is that of the learner's data."""
    file = weights_at(path.expanduser())
    if file.name != BEST or not file.is_file():
        raise WeightsError(
            f"{path}: not a run that has weights", next_step="name a run directory, runs/<recipe>/<time>, or a bundle"
        )
    best = BestCheckpoint.load(file)
    planned = plan(parse_text(best.origin.recipe, str(file), name=file.parent.name), discover())
    unlike = list(_unlike(planned.resolved, learner.resolved))
    if list(best.origin.classes) != list(spec.classes):
        unlike.append("classes")
    if unlike:
        message = f"{path} was trained with another {first_few(unlike)}: train a teacher on what the recipe sees"
        raise invalid(learner.source, [Problem("task.teacher", message)])
    network = Network(planned.model(spec, initial_weights=False), spec)
    best.restore_network(network, file)
    return network.to(device).eval().requires_grad_(False)


def _unlike(teacher: Recipe, learner: Recipe) -> Iterator[str]:
    if teacher.data.name != learner.data.name:
        yield "data.name"
    for key in PIXELS:
        if getattr(teacher.input, key) != getattr(learner.input, key):
            yield f"input.{key}"
    if teacher.clip != learner.clip:
        yield "clip"
