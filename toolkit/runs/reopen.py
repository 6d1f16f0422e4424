"""A trained run opened again: its best checkpoint in its model, on its own data or other data with the same classes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.api.contracts import Pretraining
from toolkit.api.errors import CheckpointError, UsageError
from toolkit.build.assemble import Assembly, assemble
from toolkit.build.batch_size import with_batch
from toolkit.build.plan import Plan, plan
from toolkit.host.registry import discover
from toolkit.recipe.kinds import KINDS
from toolkit.recipe.read import parse
from toolkit.runs.directory import RunDirectory, existing
from toolkit.training.checkpoint import BestCheckpoint


@dataclass(frozen=True)
class Trained:
    """A run's assembly with the weights of its best checkpoint."""

    directory: RunDirectory
    assembly: Assembly
    best_epoch: int
    digest: str
    """Of the recipe it was trained by."""


def open_trained(path: Path, overrides: Sequence[str]) -> Trained:
    """The run at `path` with its best weights, on other data where `overrides` says so. Raises CheckpointError where
    they do not fit."""
    run = existing(path)
    ended = run.best.exists() or (run.records.exists() and run.records.stat().st_size > 0)
    if run.last.exists() and not ended:
        raise CheckpointError(
            f"{run.best}: not there yet: no epoch of this run has ended", next_step=run.resume_command
        )
    best = BestCheckpoint.load(run.best)  # before the recipe, which another version of the toolkit may not know
    planned = planned_again(run, None, overrides)
    assembly = assemble(planned, notes=best.origin.notes)
    known, found = best.origin.classes, assembly.spec.classes
    if known != list(found):
        raise CheckpointError(
            f"{run.best}: knows the classes {', '.join(known)}; the data has {', '.join(found)}",
            next_step="evaluate on data with the same classes",
        )
    best.restore(assembly.network, assembly.objective, run.best)
    return Trained(run, assembly, best.epoch, best.origin.digest)


def open_answering(path: Path, overrides: Sequence[str]) -> Trained:
    """As `open_trained`. Raises UsageError for a run that has learned features and no answers."""
    trained = open_trained(path, overrides)
    if isinstance(trained.assembly.objective, Pretraining):
        raise UsageError(
            f'{path}: has no answers: task "{trained.assembly.recipe.task.name}" has learned features without labels',
            next_step=f"learn answers from them: {fine_tune_command(trained.directory, trained.assembly)}",
        )
    return trained


def fine_tune_command(directory: RunDirectory, assembly: Assembly) -> str:
    """The command that trains the usual task on the features that a run has pretrained: on its data, or where that has
    no labels on other data."""
    usual = KINDS["task"].usual[0]
    labelled = [] if assembly.spec.labelled else ["data.labels=one", "data.root=FOLDER"]
    overrides = [f"task={{name='{usual}'}}", f"model.weights={directory.path}", *labelled]
    words = [word for override in overrides for word in ("--set", override)]
    return shlex.join(["python", "-m", "toolkit", "run", str(directory.recipe), *words])


def planned_again(directory: RunDirectory, recipe: Path | None, overrides: Sequence[str]) -> Plan:
    """The plan of a run's recipe, or of `recipe` in its place, under the run's own name; a batch that was chosen stays
    as it is."""
    planned = plan(parse(recipe or directory.recipe, overrides, name=directory.recipe_name), discover())
    if planned.resolved.train.batch != "auto":
        return planned
    own = plan(parse(directory.recipe, [], name=directory.recipe_name), discover())
    return with_batch(planned, own.resolved.train.batch_size)
