"""A run: train, evaluate and report what a recipe says, in a directory that survives anything."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

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
from toolkit.runs.evaluation import Evaluated, Scored, evaluate_splits, keep_evaluation, run_facts
from toolkit.runs.files import write_records
from toolkit.runs.loop import Saving, Trackers, train
from toolkit.runs.reopen import open_trained, planned_again
from toolkit.runs.screen import Screen, note
from toolkit.runs.sheets import draw_pictures
from toolkit.system import device as devices
from toolkit.system.signals import Signalled, Signals, exit_code
from toolkit.training.checkpoint import BestCheckpoint, LastCheckpoint, Origin
from toolkit.training.evaluate import Evaluation, scored_splits
from toolkit.training.state import Setup, State

__all__ = ["Records", "evaluate_run", "resume_run", "start_run", "train_run"]

Records: TypeAlias = Generator[EpochRecord, None, None]


@devices.enough_memory()
def start_run(draft: Draft, *, runs: Path, console: Console) -> RunDirectory:
    """Train what the recipe says in a new directory under `runs`."""
    assembly = assemble(plan(draft, discover()))
    prepared = training(assembly)
    directory = create(runs, assembly.recipe.name)
    with directory.locked():
        _guarded(directory, lambda signals: _run(assembly, prepared, directory, signals, console, None))
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
        _resume(directory, planned_again(directory, recipe, overrides), console)
    return directory


def _resume(directory: RunDirectory, planned: Plan, console: Console) -> None:
    saved = LastCheckpoint.load(directory.last) if directory.last.exists() else None
    if saved:
        _same_recipe(directory, saved, planned.resolved)
    assembly = _assembled(planned, saved, Kept())
    if saved:
        _same_data(directory, saved, assembly)
    prepared = training(assembly)
    _guarded(directory, lambda signals: _run(assembly, prepared, directory, signals, console, saved))


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
    _show(console, assembly, scored)
    with created(trained.directory.path, EVALUATIONS) as directory:
        answers = evaluate_splits(assembly, batch=assembly.recipe.train.eval_batch or assembly.recipe.train.batch)
        directory.write_text(directory.recipe, to_toml(assembly.recipe))
        directory.write_json(directory.environment, assembly.environment())
        facts = run_facts(scored, assembly, directory)
        facts["notes"] = [f"scores of {trained.directory.best}, evaluated anew", *facts["notes"]]
        evaluated = Evaluated(scored, answers, _scores(scored, answers, trained.best_epoch))
        keep_evaluation(directory, evaluated, facts, console)
    return directory


def _guarded(directory: RunDirectory, work: Callable[[Signals], None]) -> None:
    """Do `work` on a run; a signal ends it with the command that resumes."""
    with Signals() as signals:
        try:
            work(signals)
        except Signalled as signal:
            raise Stopped(
                f"stopped by a signal; {directory.path} holds the last checkpoint",
                exit_code=exit_code(signals.received or signal.number),
                next_step=directory.resume_command,
            ) from signal


def _run(
    assembly: Assembly,
    prepared: tuple[State, Setup],
    directory: RunDirectory,
    signals: Signals,
    console: Console,
    saved: LastCheckpoint | None,
) -> None:
    console.print(f"run {directory.path}", markup=False, soft_wrap=True)
    scored = Scored.of_run(assembly)
    _show(console, assembly, scored)
    saving, trackers = _begin(scored, assembly, prepared[0], directory, console, saved, warnings=console)
    try:
        for _ in _train(assembly, prepared, saving, trackers, signals, console):
            pass
        _finish(directory, scored, assembly, prepared[1], console, trackers)
    finally:
        trackers.close()


def train_run(planned: Plan, directory: RunDirectory, *, kept: Kept, signals: Signals) -> Records:
    """Train what the recipe says in `directory`, which the caller has locked, going on from its checkpoint where it
    has one; yields the records of all epochs, the earlier ones too. `kept` is what this process keeps for its next run.

    Leaves checkpoints and records but no scores and no report: `resume_run` adds them. Shows nothing but what is wrong
    with a tracker, on standard error. Closing the generator ends training early; an error thrown into it, or its own,
    is what trackers see the run end by.
    """
    console = Console(quiet=True)
    saved = LastCheckpoint.load(directory.last) if directory.last.exists() else None
    assembly = _assembled(planned, saved, kept)
    if saved:
        _same_recipe(directory, saved, assembly.recipe)
        _same_data(directory, saved, assembly)
        yield from (EpochRecord(**record) for record in saved.state["records"])
    prepared = training(assembly)
    scored, state = Scored.of_run(assembly), prepared[0]
    saving, trackers = _begin(scored, assembly, state, directory, console, saved, warnings=Console(stderr=True))
    try:
        yield from _train(assembly, prepared, saving, trackers, signals, console)
        best = state.records[state.best_epoch - 1]  # what its epoch scored: the best checkpoint is not evaluated
        scores = {"valid": dict(best.valid), "test": {}, "best_epoch": best.epoch, "protocol": scored.protocol()}
        trackers.track(RunFinished(scores, directory.path))
    finally:
        trackers.close()


def _begin(
    scored: Scored,
    assembly: Assembly,
    state: State,
    directory: RunDirectory,
    console: Console,
    saved: LastCheckpoint | None,
    *,
    warnings: Console,
) -> tuple[Saving, Trackers]:
    """Bring `state` to where `saved` stands, or write what a new run starts with; what saves and tracks it."""
    skipped = {name: loader.pixels.skipped for name, loader in assembly.loaders().items()}
    saving = Saving(directory, origin_of(assembly), assembly.recipe.train.checkpoint_minutes, skipped)
    if saved:
        state.load_state_dict(saved.state)
        for name, items in saved.skipped.items():
            skipped[name].update(items)
    else:
        _open(directory, assembly, state, saving, console)
    facts = run_facts(scored, assembly, directory)
    directory.write_json(directory.facts, facts)
    write_records(directory, state.records)
    trackers = Trackers(assembly.plan.trackers(directory.path), warnings)
    trackers.track(RunStarted(assembly.recipe.tables(), facts))
    return saving, trackers


def _train(
    assembly: Assembly,
    prepared: tuple[State, Setup],
    saving: Saving,
    trackers: Trackers,
    signals: Signals,
    console: Console,
) -> Iterator[EpochRecord]:
    """Train from where the state stands; yields the records of the epochs still to come."""
    state, setup = prepared
    with Screen(console, setup.epochs, setup.metric, assembly.device, unit=assembly.unit) as screen:
        yield from train(
            state,
            setup,
            saving=saving,
            trackers=trackers,
            screen=screen,
            signals=signals,
            patience=assembly.recipe.train.patience,
        )


def _open(directory: RunDirectory, assembly: Assembly, state: State, saving: Saving, console: Console) -> None:
    """What a new run does before its first step; the checkpoint shows early whether the disk takes one."""
    directory.write_text(directory.recipe, to_toml(assembly.recipe))
    summary = assembly.summary
    console.print(summary.short, markup=False, highlight=False, soft_wrap=True)
    directory.write_text(directory.summary, summary.full)
    directory.write_json(directory.environment, assembly.environment())
    saving.save_last(state)


def _finish(
    directory: RunDirectory, scored: Scored, assembly: Assembly, setup: Setup, console: Console, trackers: Trackers
) -> None:
    """Score the best checkpoint and report."""
    best = BestCheckpoint.load(directory.best)
    assembly.network.load_state_dict(best.network)
    assembly.objective.load_state_dict(best.objective)
    answers = evaluate_splits(assembly, batch=setup.eval_batch)
    evaluated = Evaluated(scored, answers, _scores(scored, answers, best.epoch))
    with directory.explained():
        draw_pictures(directory, assembly, setup.augmentations, evaluated)
    keep_evaluation(directory, evaluated, run_facts(scored, assembly, directory), console)
    trackers.track(RunFinished(evaluated.scores, directory.path))


def _scores(scored: Scored, answers: Mapping[str, Evaluation], best_epoch: int) -> dict[str, Any]:
    """The contents of scores.json."""
    splits = {name: dict(answers[name].scores) if name in answers else {} for name in ("valid", "test")}
    return {**splits, "best_epoch": best_epoch, "protocol": scored.protocol()}


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


def _assembled(planned: Plan, saved: LastCheckpoint | None, kept: Kept) -> Assembly:
    """The assembly to go on with: in the precision that training began in, which another device would not choose."""
    if saved is None:
        return assemble(planned, kept)
    return assemble(planned, kept, notes=saved.origin.notes, precision=saved.origin.precision)


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


def _show(console: Console, assembly: Assembly, scored: Scored) -> None:
    items = ", ".join(f"{name} {len(loader.pixels):,}" for name, loader in assembly.loaders().items())
    clips = f", clips of {scored.seen['frames']}, {scored.seen['views']}" if assembly.spec.clip else ""
    console.print(
        f"data {assembly.recipe.data.name}: {len(assembly.spec.classes)} classes, {items} items, "
        f"{assembly.spec.size} px{clips}",
        markup=False,
        soft_wrap=True,
    )
    console.print(f"on {devices.describe(assembly.device)}, {assembly.precision}", markup=False)
    for text in scored.notes():
        note(console, text)
