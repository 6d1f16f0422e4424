"""One worker of a study: takes trials, has each trained as a run, tells the study what became of it."""

from __future__ import annotations

import gc
import math
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from toolkit.api.errors import RunFailed, Stopped, UsageError
from toolkit.build.plan import plan
from toolkit.recipe.tables import TuneTable
from toolkit.recipe.write import to_toml
from toolkit.runs.directory import RunDirectory, explained
from toolkit.system.signals import Signalled, Signals, exit_code
from toolkit.tune.folder import alone, trial_run
from toolkit.tune.grid import Grid
from toolkit.tune.outcome import DONE, best_finished
from toolkit.tune.scoring import ScoreMissing, Scoring
from toolkit.tune.search import Search
from toolkit.tune.study import UNCOUNTED, too_many_failures
from toolkit.tune.worker import presence
from toolkit.tune.worker.presence import Watch, signing

LOOK_SECONDS = 0.5
"""How long a worker waits before it asks anew whether there is a trial to take."""
FOLDER = "folder"
"""The user attribute of a trial that marks the folder in which its run lies."""
MACHINE = "machine"
"""The user attribute of a trial that names the machine of its worker."""
_LIVE = (*DONE, TrialState.RUNNING)


@dataclass(frozen=True)
class Worker:
    """Takes trials until the study has as many as were asked for."""

    scoring: Scoring
    search: Search
    again: str
    """The command that goes on with the study."""
    mark: str
    """What tells the study's folder from those of other machines."""
    shared: bool = False
    """Whether workers on other machines, with folders of their own, may work on the study."""
    watch: Watch = field(default_factory=Watch)

    @property
    def study(self) -> optuna.Study:
        return self.scoring.study

    @property
    def tune(self) -> TuneTable:
        return self.scoring.tune

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
        until = time.monotonic() + self.tune.timeout if self.tune.timeout else math.inf
        with Signals() as signals:
            try:
                while self._take(signals) and time.monotonic() < until:
                    if signals.received is not None:
                        raise Signalled(signals.received)
                    if (error := too_many_failures(self.study, self.tune.max_failures)) is not None:
                        raise error
            except (Signalled, Stopped) as stopped:
                raise self._stopped(stopped) from stopped
            except StorageInternalError as error:
                raise RunFailed(
                    f"the storage of study {self.study.study_name} has failed: {error.__cause__ or error}",
                    next_step=f"when it answers again: {self.again}",
                ) from error
            except RunFailed as error:
                if not _cannot_write(error):
                    raise
                raise RunFailed(error.message, next_step=f"when that is mended: {self.again}") from error

    def _stopped(self, stopped: Signalled | Stopped) -> Stopped:
        return Stopped(
            f"stopped by a signal; the study in {self.folder} keeps all trials and the last checkpoint",
            exit_code=exit_code(stopped.number) if isinstance(stopped, Signalled) else stopped.exit_code,
            next_step=self.again,
        )

    def _take(self, signals: Signals) -> bool:
        """Take a trial and train it, or wait a little; False once there is nothing more to do."""
        with ExitStack() as held:
            with alone(self.folder):
                self._give_up_lost()
                trial = self._left_behind(held) or self._next(held)
                busy = self._running()
            if trial is not None:
                with signing(trial):
                    self._train(trial, signals)
                return True
        time.sleep(LOOK_SECONDS if busy else 0)
        return bool(busy)

    def _running(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def _is_here(self, trial: FrozenTrial) -> bool:
        """Whether the trial's run lies in this folder, as those of all trials do that a journal in it tells of."""
        own = not self.shared or trial.user_attrs.get(FOLDER) == self.mark
        return own and trial_run(self.folder, trial.number).path.is_dir()

    def _locks_tell(self, trial: FrozenTrial) -> bool:
        """Whether a run that nobody holds locked is one that nobody works on. What another machine locks may not be
        seen from here, on a drive that both share or in a copy of its folder: there, silence tells."""
        same_machine = {*trial.user_attrs.get(MACHINE, ())} & {*presence.machine()}
        return not self.shared or bool(same_machine) or self.watch.is_silent(trial)

    def _give_up_lost(self) -> None:
        """Fail the trials whose workers are gone and whose runs lie elsewhere or nowhere; their values are queued."""
        for trial in self._running():
            if self._is_here(trial):
                continue
            if not self.shared:
                self._give_up(trial, "its worker was killed as it took the trial, or its run was removed", queue=True)
            elif self.watch.is_silent(trial):
                host = next(iter(trial.user_attrs.get(MACHINE, ())), "an unknown machine")
                self._give_up(
                    trial, f"its worker on {host} has been silent for {presence.SILENT_SECONDS:g} s", queue=True
                )

    def _give_up(self, trial: FrozenTrial, cause: str, *, queue: bool) -> None:
        """Fail a trial by no fault of its values, and let them be tried again where that is asked."""
        with suppress(UpdateFinishedTrialError, ValueError):  # another worker was first
            left = optuna.Trial(self.study, trial._trial_id)
            left.set_user_attr("cause", cause)
            left.set_user_attr(UNCOUNTED, True)
            self.study.tell(left, state=TrialState.FAIL)
            if queue:
                own = {"own": trial.user_attrs["own"]} if "own" in trial.user_attrs else None
                self.study.enqueue_trial(trial.system_attrs.get("fixed_params", {}) | trial.params, user_attrs=own)

    def _left_behind(self, held: ExitStack) -> optuna.Trial | None:
        """A trial of this folder whose worker is gone: its run is locked by nobody."""
        for trial in self._running():
            if self._is_here(trial) and self._locks_tell(trial):
                self.study.sampler = self.search.sampler_of(trial.number)  # it may have drawn nothing yet
                with suppress(RunFailed, UpdateFinishedTrialError):  # somebody works on it, or has given it up
                    held.enter_context(trial_run(self.folder, trial.number).locked())
                    return self._claimed(optuna.Trial(self.study, trial._trial_id))
        return None

    def _claimed(self, trial: optuna.Trial) -> optuna.Trial:
        """The trial, which tells all workers where its run lies and which machine works on it."""
        trial.set_user_attr(FOLDER, self.mark)
        trial.set_user_attr(MACHINE, presence.machine())
        return trial

    def _next(self, held: ExitStack) -> optuna.Trial | None:
        """A new trial, its run locked; None where there are as many as were asked for."""
        while not self._full():
            self._require_no_run(trial_run(self.folder, self._upcoming()))
            self.study.sampler = self.search.sampler_of(self._upcoming())
            trial = self.study.ask()
            directory = trial_run(self.folder, trial.number)
            with explained(directory.path):
                directory.path.mkdir(parents=True, exist_ok=True)
            held.enter_context(directory.locked())
            self._claimed(trial)
            if (why := self._surplus(trial.number)) is None:
                return trial
            frozen = self.study.get_trials(deepcopy=False)[trial.number]
            self._give_up(frozen, why, queue=False)
        return None

    def _require_no_run(self, directory: RunDirectory) -> None:
        """Raise UsageError where a trial to come has a run: it would be taken for the trial's own."""
        if directory.recipe.is_file():
            raise UsageError(
                f"{directory.path}: is a run of another study than the one in this storage",
                next_step=f"move {self.folder} away, or tune a copy of the recipe under another name",
            )

    def _full(self) -> bool:
        live = self.study.get_trials(deepcopy=False, states=_LIVE)
        exhausted = isinstance(self.study.sampler, Grid) and self.study.sampler.is_exhausted(self.study)
        return (exhausted and not self._queued()) or len(live) >= self.tune.trials

    def _queued(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))

    def _upcoming(self) -> int:
        """The number of the trial that `ask` gives next."""
        trials = self.study.get_trials(deepcopy=False)
        return next((trial.number for trial in trials if trial.state == TrialState.WAITING), len(trials))

    def _surplus(self, number: int) -> str | None:
        """Why a trial just taken is one too many: a worker on another machine has taken one at the same moment."""
        before = [one for one in self.study.get_trials(deepcopy=False)[:number] if one.state in _LIVE]
        if len(before) >= self.tune.trials:
            return "there were enough trials already"
        own = "own" in self.study.get_trials(deepcopy=False)[number].user_attrs
        if own and any("own" in one.user_attrs for one in before):
            return "the recipe's own values are another trial already"
        return None

    def _train(self, trial: optuna.Trial, signals: Signals) -> None:
        with suppress(UpdateFinishedTrialError):  # held to be gone: others have its values by now
            try:
                values = self.scoring.values(trial, signals)
            except (Stopped, ScoreMissing, StorageInternalError, UpdateFinishedTrialError):
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


