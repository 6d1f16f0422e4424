"""Whether a recipe agrees with what it built: checks that need the data's classes, the model's parts, the metrics."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch

from toolkit.contracts import DataSpec, Metric
from toolkit.errors import Problem, nearest
from toolkit.evaluate import score
from toolkit.recipe import Recipe


def disagreements(
    recipe: Recipe, spec: DataSpec, *, parts: Collection[str], metrics: list[Metric], validates: bool
) -> Iterator[Problem]:
    """Everything in the recipe that cannot work with these components."""
    for name in sorted(set(recipe.train.optimizer.parts) - set(parts)):
        message = f"the model has no such part; it has {', '.join(parts)}"
        yield Problem(f"train.optimizer.parts.{name}", message, nearest(name, parts))
    weights = recipe.train.class_weights
    if not isinstance(weights, str) and len(weights) != len(spec.classes):
        yield Problem("train.class_weights", f"has {len(weights)} weights for {len(spec.classes)} classes")
    if recipe.train.accumulate > recipe.train.batch:
        yield Problem("train.accumulate", f"cannot divide a batch of {recipe.train.batch} items")
    if validates:
        yield from _unknown_metric(recipe.train.metric, metrics, spec)
    else:
        yield from _needs_validation(recipe)


def _unknown_metric(metric: str, metrics: list[Metric], spec: DataSpec) -> Iterator[Problem]:
    """Ask the metrics what they give, by an answer that is right once for every class."""
    perfect = score(torch.eye(len(spec.classes)), torch.arange(len(spec.classes)), metrics)
    names = sorted(name for name, value in perfect.items() if isinstance(value, float))
    if metric not in names:
        message = f'no metric of this recipe gives "{metric}"; there are {", ".join(names)}'
        yield Problem("train.metric", message, nearest(metric, names))


def _needs_validation(recipe: Recipe) -> Iterator[Problem]:
    if recipe.train.patience is not None:
        yield Problem("train.patience", "needs a validation split, which this data has not")
    if recipe.train.schedule.name == "plateau":
        yield Problem("train.schedule.name", '"plateau" needs a validation split, which this data has not')
