"""A soup: one model whose weights are the mean of those of several runs (Wortsman et al. 2022, arXiv 2203.05482)."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from toolkit.api.errors import UsageError, first_few
from toolkit.recipe.write import to_toml
from toolkit.runs.compare.contender import flattened
from toolkit.runs.directory import RunDirectory, created, existing
from toolkit.runs.evaluation import Scored, keep_evaluation, run_facts, score_splits
from toolkit.runs.files import read_run
from toolkit.runs.latest import point_at
from toolkit.runs.reopen import open_trained
from toolkit.runs.scores import score_text
from toolkit.system import device as devices
from toolkit.system.notices import say
from toolkit.training.checkpoint import BestCheckpoint

SUFFIX = "-soup"
"""Ends the name of the folder of a recipe's soups."""
FREE = ("augment", "metrics", "trackers", "export", "tune", "name", "seed", "train")
"""Tables and keys in which runs may differ: how weights were reached, not what they are weights of."""


@devices.enough_memory()
def make_soup(runs: Sequence[Path], *, into: Path, console: Console) -> RunDirectory:
    """A run below `into` with the mean weights of the best checkpoints of these runs, scored as they are.

    Raises UsageError where there are fewer than two runs, or runs of unlike models, data or tasks; CheckpointError
    where one cannot be read.
    """
    directories = [existing(path) for path in runs]
    _require_several(directories)
    checkpoints = [BestCheckpoint.load(run.best) for run in directories]
    _require_alike(directories, checkpoints)
    trained = open_trained(directories[0].path, ())
    assembly = trained.assembly
    network = mean_weights([one.network for one in checkpoints])
    objective = mean_weights([one.objective for one in checkpoints])
    remark = f"the mean weights of {len(runs)} runs: {', '.join(run.path.name for run in directories)}"
    mixed = replace(checkpoints[0], network=network, objective=objective)
    mixed.restore(assembly.network, assembly.objective, directories[0].best)
    scored = Scored.of_run(assembly, [remark])
    with created(into, f"{assembly.recipe.name}{SUFFIX}") as directory:
        evaluated = score_splits(assembly, scored, 0)
        valid = evaluated.answers["valid"].scalars() if "valid" in evaluated.answers else {}
        origin = replace(mixed.origin, notes=[*mixed.origin.notes, remark])
        directory.write_text(directory.recipe, to_toml(assembly.recipe))
        directory.write_json(directory.environment, assembly.environment())
        directory.write_text(directory.summary, assembly.summary.table)
        replace(mixed, origin=origin, epoch=0, valid=valid).save(directory.best)
        point_at(directory.path, into)
        keep_evaluation(directory, evaluated, run_facts(scored, assembly, directory), console)
    for line in _against(directories, evaluated.split or "", evaluated.scores):
        say(line, console)
    return directory


def mean_weights(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of each tensor, in float64 and back in its own type; counts and values that are no tensors are those of
    the first. All have the same names and shapes."""
    found: dict[str, Any] = {}
    for name, value in states[0].items():
        averaged = isinstance(value, Tensor) and value.is_floating_point()
        same = [state[name] for state in states]
        found[name] = torch.stack([one.double() for one in same]).mean(0).to(value.dtype) if averaged else value
    return found


def _require_several(runs: Sequence[RunDirectory]) -> None:
    named = [*{run.path.resolve(): str(run.path) for run in runs}.values()]
    if len(named) < len(runs):
        others = ["RUN"] if len(named) == 1 else []
        raise UsageError("soup: a run is named twice", next_step=_command([*named, *others]))
    if len(runs) < 2:
        repeated = shlex.join(["python", "-m", "toolkit", "run", str(runs[0].recipe), "--seeds", "3"])
        raise UsageError("soup: needs two runs or more", next_step=f"train some that differ in the seed: {repeated}")


def _require_alike(runs: Sequence[RunDirectory], checkpoints: Sequence[BestCheckpoint]) -> None:
    """Raise UsageError where a run's weights mean something else than those of the first."""
    first = checkpoints[0]
    for run, one in zip(runs[1:], checkpoints[1:], strict=True):
        if unlike := list(_unlike(first, one)):
            raise UsageError(
                f"soup: {run.path} differs from {runs[0].path} in {first_few(unlike)}",
                next_step=f"name runs of one model on one dataset: {_command([str(runs[0].path), 'RUN'])}",
            )


def _unlike(first: BestCheckpoint, other: BestCheckpoint) -> Iterator[str]:
    tables = [flattened(tomllib.loads(one.origin.recipe)) for one in (first, other)]
    for key in dict.fromkeys(key for table in tables for key in table):
        if key.partition(".")[0] not in FREE and tables[0].get(key) != tables[1].get(key):
            yield key
    if first.origin.classes != other.origin.classes:
        yield "classes"
    if first.origin.protocol != other.origin.protocol:
        yield "splits"
    for mine, theirs in ((first.network, other.network), (first.objective, other.objective)):
        if _shapes(mine) != _shapes(theirs):
            yield "shapes of weights"


def _shapes(state: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value.shape if isinstance(value, Tensor) else None for name, value in state.items()}


def _against(runs: Sequence[RunDirectory], split: str, scores: Mapping[str, Any]) -> Iterator[str]:
    """How the soup and its runs score on the watched metric."""
    read = [read_run(run.path) for run in runs]
    metric = str(read[0].tables["train"].get("metric", "accuracy"))
    own = scores.get(split, {}).get(metric)
    values = {run.directory.path.name: run.scores.get(split, {}).get(metric) for run in read}
    if own is not None and all(value is not None for value in values.values()):
        listed = ", ".join(f"{name} {score_text(metric, value)}" for name, value in values.items())
        yield f"{split} {metric}: the soup {score_text(metric, own)}; its runs {listed}"


def _command(words: Sequence[str]) -> str:
    return shlex.join(["python", "-m", "toolkit", "soup", *words])
