"""A run: train, evaluate and report what a recipe says, in a directory that survives anything."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rich.console import Console

from toolkit.api.contracts import EpochRecord, RunFinished, RunStarted
from toolkit.api.errors import CheckpointError, Stopped
from toolkit.build.assemble import Assembly, assemble, training
from toolkit.build.kept import Kept
from toolkit.build.plan import Plan, plan
from toolkit.host.registry import discover
from toolkit.recipe.draft import Draft
from toolkit.recipe.tables import Recipe
from toolkit.recipe.write import digest, to_toml
from toolkit.runs.directory import EVALUATIONS, RunDirectory, create, created, existing
from toolkit.runs.evaluation import Scored, keep_evaluation, keep_file_problems, run_facts, run_scores, score_splits
from toolkit.runs.files import write_records
from toolkit.runs.loop import Records, Saving, Session, Trackers, train
from toolkit.runs.reopen import open_trained, planned_again
from toolkit.runs.sheets import draw_pictures
from toolkit.system import device as devices
from toolkit.system.notices import note
from toolkit.system.signals import Signalled, Signals, exit_code
from toolkit.training.checkpoint import BestCheckpoint, LastCheckpoint, Origin
from toolkit.training.evaluate import scored_splits
from toolkit.training.state import Setup, State

__all__ = ["evaluate_run", "resume_run", "start_run", "train_run"]


@devices.enough_memory()
def start_run(draft: Draft, *, runs: Path, console: Console) -> RunDirectory:
    """Train what the recipe says in a new directory under `runs`."""
    assembly = assemble(plan(draft, discover()))
    state, setup = training(assembly)  # first: a recipe that cannot be trained leaves no directory
    directory = create(runs, assembly.recipe.name)
    with directory.locked():
        _complete(Prepared(directory, assembly, state, setup, saved=None), console)
    return directory


@devices.enough_memory()
def resume_run(path: Path, *, recipe: Path | None, overrides: Sequence[str], console: Console) -> RunDirectory:
    """Go on with a run from its last checkpoint, to the same end as if it had never stopped.

    `recipe`, where given, must say the same as the run's own, and the data must be the same. Raises CheckpointError
    otherwise.
    """
    directory = existing(path)
    _require_training(directory)
    with directory.locked():  # before its checkpoint is read: who works on it may be about to save another
        saved = _saved(directory)  # before its recipe is read, which another version of the toolkit may not know
        _complete(_reopened(directory, planned_again(directory, recipe, overrides), saved, Kept()), console)
    return directory


def train_run(planned: Plan, directory: RunDirectory, *, kept: Kept, signals: Signals) -> Records:
    """Train what the recipe says in `directory`, which the caller has locked, going on from its checkpoint where it
    has one; yields the records of all epochs, the earlier ones too. `kept` is what this process keeps for its next run.

    Leaves checkpoints and records but no scores and no report: `resume_run` adds them. Shows nothing but what is wrong
    with a tracker, on standard error. Closing the generator ends training early; an error thrown into it, or its own,
    is what trackers see the run end by.
    """
    prepared = _reopened(directory, planned, _saved(directory), kept)
    if prepared.saved:
        yield from (EpochRecord(**record) for record in prepared.saved.state["records"])
    session = _begin(prepared, Console(quiet=True), signals)
    try:
        yield from train(prepared.state, prepared.setup, session, patience=planned.resolved.train.patience)
        # the best checkpoint is not evaluated again: its epoch's scores stand for it
        best = prepared.state.records[prepared.state.best_epoch - 1]
        scores = run_scores(prepared.scored, {"valid": best.valid}, best.epoch)
        session.trackers.track(RunFinished(scores, directory.path))
    finally:
        session.trackers.close()


@devices.enough_memory()
def evaluate_run(path: Path, overrides: Sequence[str], *, console: Console) -> RunDirectory:
    """Score a run's best checkpoint anew, on other data where `overrides` says so.

    Leaves scores, predictions, facts, environment, a recipe and a report in a directory of its own below the run's.
    Raises DataError, and writes nothing, where the data has no split to score.
    """
    trained = open_trained(path, overrides)
    assembly = trained.assembly
    scored_splits(assembly.data, dataset=assembly.recipe.data.name, scored=path)
    scored = Scored.of_run(assembly)
    _show(assembly, scored, console)
    with created(trained.directory.path, EVALUATIONS) as directory:
        evaluated = score_splits(assembly, scored, trained.best_epoch)
        directory.write_text(directory.recipe, to_toml(assembly.recipe))
        directory.write_json(directory.environment, assembly.environment())
        facts = run_facts(scored, assembly, directory)
        facts["changed"] = {
            **trained.directory.read_json(trained.directory.facts).get("changed", {}),
            **facts["changed"],
        }
        facts["notes"] = [f"scores of {trained.directory.best}, evaluated anew", *facts["notes"]]
        keep_evaluation(directory, evaluated, facts, console)
    return directory


@dataclass(frozen=True)
class Prepared:
    """A run whose recipe is built, ready to be trained."""

    directory: RunDirectory
    assembly: Assembly
    state: State
    setup: Setup
    saved: LastCheckpoint | None
    """Where its training stands; None where it has not begun."""

    @cached_property
    def scored(self) -> Scored:
        return Scored.of_run(self.assembly)


def _saved(directory: RunDirectory) -> LastCheckpoint | None:
    return LastCheckpoint.load(directory.last) if directory.last.exists() else None


def _reopened(directory: RunDirectory, planned: Plan, saved: LastCheckpoint | None, kept: Kept) -> Prepared:
    """The run in `directory`. Raises CheckpointError where it was trained by another recipe or on other data."""
    if saved is None:
        assembly = assemble(planned, kept)
    else:
        _same_recipe(directory, saved, planned.resolved)
        # training goes on in the precision that it began in, which another device would not choose
        assembly = assemble(planned, kept, notes=saved.origin.notes, precision=saved.origin.precision)
        _same_data(directory, saved, assembly)
    return Prepared(directory, assembly, *training(assembly), saved)


def _complete(prepared: Prepared, console: Console) -> None:
    """Train a run to its end, score its best checkpoint and report. A signal ends it with the command that resumes."""
    directory, assembly = prepared.directory, prepared.assembly
    with Signals() as signals:
        try:
            console.print(f"run {directory.path}", markup=False, soft_wrap=True)
            _show(assembly, prepared.scored, console)
            session = _begin(prepared, console, signals)
            try:
                for _ in train(prepared.state, prepared.setup, session, patience=assembly.recipe.train.patience):
                    pass
                _finish(prepared, session)
            finally:
                session.trackers.close()
        except Signalled as signal:
            raise Stopped(
                f"stopped by a signal; {directory.path} holds the last checkpoint",
                exit_code=exit_code(signals.received or signal.number),
                next_step=directory.resume_command,
            ) from signal


def _begin(prepared: Prepared, console: Console, signals: Signals) -> Session:
    """Bring the state to where the checkpoint stands, or write what a new run starts with."""
    directory, assembly, state = prepared.directory, prepared.assembly, prepared.state
    skipped = {name: loader.pixels.skipped for name, loader in assembly.loaders().items()}
    saving = Saving(directory, origin_of(assembly), assembly.recipe.train.checkpoint_minutes, skipped)
    if prepared.saved:
        state.load_state_dict(prepared.saved.state)
        for name, items in prepared.saved.skipped.items():
            skipped[name].update(items)
    else:
        directory.write_text(directory.recipe, to_toml(assembly.recipe))
        console.print(assembly.summary.short, markup=False, highlight=False, soft_wrap=True)
        directory.write_text(directory.summary, assembly.summary.full)
        directory.write_json(directory.environment, assembly.environment())
        saving.save_last(state)  # shows early whether the disk takes a checkpoint
    facts = run_facts(prepared.scored, assembly, directory)
    directory.write_json(directory.facts, facts)
    keep_file_problems(directory, prepared.scored, console)
    write_records(directory, state.records)
    trackers = Trackers(assembly.plan.trackers(directory.path), None if console.quiet else console)
    trackers.track(RunStarted(assembly.recipe.tables(), facts))
    return Session(saving, trackers, console, signals)


def _finish(prepared: Prepared, session: Session) -> None:
    """Score the best checkpoint and report."""
    directory, assembly = prepared.directory, prepared.assembly
    best = BestCheckpoint.load(directory.best)
    assembly.network.load_state_dict(best.network)
    assembly.objective.load_state_dict(best.objective)
    evaluated = score_splits(assembly, prepared.scored, best.epoch)
    with directory.explained():
        draw_pictures(directory, assembly, prepared.setup.augmentations, evaluated)
    keep_evaluation(directory, evaluated, run_facts(prepared.scored, assembly, directory), session.console)
    session.trackers.track(RunFinished(evaluated.scores, directory.path))
    for viewer in session.trackers.viewers:
        session.console.print(f"view {viewer}", markup=False, highlight=False, soft_wrap=True)


def _require_training(directory: RunDirectory) -> None:
    """Raise CheckpointError for a directory of scores alone, as `evaluate` leaves: training would begin anew there."""
    has_scores = directory.facts.exists()
    if directory.last.exists() or directory.best.exists() or not has_scores:
        return
    run = RunDirectory(directory.path.resolve().parent.parent)
    anew = f"python -m toolkit run {shlex.quote(str(directory.recipe))}"
    raise CheckpointError(
        f"{directory.path}: holds scores of a run, and nothing to go on from",
        next_step=run.resume_command if run.last.exists() else anew,
    )


def origin_of(assembly: Assembly) -> Origin:
    return Origin(
        recipe=to_toml(assembly.recipe),
        digest=digest(assembly.recipe),
        classes=list(assembly.spec.classes),
        sample=assembly.spec.sample,
        protocol=dict(assembly.data.protocol),
        notes=list(assembly.model_notes),
        precision=assembly.precision,
    )


def _same_recipe(directory: RunDirectory, saved: LastCheckpoint, recipe: Recipe) -> None:
    if saved.origin.digest != digest(recipe):
        raise CheckpointError(
            f"{directory.last}: belongs to another recipe than {directory.recipe} with these overrides",
            next_step=f"resume without overrides: {directory.resume_command}",
        )


def _same_data(directory: RunDirectory, saved: LastCheckpoint, assembly: Assembly) -> None:
    now = origin_of(assembly)
    changed = [key for key in ("classes", "sample", "protocol") if getattr(saved.origin, key) != getattr(now, key)]
    if changed:
        raise CheckpointError(
            f"{directory.last}: was trained on other data: its {' and '.join(changed)} differ from what is found now",
            next_step=f"say where the run's own data lies: {directory.resume_command} --set data.root=FOLDER",
        )


def _show(assembly: Assembly, scored: Scored, console: Console) -> None:
    items = ", ".join(f"{name} {len(loader.pixels):,}" for name, loader in assembly.loaders().items())
    clips = f", clips of {scored.seen['frames']}, {scored.seen['views']}" if assembly.spec.clip else ""
    console.print(
        f"data {assembly.recipe.data.name}: {len(assembly.spec.classes)} classes, {items} items, "
        f"{assembly.spec.size} px{clips}",
        markup=False,
        soft_wrap=True,
    )
    console.print(f"on {devices.describe(assembly.device)}, {assembly.precision}", markup=False)
    for text in scored.screen_notes():
        note(text, console)
