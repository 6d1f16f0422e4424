"""One worker of a study: takes trials, has each trained as a run, reports to the study what became of it."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from toolkit.api.errors import RunFailed, Stopped, UsageError
from toolkit.runs.directory import explained
from toolkit.system.signals import Signalled, Signals, stopping
from toolkit.tune.grid import Grid
from toolkit.tune.outcome import DONE, UNCOUNTED
from toolkit.tune.scoring import ScoreMissing, Scoring
from toolkit.tune.storage import alone, answering, opened_storage, storage_failures, trial_run
from toolkit.tune.study import StudyPlan, open_study
from toolkit.tune.worker import presence

LOOK_SECONDS = 0.5
"""How long a worker waits before it asks again whether there is a trial to take."""
_LIVE = (*DONE, TrialState.RUNNING)


@dataclass(frozen=True)
class StudyLocation:
    """Where a study is stored."""

    runs: Path
    """The folder that holds the study's own, `runs/<recipe>`."""
    storage: str | None
    """The URL of the database that holds the study; None: a journal file in its folder."""
    again: str
    """The command that continues it."""


@contextmanager
def joined(
    location: StudyLocation, planned: StudyPlan, *, threads: int | None = None, ranks: int = 1
) -> Iterator[Worker]:
    """A worker of the study, which is created if needed; the storage is closed after the block. Each trial is trained
    by so many `ranks`. `threads` is what each of them computes with on the CPU where its recipe does not say. Raises
    UsageError where the storage cannot be used or holds another study of this name."""
    folder = location.runs / planned.recipe.name
    with answering(planned.recipe.name, location.again), opened_storage(folder, location.storage) as storage:
        scoring = Scoring(open_study(planned, storage), planned, folder, threads, ranks)
        mark = presence.mark_of(folder)
        yield Worker(scoring, storage, location.again, mark, shared=location.storage is not None)


