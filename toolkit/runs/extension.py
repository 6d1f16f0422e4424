"""More epochs than a run's recipe asks for: exact where no learning rate so far depends on the number of epochs."""

from __future__ import annotations

import inspect
import shlex
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace

from toolkit.api.contracts import EpochRecord, Schedule
from toolkit.api.errors import CheckpointError, UsageError, counted
from toolkit.build.assemble import Assembly, schedule_over
from toolkit.build.featuring import training_of_run
from toolkit.build.kept import Kept
from toolkit.build.plan import Plan
from toolkit.recipe.tables import Recipe
from toolkit.recipe.write import digest
from toolkit.runs.continued import assembled_again, require_same_recipe
from toolkit.runs.directory import RunDirectory
from toolkit.runs.loop import Prepared, stale
from toolkit.system.ranks import ALONE, Ranks
from toolkit.training.checkpoint import BestCheckpoint, LastCheckpoint
from toolkit.training.fit import watched
from toolkit.training.stages import Stages
from toolkit.training.state import Setup, State

EPOCHS = "train.epochs"


def extended(directory: RunDirectory, planned: Plan, saved: LastCheckpoint, ranks: Ranks = ALONE) -> Prepared:
    """The run in `directory`, to be trained to the number of epochs of `planned`, which its recipe and its checkpoints
    then say.

    Raises CheckpointError where it would not become the run that so many epochs from the start give, UsageError where
    it has as many already.
    """
    prepared = _checked(directory, planned, saved, ranks)
    longer = replace(saved, origin=prepared.assembly.origin())
    if ranks.leads:
        _record(directory, longer)
    return replace(prepared, saved=longer)


def offer_extension(directory: RunDirectory, planned: Plan, saved: LastCheckpoint, overrides: Sequence[str]) -> None:
    """Raise an error that says how to extend the run where `planned` has more epochs and differs in nothing else, or
    where an earlier extension was cut short before the run's recipe said so."""
    asked, before = planned.resolved.train.epochs, _epochs_in(saved.origin.recipe)
    if asked == before or digest(_with_epochs(planned.resolved, before)) != saved.origin.digest:
        return
    if asked < before:
        if _epochs_in(directory.read_text(directory.recipe)) < before:
            message = f"{directory.path}: its extension to {before} epochs was cut short"
            raise CheckpointError(message, next_step=f"{directory.resume_command} --extend {before}")
        return
    _checked(directory, planned, saved)
    others = [text for text in overrides if text.partition("=")[0].strip() != EPOCHS]
    raise CheckpointError(
        f"{EPOCHS}: a run is extended by --extend, which also records it",
        next_step=shlex.join([*shlex.split(directory.resume_command), "--extend", str(asked), *_set(others)]),
    )


def extensible(assembly: Assembly, state: State, setup: Setup, epochs: int) -> bool:
    """Whether a run that has ended may be trained to `epochs` epochs."""
    ended_early = stale(state, assembly.recipe.train.patience)
    other_stage = _changed_stage(setup.stages, epochs, state.epoch)
    return not ended_early and not other_stage and _changed_past(assembly, setup, state.records, 0, epochs) is None


def from_weights(directory: RunDirectory, plan: Plan, epochs: int) -> str | None:
    """The command that trains a new run from this run's weights; None where its model takes no weights."""
    if "weights" not in inspect.signature(plan.one("model").factory).parameters:
        return None
    overrides = (f"model.weights={directory.path}", f"{EPOCHS}={epochs}")
    return shlex.join([*_run_again(directory), *_set(overrides)])


def _checked(directory: RunDirectory, planned: Plan, saved: LastCheckpoint, ranks: Ranks = ALONE) -> Prepared:
    """The run by its longer recipe, with a note that says so."""
    before, after = _epochs_in(saved.origin.recipe), planned.resolved.train.epochs
    # A process may have been killed between the two writes of `_record`.
    half_recorded = before == after != _epochs_in(directory.read_text(directory.recipe))
    require_same_recipe(directory, saved, _with_epochs(planned.resolved, before))
    if after <= before and not half_recorded:
        raise UsageError(
            f"--extend {after}: this run trains to epoch {before} already", next_step=directory.resume_command
        )
    state = saved.state
    at = f"epoch {state['epoch']}" + (f", step {state['step']}" if state["step"] else "")
    notes = [] if half_recorded else [f"extended from {before} to {after} epochs at {at}"]
    assembly = assembled_again(directory, planned, saved, Kept(), ranks, notes=notes)
    prepared = Prepared(directory, assembly, *training_of_run(assembly), saved)
    _require_same_past(prepared, saved, before)
    return prepared


