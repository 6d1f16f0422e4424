"""A run: train, evaluate and report what a recipe says, in a directory that survives anything."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from pathlib import Path

from rich.console import Console

from toolkit.api.contracts import DataSpec, EpochRecord, RunFinished, RunStarted
from toolkit.api.errors import CheckpointError, Stopped, UsageError, counted
from toolkit.build.assemble import Assembly, assemble
from toolkit.build.batch_size import settled
from toolkit.build.featuring import training_of_run
from toolkit.build.kept import Kept
from toolkit.build.plan import Plan
from toolkit.recipe.write import digest, to_toml
from toolkit.runs.continued import last_checkpoint, reopened
from toolkit.runs.directory import EVALUATIONS, RunDirectory, create, created, existing
from toolkit.runs.evaluation import Scored, keep_evaluation, keep_file_problems, run_facts, run_scores, score_splits
from toolkit.runs.extension import EPOCHS, extended, offer_extension
from toolkit.runs.files import write_records
from toolkit.runs.latest import point_at
from toolkit.runs.loop import Prepared, Records, Saving, Session, Trackers, train
from toolkit.runs.reopen import open_trained, planned_again
from toolkit.runs.sheets import draw_pictures
from toolkit.system import device as devices
from toolkit.system.notices import note, say, show
from toolkit.system.ranks import ALONE, Ranks, connected, joined, launched, restarts
from toolkit.system.signals import Signalled, Signals, exit_code, how_ended
from toolkit.training.checkpoint import BestCheckpoint
from toolkit.training.evaluate import scored_splits

__all__ = ["evaluate_run", "resume_run", "start_run", "train_run"]

RUN = "run"
"""Under what name the launcher keeps the directory of its job's run."""


@devices.enough_memory()
def start_run(planned: Plan, *, runs: Path, console: Console) -> Prepared:
    """Train what the recipe says in a new directory under `runs`; the run as it has ended. The console of all ranks
    but the first one is quiet."""
    with joined_by(planned, resume=None) as ranks:
        if begun := ranks.spread(partial(ranks.left, RUN)):
            return _continue(RunDirectory(Path(begun)), planned, console=console, ranks=ranks)
        return _start(planned, runs=runs, console=console, ranks=ranks)


def joined_by(planned: Plan, *, resume: str | None) -> AbstractContextManager[Ranks]:
    """The ranks that train a recipe; the command `resume` continues after one is lost."""
    train = planned.resolved.train
    return joined(on_gpus=devices.on_gpus(train.device), seconds=train.rank_timeout, resume=resume)


def _start(planned: Plan, *, runs: Path, console: Console, ranks: Ranks) -> Prepared:
    kept = Kept()
    if planned.resolved.train.batch == "auto":
        if ranks.together and planned.resolved.train.strategy == "fsdp":
            raise UsageError(
                'train.batch: "auto" tries steps on each rank alone, without what fsdp saves',
                next_step="give a number of items for all ranks together: --set train.batch=...",
            )
        planned = settled(planned, kept, ranks)
        chosen, rate = planned.resolved.train.batch_size, planned.resolved.train.optimizer.lr
        say(f"batch {chosen}, chosen as the largest that fits; the learning rate stays {rate:g}", console)
    assembly = assemble(planned, kept, ranks=ranks)
    state, setup = training_of_run(assembly)  # first: a recipe that cannot be trained leaves no directory
    directory = ranks.spread(partial(_created, runs, assembly.recipe.name))
    if ranks.leads:
        ranks.leave(RUN, str(directory.path))
    prepared = Prepared(directory, assembly, state, setup, saved=None)
    with directory.locked() if ranks.leads else nullcontext():
        _complete(prepared, console)
    return prepared


def _created(runs: Path, name: str) -> RunDirectory:
    directory = create(runs, name)
    point_at(directory.path, runs)
    return directory


def _continue(directory: RunDirectory, planned: Plan, *, console: Console, ranks: Ranks) -> Prepared:
    """Go on with the run of ranks that have failed: the launcher has started these in their place."""
    say(f"started again by the launcher ({counted(restarts(), 'restart')}): the run continues", console)
    with directory.locked() if ranks.leads else nullcontext():
        if directory.recipe.is_file():
            planned = planned_again(directory, None, ())
        prepared = reopened(directory, planned, last_checkpoint(directory), Kept(), ranks)
        _complete(prepared, console)
    return prepared


