"""Everything that a run builds, built without the memory and the time it takes: the model has shapes but no numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from toolkit.api.contract_checks import check_answers, check_objective
from toolkit.api.contracts import Data, DataSpec, Horizon, Objective, Schedule
from toolkit.api.errors import Problem, RecipeError
from toolkit.build.agreement import disagreements, unknown_aims
from toolkit.build.mixing import indistinct_views
from toolkit.build.plan import Plan
from toolkit.build.teacher import open_network
from toolkit.data.loader import batches_in
from toolkit.recipe.read import invalid
from toolkit.recipe.tables import TrainTable
from toolkit.system import device as devices
from toolkit.training.network import Network, feature_size
from toolkit.training.optimize import model_parts, parameter_groups, trained_parts

META, CPU = torch.device("meta"), torch.device("cpu")
EXAMPLE = 1 << 20
"""Values of a parameter that shows how much an optimizer keeps."""
WEIGHTS = frozenset({".pt", ".pth", ".ckpt", ".safetensors"})
"""Usual suffixes of files of weights."""
FLOAT = 4
"""Bytes of a weight: weights and the optimizer's state stay float32."""


@dataclass(frozen=True)
class Rehearsal:
    """What is known of a run's model before it is trained."""

    parameters: int
    trained: int
    """Of them, those that require a gradient."""
    state_bytes: int | None
    """What the optimizer keeps next to the weights; None where that is known only on the device."""

    @property
    def bytes(self) -> int:
        """Of weights, gradients and what is known of the optimizer's state; activations come on top."""
        return FLOAT * (self.parameters + self.trained) + (self.state_bytes or 0)


def rehearse(plan: Plan, data: Data) -> Rehearsal:
    """Build what a run of `plan` on `data` builds, without initial weights.

    Raises RecipeError with every problem found: what factories refuse for this size and number of frames, and where
    parts of the recipe disagree. Raises PluginError where a component cannot be built.
    """
    found: list[RecipeError] = []
    network: Network | None = None
    with _collected(found):
        _check_weights(plan)
    with _collected(found):
        network = _network(plan, data.spec)
    with _collected(found):
        objective = _objective(plan, data, network)
    with _collected(found):
        augmentations = plan.augmentations(data.spec)
    with _collected(found):
        plan.metrics(data.spec)
    with _collected(found):
        schedule = _schedule(plan, data)
    if network and not found:
        problems = [*_absent(plan), *_problems(plan, data, network, objective, schedule)]
        task, names = plan.resolved.task.name, [use.name for use in plan.resolved.augment]
        problems += indistinct_views(task, objective, names, augmentations, data.spec)
        if problems:
            found.append(invalid(plan.source, problems))
        with _collected(found):
            described = _described(plan, network)
    if network and not found:
        return described
    if len(found) == 1:
        raise found[0]
    raise invalid(plan.source, [problem for error in found for problem in error.problems])


def _check_weights(plan: Plan) -> None:
    """What is plainly a path of weights must lead somewhere; the file is read when a run starts."""
    weights = Path(str(plan.one("model").args.get("weights", "")))
    is_there = weights.is_file() or weights.is_dir()  # a device is neither
    if (weights.is_absolute() or weights.suffix in WEIGHTS) and not is_there:
        raise invalid(plan.source, [Problem("model.weights", f"{weights}: no such run or weights file")])


def _absent(plan: Plan) -> Iterator[Problem]:
    """The device of the recipe, or its precision, where this machine does not have it."""
    table = plan.resolved.train
    try:
        devices.choose_precision(table.precision, devices.choose_device(table.device))
    except devices.Unavailable as error:
        yield error.problem


@contextmanager
def _collected(found: list[RecipeError]) -> Iterator[None]:
    try:
        yield
    except RecipeError as error:
        found.append(error)


def _network(plan: Plan, spec: DataSpec) -> Network:
    """The network on the meta device; on the CPU where a part of it needs numbers."""
    failed = plan.one("model").offer.failed
    # What fails here alone is a limit of the meta device, and no fault of the model: it is built again below.
    with suppress(Exception):
        network = _built(plan, spec, META)
        check_answers(network, spec, META, failed)
        return network
    network = _built(plan, spec, CPU)
    check_answers(network, spec, CPU, failed)
    return network


def _built(plan: Plan, spec: DataSpec, device: torch.device) -> Network:
    with device:
        return Network(plan.model(spec, initial_weights=False), spec)