def _record(directory: RunDirectory, longer: LastCheckpoint) -> None:
    """Write the longer recipe into the run: the checkpoints first, for resuming compares their recipe with the run's.
    Scores so far are those of a run that has ended, which this one no longer is."""
    if directory.best.exists():
        replace(BestCheckpoint.load(directory.best), origin=longer.origin).save(directory.best)
    longer.save(directory.last)
    directory.write_text(directory.recipe, longer.origin.recipe)
    with directory.explained():
        directory.scores.unlink(missing_ok=True)
        directory.predictions.unlink(missing_ok=True)


def _require_same_past(prepared: Prepared, saved: LastCheckpoint, before: int) -> None:
    """Raise CheckpointError where the run's past differs from that of a run with more epochs from the start."""
    directory, assembly, setup = prepared.directory, prepared.assembly, prepared.setup
    records = [EpochRecord(**record) for record in saved.state["records"]]
    table = assembly.recipe.train
    behind, best = saved.state["epoch"], saved.state["best_epoch"]
    if table.patience is not None and best and behind - best >= table.patience:
        raise CheckpointError(
            f"{directory.path}: cannot be extended: it stopped early at epoch {behind}, after "
            f"{counted(table.patience, 'epoch')} without a better {table.metric} (train.patience)",
            next_step=_start_again(directory, assembly.plan, behind, f"train.patience={2 * table.patience}"),
        )
    if _changed_stage(setup.stages, before, behind + bool(saved.state["step"])):
        raise CheckpointError(
            f"{directory.path}: cannot be extended from {before} to {table.epochs} epochs: train.fixres has trained "
            "the last epochs at another size",
            next_step=_start_again(directory, assembly.plan, behind),
        )
    changed = _changed_past(assembly, setup, records, saved.state["step"], before)
    if changed is not None:
        raise CheckpointError(
            f'{directory.path}: cannot be extended from {before} to {table.epochs} epochs: "{table.schedule.name}" '
            f"sets learning rates by the number of epochs: {changed}",
            next_step=_start_again(directory, assembly.plan, behind),
        )


def _start_again(directory: RunDirectory, plan: Plan, behind: int, *overrides: str) -> str:
    """The command for a new run: from this run's weights where its model takes weights, else from the start."""
    epochs = plan.resolved.train.epochs
    command = from_weights(directory, plan, max(epochs - behind, 1))
    again = shlex.split(command) if command else [*_run_again(directory), *_set([f"{EPOCHS}={epochs}"])]
    return shlex.join([*again, *_set(overrides)])


def _run_again(directory: RunDirectory) -> list[str]:
    return ["python", "-m", "toolkit", "run", str(directory.recipe)]


def _changed_stage(stages: Stages, epochs: int, behind: int) -> bool:
    """Whether the first `behind` epochs of a training of `epochs` epochs train something else."""
    other = replace(stages, epochs=epochs)
    return any(other.of(epoch) != stages.of(epoch) for epoch in range(behind))


def _changed_past(
    assembly: Assembly, setup: Setup, records: Sequence[EpochRecord], steps: int, epochs: int
) -> str | None:
    """Where the schedule over `epochs` epochs, and that of the recipe, differ in the epochs of `records` and `steps`
    steps after them; None where they do not."""
    one, other = schedule_over(assembly, epochs), schedule_over(assembly, assembly.recipe.train.epochs)
    for record in records:
        first = (record.epoch - 1) * setup.steps
        if (changed := _first_difference(one, other, range(first, first + setup.steps))) is not None:
            return changed
        if (score := watched(dict(record.valid), setup.metric)) is not None:
            one.observe(score)
            other.observe(score)
    begun = len(records) * setup.steps
    if (changed := _first_difference(one, other, range(begun, begun + steps))) is not None:
        return changed
    return None if repr(one.state_dict()) == repr(other.state_dict()) else "its state after the past scores differs"


def _first_difference(one: Schedule, other: Schedule, steps: range) -> str | None:
    for step in steps:
        factors = one.factor(step), other.factor(step)
        if factors[0] != factors[1]:
            return f"at step {step + 1:,} the factor was {factors[0]:.6g} instead of {factors[1]:.6g}"
    return None


def _epochs_in(recipe: str) -> int:
    epochs: int = tomllib.loads(recipe)["train"]["epochs"]
    return epochs


def _with_epochs(recipe: Recipe, epochs: int) -> Recipe:
    tables = recipe.tables()
    tables["train"]["epochs"] = epochs
    return recipe.replace(tables)


def _set(overrides: Sequence[str]) -> Iterator[str]:
    for text in overrides:
        yield from ("--set", text)