@dataclass(frozen=True)
class Worker:
    """Takes trials until the study has as many as were asked for."""

    scoring: Scoring
    storage: BaseStorage
    again: str
    """The command that continues the study."""
    mark: str
    """What distinguishes the study's folder from those of other machines."""
    shared: bool = False
    """Whether workers on other machines, with folders of their own, may work on the study."""
    watch: presence.Watch = field(default_factory=presence.Watch)

    @property
    def study(self) -> optuna.Study:
        return self.scoring.study

    @property
    def planned(self) -> StudyPlan:
        return self.scoring.planned

    @property
    def folder(self) -> Path:
        """The study's own: `runs/<study>`."""
        return self.scoring.folder

    def work(self) -> None:
        """Take one trial after another; wait for those of other workers, for they may leave one behind.

        Raises Stopped when a signal came, RunFailed after too many failures or when the storage or the file system
        fails, RecipeError for a metric that no epoch has, UsageError where the folder is another study's. What was
        finished or saved until then is kept.
        """
        tune = self.planned.tune
        until = time.monotonic() + tune.timeout if tune.timeout else math.inf
        kept = f"the study in {self.folder} keeps all trials and the last checkpoint"
        with stopping(kept, self.again), answering(self.planned.recipe.name, self.again), Signals() as signals:
            try:
                while self._take(signals) and time.monotonic() < until:
                    if signals.received is not None:
                        raise Signalled(signals.received)
                    if (error := too_many_failures(self.study, tune.max_failures)) is not None:
                        raise error
            except RunFailed as error:
                if not _cannot_write(error):
                    raise
                raise RunFailed(error.message, next_step=f"when that is fixed: {self.again}") from error

    def _take(self, signals: Signals) -> bool:
        """Take a trial and train it, or wait a little; False once there is nothing more to do."""
        with ExitStack() as held:
            with alone(self.folder):
                trial = self._left_behind(held) or self._next(held)
                busy = bool(self._trials(TrialState.RUNNING))
            if trial is not None:
                with presence.signing(trial):
                    self._train(trial, signals)
                return True
        time.sleep(LOOK_SECONDS if busy else 0)
        return busy

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        """The trials in these states, or all of them."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def _left_behind(self, held: ExitStack) -> optuna.Trial | None:
        """A trial of this folder whose worker is gone. Those whose runs are elsewhere or missing are given up, and
        their values are queued."""
        for trial in self._trials(TrialState.RUNNING):
            directory, host = trial_run(self.folder, trial.number), trial.user_attrs.get(presence.MACHINE, ())
            here = directory.path.is_dir()
            if self.shared:
                here = here and trial.user_attrs.get(presence.FOLDER) == self.mark
                # What another machine locks may not be seen from here, on a drive that both share or in a copy of its
                # folder; and a run in another folder has no lock that could be looked at. Then silence decides.
                locks_decide = here and not {*host}.isdisjoint(presence.machine())
                if not locks_decide and not self.watch.is_silent(trial):
                    continue
            if here:
                self.study.sampler = self.planned.search.sampler_of(trial.number)  # it may have drawn nothing yet
                with suppress(RunFailed, UpdateFinishedTrialError):  # somebody works on it, or has given it up
                    held.enter_context(directory.locked())
                    resumed = self._resumed(trial.number)
                    presence.claim(resumed, self.mark)
                    return resumed
            else:
                cause = "its worker was killed as it took the trial, or its run was removed"
                if self.shared:
                    name = next(iter(host), "an unknown machine")
                    cause = f"its worker on {name} has been silent for {presence.SILENT_SECONDS:g} s"
                self._give_up(trial, cause, queue=True)
        return None

    def _resumed(self, number: int) -> optuna.Trial:
        """A trial that another process has begun."""
        study_id = self.storage.get_study_id_from_name(self.study.study_name)
        return optuna.Trial(self.study, self.storage.get_trial_id_from_study_id_trial_number(study_id, number))

    def _give_up(self, trial: FrozenTrial, cause: str, *, queue: bool) -> None:
        """Fail a trial by no fault of its values; `queue` them to be tried again."""
        with suppress(UpdateFinishedTrialError, ValueError):  # another worker was first
            resumed = self._resumed(trial.number)
            resumed.set_user_attr("cause", cause)
            resumed.set_user_attr(UNCOUNTED, True)
            self.study.tell(resumed, state=TrialState.FAIL)
            if queue:
                own = {"own": trial.user_attrs["own"]} if "own" in trial.user_attrs else None
                self.study.enqueue_trial(trial.system_attrs.get("fixed_params", {}) | trial.params, user_attrs=own)

    def _next(self, held: ExitStack) -> optuna.Trial | None:
        """A new trial, its run locked; None where there are as many as were asked for."""
        while not self._is_full():
            trials = self._trials()
            waiting = (trial.number for trial in trials if trial.state == TrialState.WAITING)
            upcoming = next(waiting, len(trials))
            directory = trial_run(self.folder, upcoming)
            if directory.recipe.is_file():  # it would be used as the trial's own
                raise UsageError(
                    f"{directory.path}: is a run of another study than the one in this storage",
                    next_step=f"move {self.folder} away, or tune a copy of the recipe under another name",
                )
            self.study.sampler = self.planned.search.sampler_of(upcoming)
            trial = self.study.ask()
            directory = trial_run(self.folder, trial.number)
            with explained(directory.path):
                directory.path.mkdir(parents=True, exist_ok=True)
            held.enter_context(directory.locked())
            presence.claim(trial, self.mark)
            if (why := self._surplus(trial.number)) is None:
                return trial
            self._give_up(self._trials()[trial.number], why, queue=False)
        return None

    def _is_full(self) -> bool:
        sampler = self.planned.search.sampler
        if isinstance(sampler, Grid) and sampler.is_exhausted(self.study) and not self._trials(TrialState.WAITING):
            return True
        return len(self._trials(*_LIVE)) >= self.planned.tune.trials

    def _surplus(self, number: int) -> str | None:
        """Why a trial just taken is one too many: a worker on another machine has taken one at the same moment."""
        trials = self._trials()
        before = [one for one in trials[:number] if one.state in _LIVE]
        if len(before) >= self.planned.tune.trials:
            return "there were enough trials already"
        if "own" in trials[number].user_attrs and any("own" in one.user_attrs for one in before):
            return "another trial has the recipe's own values already"
        return None

    def _train(self, trial: optuna.Trial, signals: Signals) -> None:
        with suppress(UpdateFinishedTrialError):  # held to be gone: others have its values by now
            try:
                values = self.scoring.values(trial, signals)
            except (Stopped, ScoreMissing, UpdateFinishedTrialError, *storage_failures()):
                raise
            except optuna.TrialPruned:
                self.study.tell(trial, state=TrialState.PRUNED)
            except Exception as error:  # whatever a trial's values bring about is that trial's end alone
                if _cannot_write(error):
                    raise
                trial.set_user_attr("cause", f"{type(error).__name__}: {error}")
                self.study.tell(trial, state=TrialState.FAIL)
            else:
                self.study.tell(trial, values)
                return
        gc.collect()  # what an error holds, its tracebacks do: a whole network may be in it


def too_many_failures(study: optuna.Study, limit: int) -> RunFailed | None:
    """The error that ends a study, once `limit` trials have failed by what they tried."""
    ended = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    failed = [trial for trial in ended if UNCOUNTED not in trial.user_attrs]
    if len(failed) < limit:
        return None
    return RunFailed(
        f"study {study.study_name}: {len(failed)} trials failed, the last with {failed[-1].user_attrs.get('cause')}",
        next_step="fix the cause or narrow the space; more are allowed with --set tune.max_failures=N",
    )


def _cannot_write(error: Exception) -> bool:
    """Whether the file system has refused: no fault of a trial's values, and the end of the next trial too."""
    return isinstance(error, RunFailed) and isinstance(error.__cause__, OSError)