@devices.enough_memory()
def resume_run(
    path: Path, *, recipe: Path | None, overrides: Sequence[str], console: Console, extend: int | None = None
) -> Prepared:
    """Go on with a run from its last checkpoint, to the same end as if it had never stopped; or, with `extend`, to
    that many epochs in all.

    `recipe`, where given, must say the same as the run's own, and the data must be the same. Raises CheckpointError
    otherwise.
    """
    directory = existing(path)
    _require_training(directory)
    asked = overrides if extend is None else [*overrides, f"{EPOCHS}={extend}"]
    with ExitStack() as held:
        if launched().leads:
            # before its checkpoint is read: who works on it may be about to save another
            held.enter_context(directory.locked())
        saved = last_checkpoint(directory)  # before the recipe, which another version of the toolkit may not know
        planned = planned_again(directory, recipe, asked)
        ranks = held.enter_context(joined_by(planned, resume=directory.resume_command))
        again = restarts() and saved is not None and saved.origin.digest == digest(planned.resolved)
        if saved is not None and extend is not None and not again:
            prepared = extended(directory, planned, saved, ranks)
        else:
            if saved is not None:
                offer_extension(directory, planned, saved, overrides)
            prepared = reopened(directory, planned, saved, Kept(), ranks)
        _complete(prepared, console)
    return prepared


def train_run(planned: Plan, directory: RunDirectory, *, kept: Kept, signals: Signals, ranks: Ranks = ALONE) -> Records:
    """Train what the recipe says in `directory`, which the caller has locked, going on from its checkpoint where it
    has one; yields the records of all epochs, the earlier ones too. `kept` is what this process keeps for its next run.

    Leaves checkpoints and records but no scores and no report: `resume_run` adds them. Shows nothing but what is wrong
    with a tracker, on standard error. Closing the generator ends training early; an error thrown into it, or its own,
    is what trackers see the run end by.
    """
    prepared = reopened(directory, planned, last_checkpoint(directory), kept, ranks)
    if prepared.saved:
        yield from (EpochRecord(**record) for record in prepared.saved.state["records"])
    session = _begin(prepared, Console(quiet=True), signals)
    try:
        yield from train(prepared.state, prepared.setup, session, patience=planned.resolved.train.patience)
        # the best checkpoint is not evaluated again: its epoch's scores are used
        best = prepared.state.records[prepared.state.best_epoch - 1]
        scores = run_scores(prepared.scored, {"valid": best.valid}, best.epoch)
        session.trackers.track(RunFinished(scores, directory.path))
    finally:
        session.trackers.close()