def _cannot_write(error: Exception) -> bool:
    """Whether the file system has refused: no fault of a trial's values, and the end of the next trial too."""
    return isinstance(error, RunFailed) and isinstance(error.__cause__, OSError)


def write_best(worker: Worker) -> list[Path]:
    """`best.toml`, or one `best-NNNN.toml` for each trial that no other is better than by all of several scores.

    Each is the complete recipe of its trial, as `run` takes it. Empty while no trial is finished. Those of trials that
    are no longer among the best are removed.
    """
    best = best_finished(worker.study)
    if not best:
        return []
    single = len(worker.study.directions) == 1
    written = []
    for trial in best:
        path = worker.folder / ("best.toml" if single else f"best-{trial.number:04}.toml")
        RunDirectory(worker.folder).write_text(path.name, _recipe_of(worker, trial))
        written.append(path)
    with explained(worker.folder):
        for path in {*worker.folder.glob("best-[0-9]*.toml")} - {*written}:
            path.unlink(missing_ok=True)
    return written


def _recipe_of(worker: Worker, trial: FrozenTrial) -> str:
    """As it was run here, or by its values where another machine has run it."""
    run = trial_run(worker.folder, trial.number)
    if run.recipe.is_file():
        return run.recipe.read_text(encoding="utf-8")
    draft = worker.scoring.draft(optuna.Trial(worker.study, trial._trial_id))
    return to_toml(plan(draft, worker.scoring.registry).resolved)
