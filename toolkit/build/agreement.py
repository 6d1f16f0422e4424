"""Whether a recipe agrees with what it built: checks that need the data's classes, the model's parts, the metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator

import torch
from torch import nn

from toolkit.api.contracts import Curve, DataSpec, Headed, Metric, Objective, Pretraining, Schedule
from toolkit.api.errors import Problem, counted, nearest
from toolkit.api.memory import lacks_memory
from toolkit.recipe.tables import Recipe
from toolkit.training.answers import ANSWERING, logits_of
from toolkit.training.evaluate import score
from toolkit.training.modes import evaluating
from toolkit.training.optimize import Layers

MEASURED = ("latency",)
"""What a study may ask for besides scores."""


def disagreements(
    recipe: Recipe,
    spec: DataSpec,
    *,
    parts: Collection[str],
    objective: Objective,
    metrics: list[Metric],
    schedule: Schedule,
    validates: bool,
    model: nn.Module,
) -> Iterator[Problem]:
    """Everything in the recipe that cannot work with these components."""
    for name in sorted(set(recipe.train.optimizer.parts) - set(parts)):
        message = f"no such part of the model (choose from {', '.join(parts)})"
        yield Problem(f"train.optimizer.parts.{name}", message, nearest(name, parts))
    yield from _undivided(recipe, objective)
    yield from distrusted(recipe, spec)
    yield from _featureless(recipe, model)
    if isinstance(objective, Pretraining):
        yield from _unanswered(recipe)
    yield from _unfrozen(recipe, model)
    yield from _stages(recipe, spec, model)
    if recipe.train.schedule.warmup_steps is not None and recipe.train.schedule.warmup_epochs:
        yield Problem("train.schedule.warmup_steps", "give either warmup_steps or warmup_epochs")
    if recipe.train.accumulate > recipe.train.batch_size:
        yield Problem("train.accumulate", f"cannot divide a batch of {recipe.train.batch_size} items")
    if validates:
        own = {"spread"} if isinstance(objective, Pretraining) else set[str]()
        metric, names = recipe.train.metric, sorted({*_answered(spec, objective, metrics, wrong_by=0), *own})
        if metric not in names:
            message = f'no metric of this recipe computes "{metric}" (choose from {", ".join(names)})'
            yield Problem("train.metric", message, nearest(metric, names))
        return
    if recipe.train.patience is not None:
        yield Problem("train.patience", "requires a validation split, but the dataset has none")
    if not isinstance(schedule, Curve):
        message = f'"{recipe.train.schedule.name}" requires a validation split, but the dataset has none'
        yield Problem("train.schedule.name", message)


def _undivided(recipe: Recipe, objective: Objective) -> Iterator[Problem]:
    """What the strategy of the recipe does not go with."""
    train = recipe.train
    if train.strategy != "fsdp":
        return
    if train.compile:
        yield Problem("train.compile", 'cannot be combined with train.strategy = "fsdp"')
    if train.precision == "fp16":
        yield Problem("train.precision", 'fp16 cannot be combined with train.strategy = "fsdp" (choose bf16 or fp32)')
    if any(parameter.requires_grad for parameter in objective.parameters()):
        yield Problem("train.strategy", f'"fsdp" does not divide the weights that task "{recipe.task.name}" trains')


def distrusted(recipe: Recipe, spec: DataSpec) -> Iterator[Problem]:
    """What the recipe asks for that only answers of one class have."""
    asked = {
        "export.calibrate": recipe.export.calibrate,
        "export.reject": recipe.export.reject is not None,
        "export.conformal": recipe.export.conformal is not None,
    }
    if spec.targets != "index":
        for key in (key for key, wanted in asked.items() if wanted):
            yield Problem(key, "requires items with one class each; remove it")


def _featureless(recipe: Recipe, model: nn.Module) -> Iterator[Problem]:
    """Features that the recipe asks for and the model does not show."""
    reject = recipe.export.reject
    if reject is not None and reject.score == "similarity" and not isinstance(model, Headed):
        message = f'model "{recipe.model.name}" has no backbone and head of its own: use "confidence" or "energy"'
        yield Problem("export.reject.score", message)


def _unanswered(recipe: Recipe) -> Iterator[Problem]:
    """What the recipe asks for that needs answers of a head, where only features are learned."""
    trusted = {"export.calibrate": recipe.export.calibrate, "export.reject": recipe.export.reject is not None}
    asked = {**trusted, "export.conformal": recipe.export.conformal is not None, "data.unknown": recipe.data.unknown}
    for key in (key for key, wanted in asked.items() if wanted):
        yield Problem(key, f'requires answers, and task "{recipe.task.name}" learns features alone; remove it')


def _unfrozen(recipe: Recipe, model: nn.Module) -> Iterator[Problem]:
    """Layers that the recipe trains and the model has frozen."""
    layers, train = Layers.of(model), recipe.train
    asked = {
        "train.trained_layers": train.trained_layers,
        "train.thaw_every": train.thaw_every,
        "train.fixres.layers": train.fixres and train.fixres.layers,
    }
    if not any(asked.values()) or not len(layers):
        return
    last = [one for name, one in model.named_parameters() if layers.depth(name) == len(layers) - 1]
    if not any(one.requires_grad for one in last):
        message = f'model "{recipe.model.name}" has frozen its backbone itself: unfreeze it (--set model.freeze=false)'
        yield from (Problem(key, message) for key, count in asked.items() if count)


def _stages(recipe: Recipe, spec: DataSpec, model: nn.Module) -> Iterator[Problem]:
    """Epochs that cannot be trained as the recipe has them."""
    train = recipe.train
    asked = {"train.thaw_every": train.thaw_every, "train.fixres": train.fixres}
    for key in (key for key, wanted in asked.items() if wanted and train.strategy == "fsdp"):
        yield Problem(key, 'cannot be combined with train.strategy = "fsdp"')
    if train.thaw_every and train.trained_layers is None:
        yield Problem("train.thaw_every", "requires train.trained_layers, the number of layers trained at first")
    if train.fixres is None:
        return
    if train.fixres.epochs >= train.epochs:
        message = f"must be less than train.epochs = {train.epochs}, got {train.fixres.epochs}"
        yield Problem("train.fixres.epochs", message)
    if train.fixres.size >= spec.size:
        yield Problem("train.fixres.size", f"must be less than input.size = {spec.size}, got {train.fixres.size}")
    elif reason := _refusal(model, spec, train.fixres.size):
        message = (
            f'model "{recipe.model.name}" takes items of {spec.size} px alone ({reason}): train at '
            f"{train.fixres.size} px without train.fixres, then start another run from that one (--set "
            f"model.weights=RUN --set input.size={spec.size} --set train.trained_layers={train.fixres.layers})"
        )
        yield Problem("train.fixres.size", message)


def _refusal(model: nn.Module, spec: DataSpec, size: int) -> str | None:
    """Why the model cannot take items of `size` x `size` pixels; None where it can."""
    device = next((one.device for one in model.parameters()), None)
    try:
        with torch.no_grad(), evaluating(model):
            model(torch.zeros(1, *spec.clip_shape, 3, size, size, device=device))
    except (AssertionError, RuntimeError, ValueError) as error:
        if lacks_memory(error):
            raise
        return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
    return None


def unknown_aims(recipe: Recipe, spec: DataSpec, objective: Objective, metrics: list[Metric]) -> Iterator[Problem]:
    """Scores that `[tune]` asks for and no metric of the recipe gives."""
    if recipe.tune is None:
        return
    known = sorted({*_answered(spec, objective, metrics, wrong_by=0), *MEASURED})
    single = {"tune.metric": (recipe.tune.metric,) if recipe.tune.metric else ()}
    for key, asked in {**single, "tune.metrics": recipe.tune.metrics}.items():
        for name in asked:
            if name not in known:
                message = f'no metric of this recipe computes "{name}" (choose from {", ".join(known)})'
                yield Problem(key, message, nearest(name, known))


def contrary_direction(
    recipe: Recipe, spec: DataSpec, objective: Objective, metrics: Callable[[], list[Metric]]
) -> list[str]:
    """A note where `train.direction` prefers worse answers."""
    name, direction = recipe.train.metric, recipe.train.direction
    right, wrong = (_answered(spec, objective, metrics(), wrong_by=step).get(name, math.nan) for step in (0, 1))
    if not (right < wrong if direction == "maximize" else right > wrong):
        return []
    other = "minimize" if direction == "maximize" else "maximize"
    return [
        f'train.direction = "{direction}" keeps the epoch with the worst "{name}": by it right answers score '
        f"worse than wrong ones; to keep the best: --set train.direction={other}"
    ]


def endless_warm_up(recipe: Recipe, steps_per_epoch: int) -> list[str]:
    """A note where training ends before its warm-up does."""
    table, epochs = recipe.train.schedule, recipe.train.epochs
    in_steps = table.warmup_steps is not None
    key, unit = ("warmup_steps", "steps") if in_steps else ("warmup_epochs", "epochs")
    warm_up, whole = getattr(table, key), epochs * steps_per_epoch if in_steps else epochs
    if warm_up <= whole:
        return []
    return [
        f"the learning rate never reaches train.optimizer.lr: the warm-up takes {warm_up:g} {unit} (--set "
        f"train.schedule.{key}=...), the training {whole}"
    ]


def stages_in_words(recipe: Recipe, spec: DataSpec) -> list[str]:
    """A note for each way in which epochs differ."""
    train, found = recipe.train, list[str]()
    if train.thaw_every:
        every = "epoch" if train.thaw_every == 1 else counted(train.thaw_every, "epoch")
        found.append(f"{_layers(train.trained_layers or 0)} at first, one more layer every {every} (train.thaw_every)")
    if fixres := train.fixres:
        found.append(
            f"training at {fixres.size} px; in the last {counted(fixres.epochs, 'epoch')} at {spec.size} px, "
            f"{_layers(fixres.layers)} (train.fixres)"
        )
    return found


def _layers(count: int) -> str:
    return f"only the head and {counted(count, 'layer')} trained" if count else "only the head trained"


def _answered(spec: DataSpec, objective: Objective, metrics: list[Metric], *, wrong_by: int) -> dict[str, float]:
    """Scores of sure answers to a few items, each off by `wrong_by` classes or units."""
    answers, targets = ANSWERING[spec.targets].certain(len(spec.classes), wrong_by)
    found = score(objective, logits_of(answers, spec.targets), targets, metrics, None)
    return {name: value for name, value in found.items() if isinstance(value, float)}