@devices.enough_memory()
def evaluate_run(path: Path, overrides: Sequence[str], *, console: Console) -> RunDirectory:
    """Re-evaluate a run's best checkpoint, on other data where `overrides` says so.

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
        facts["notes"] = [f"scores of {trained.directory.best}, re-evaluated", *facts["notes"]]
        keep_evaluation(directory, evaluated, facts, console)
    return directory


def _complete(prepared: Prepared, console: Console) -> None:
    """Train a run to its end, score its best checkpoint and report. A signal ends it with the command that resumes."""
    directory, assembly = prepared.directory, prepared.assembly
    lost = connected(next_step=directory.resume_command)
    with Signals(repeated=assembly.ranks.together) as signals, lost:
        try:
            show(f"run {directory.path}", console=console)
            _show(assembly, prepared.scored, console)
            session = _begin(prepared, console, signals)
            try:
                for _ in train(prepared.state, prepared.setup, session, patience=assembly.recipe.train.patience):
                    pass
                _finish(prepared, session)
            finally:
                session.trackers.close()
        except Signalled as signal:
            code = exit_code(signals.received or signal.number)
            message = f"{how_ended(code)}; {directory.path} holds the last checkpoint"
            raise Stopped(message, exit_code=code, next_step=directory.resume_command) from signal


def _begin(prepared: Prepared, console: Console, signals: Signals) -> Session:
    """Load the checkpoint into the state, or write what a new run starts with."""
    directory, assembly, state = prepared.directory, prepared.assembly, prepared.state
    minutes, ranks = assembly.recipe.train.checkpoint_minutes, assembly.ranks
    saving = Saving(directory, assembly.origin(), minutes, prepared.scored.skipped, ranks)
    if prepared.saved:
        prepared.saved.restore(state, prepared.scored.skipped, directory.last)
    else:
        if ranks.leads:
            directory.write_text(directory.recipe, to_toml(assembly.recipe))
            directory.write_text(directory.summary, assembly.summary.table)
            directory.write_json(directory.environment, assembly.environment())
        saving.save_last(state)  # shows early whether the disk takes a checkpoint
    trackers = _recorded(prepared, console) if ranks.leads else Trackers([], console)
    return Session(saving, trackers, console, signals)


def _recorded(prepared: Prepared, console: Console) -> Trackers:
    """Write what is known of a run that begins or goes on, for the trackers too."""
    directory, assembly = prepared.directory, prepared.assembly
    facts = run_facts(prepared.scored, assembly, directory)
    directory.write_json(directory.facts, facts)
    keep_file_problems(directory, prepared.scored, console)
    write_records(directory, prepared.state.records)
    trackers = Trackers(assembly.plan.trackers(directory.path), None if console.quiet else console)
    trackers.track(RunStarted(assembly.recipe.tables(), facts))
    return trackers


def _finish(prepared: Prepared, session: Session) -> None:
    """Score the best checkpoint and report."""
    directory, assembly = prepared.directory, prepared.assembly
    ranks = assembly.ranks
    best = ranks.spread(partial(BestCheckpoint.load, directory.best))
    best.restore(assembly.network, assembly.objective, directory.best)
    evaluated = score_splits(assembly, prepared.scored, best.epoch)
    if not ranks.leads:
        return
    with directory.explained():
        drawn = draw_pictures(directory, assembly, prepared.setup.augmentations, evaluated)
    facts = {**run_facts(prepared.scored, assembly, directory), **drawn}
    keep_evaluation(directory, evaluated, facts, session.console)
    session.trackers.track(RunFinished(evaluated.scores, directory.path))
    for viewer in session.trackers.viewers:
        show(f"view {viewer}", console=session.console)


def _require_training(directory: RunDirectory) -> None:
    """Raise CheckpointError for a directory of scores alone, as `evaluate` writes: training would start again there."""
    has_scores = directory.facts.exists()
    if directory.last.exists() or directory.best.exists() or not has_scores:
        return
    run = RunDirectory(directory.path.resolve().parent.parent)
    again = f"python -m toolkit run {shlex.quote(str(directory.recipe))}"
    raise CheckpointError(
        f"{directory.path}: an evaluation cannot be resumed: it has no checkpoint",
        next_step=run.resume_command if run.last.exists() else again,
    )


def _learned(spec: DataSpec) -> str:
    """What a model answers with, in a few words."""
    if spec.targets == "number":
        return f"{counted(len(spec.classes), 'number')} ({', '.join(spec.classes)})"
    return f"{len(spec.classes)} classes" if spec.labelled else "no labels"


def _ranks(assembly: Assembly) -> str:
    count = assembly.ranks.count
    machines = count // assembly.ranks.local_count
    where = f" on {counted(machines, 'machine')}" if machines > 1 else ""
    return f"{counted(count, 'rank')}{where}, each on " if count > 1 else ""


def _show(assembly: Assembly, scored: Scored, console: Console) -> None:
    items = ", ".join(f"{name} {len(loader.store):,}" for name, loader in assembly.loaders().items())
    clips = f", clips of {scored.seen['frames']}, {scored.seen['views']}" if assembly.spec.clip else ""
    recipe, spec = assembly.recipe, assembly.spec
    data = f"data {recipe.data.name}: {_learned(spec)}, {items} items, {spec.size} px{clips}"
    for text in (
        data,
        assembly.summary.line(recipe.model.name, "clip" if spec.clip else "image"),
        f"on {_ranks(assembly)}{devices.describe(assembly.device)}, {assembly.precision}",
    ):
        say(text, console)
    for text in scored.screen_notes():
        note(text, console)