def _objective(plan: Plan, data: Data, network: Network | None) -> Objective:
    """Where the model could not be built, features have any size."""
    objective = plan.objective(
        data.spec,
        data.train.targets,
        CPU,
        network_of=partial(open_network, plan, data.spec, CPU),
        feature_size=partial(feature_size, network, data.spec) if network else lambda: 1,
    )
    if network:
        check_objective(objective, network, data.spec, CPU, plan.one("task").offer.failed)
    return objective


def _schedule(plan: Plan, data: Data) -> Schedule:
    horizon = Horizon(batches_in(_items(data), plan.resolved.train.batch_size), plan.resolved.train.epochs)
    schedule: Schedule = plan.one("schedule").build(horizon, plan.resolved.train.direction)
    return schedule


def _items(data: Data) -> int:
    """Items of a training epoch."""
    return len(data.train) * (data.spec.clip.clips_per_video if data.spec.clip else 1)


def _problems(plan: Plan, data: Data, network: Network, objective: Objective, schedule: Schedule) -> Iterator[Problem]:
    recipe = plan.resolved
    validates = len(data.valid) > 0
    yield from disagreements(
        recipe,
        data.spec,
        parts=trained_parts(network.model, objective),
        objective=objective,
        metrics=plan.metrics(data.spec),
        schedule=schedule,
        validates=validates,
        model=network.model,
    )
    yield from unknown_aims(recipe, data.spec, objective, plan.metrics(data.spec))
    yield from _alone(recipe.train, data, network)


def _alone(train: TrainTable, data: Data, network: Network) -> Iterator[Problem]:
    """Whether the model refuses to train on one item, as batch norm may, where a step has such a part."""
    batch = min(train.batch_size, _items(data))
    if batch // min(train.accumulate, batch) > 1:
        return
    device = next((one.device for one in network.parameters()), META)
    try:
        with torch.no_grad():
            network.train()(torch.zeros((1, *data.spec.item_shape), dtype=torch.uint8, device=device))
    except ValueError as error:
        cause = f"a step trains on one item at a time, which the model refuses ({error})"
        yield Problem("train.batch", f"{cause}: use a larger batch, a smaller train.accumulate, or more training items")
    except RuntimeError:  # the meta device cannot train this model; a run can
        return


def _described(plan: Plan, network: Network) -> Rehearsal:
    counts = [(one.numel(), one.requires_grad) for one in network.parameters()]
    trained = sum(count for count, wanted in counts if wanted)
    return Rehearsal(sum(count for count, _ in counts), trained, _state_bytes(plan, network))


def _state_bytes(plan: Plan, network: Network) -> int | None:
    """About how many bytes the optimizer keeps, as the step of one parameter of each group shows; None where it cannot
    step on the CPU. Raises RecipeError where it refuses its arguments."""
    table, chosen = plan.resolved.train.optimizer, plan.one("optimizer")
    scales = {name: rates.lr_scale for name, rates in table.parts.items()}
    # Memory that nobody writes to costs nothing.
    parts = model_parts(network.to_empty(device=CPU).model)
    groups = list(parameter_groups(parts, table.lr, scales, decay_norms_and_biases=table.decay_norms_and_biases))
    optimizer: torch.optim.Optimizer = chosen.build(groups, lr=table.lr)
    examples = [_example(group["params"]) for group in optimizer.param_groups]
    for example in examples:
        if example is not None:
            example.grad = torch.zeros_like(example)
    try:
        optimizer.step()
    except Exception:  # it has other kernels on the device of the run
        return None
    total = 0.0
    for group, example in zip(optimizer.param_groups, examples, strict=True):
        if example is not None:
            total += sum(one.nbytes for one in group["params"] if one.requires_grad) * _share(optimizer, example)
    return round(total)


def _example(parameters: Sequence[nn.Parameter]) -> nn.Parameter | None:
    """The largest of the parameters that can be stepped at once."""
    trained = [one for one in parameters if one.requires_grad]
    small = [one for one in trained if one.numel() <= EXAMPLE]
    return max(small, key=torch.numel) if small else min(trained, key=torch.numel, default=None)


def _share(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> float:
    """Bytes of state for each byte of the parameter."""
    kept = (value for value in optimizer.state[parameter].values() if isinstance(value, torch.Tensor))
    return sum(value.nbytes for value in kept) / parameter.nbytes
