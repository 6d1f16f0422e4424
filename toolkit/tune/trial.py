"""One worker of a study: takes trials, has each trained as a run, tells the study what became of it."""

from __future__ import annotations

import gc
import math
import platform
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from toolkit.components import plan
from toolkit.directory import RunDirectory, explained
from toolkit.errors import RunFailed, Stopped
from toolkit.recipe import TuneTable, to_toml
from toolkit.signals import Signalled, Signals, exit_code
from toolkit.tune.folder import trial_run
from toolkit.tune.outcome import DONE
from toolkit.tune.presence import SILENT_SECONDS, Watch, signing
from toolkit.tune.scoring import ScoreMissing, Scoring
from toolkit.tune.study import UNCOUNTED, Grid, Search, too_many_failures

LOOK_SECONDS = 0.5
"""How long a worker waits before it asks anew whether there is a trial to take."""
_LIVE = (*DONE, TrialState.RUNNING)


@dataclass(frozen=True)
class Worker:
    """Takes trials until the study has as many as were asked for."""

    scoring: Scoring
    search: Search
    again: str
    """The command that goes on with the study."""
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

        Raises Stopped when a signal came, RunFailed after too many failures or when the storage fails, RecipeError for
        a metric that no epoch has. What was finished or saved until then is kept.
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

    @property
    def _machine(self) -> str:
        """Where runs lie: this machine and the study's folder on it."""
        return f"{platform.node()}:{self.folder.resolve()}"

    def _running(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def _is_here(self, trial: FrozenTrial) -> bool:
        directory = trial_run(self.folder, trial.number).path
        return trial.user_attrs.get("machine") == self._machine and directory.is_dir()

    def _give_up_lost(self) -> None:
        """Fail the trials whose workers are gone and whose runs lie elsewhere or nowhere; their values are queued."""
        for trial in self._running():
            if self._is_here(trial):
                continue
            if "machine" not in trial.user_attrs and not self.shared:
                self._give_up(trial, "its worker was killed as it took the trial", queue=True)
            elif self.watch.is_silent(trial):
                place = trial.user_attrs.get("machine", "unknown")
                self._give_up(trial, f"its worker ({place}) has been silent for {SILENT_SECONDS:g} s", queue=True)

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
            if self._is_here(trial):
                try:
                    held.enter_context(trial_run(self.folder, trial.number).locked())
                except RunFailed:
                    continue
                return optuna.Trial(self.study, trial._trial_id)
        return None

    def _next(self, held: ExitStack) -> optuna.Trial | None:
        """A new trial, its run locked; None where there are as many as were asked for."""
        while not self._full():
            self.study.sampler = self.search.sampler_of(self._upcoming())
            trial = self.study.ask()
            directory = trial_run(self.folder, trial.number)
            with explained(directory.path):
                directory.path.mkdir(parents=True, exist_ok=True)
            held.enter_context(directory.locked())
            trial.set_user_attr("machine", self._machine)
            if (why := self._surplus(trial.number)) is None:
                return trial
            frozen = self.study.get_trials(deepcopy=False)[trial.number]
            self._give_up(frozen, why, queue=False)
        return None

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
                trial.set_user_attr("cause", f"{type(error).__name__}: {error}")
                self.study.tell(trial, state=TrialState.FAIL)
            else:
                self.study.tell(trial, values)
                return
        gc.collect()  # what an error holds, its tracebacks do: a whole network may be in it


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other workers on a study's folder from what is done in the block."""
    import fcntl

    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a")
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_best(worker: Worker) -> list[Path]:
    """`best.toml`, or one `best-NNNN.toml` for each trial that no other is better than by all of several scores.

    Each is the complete recipe of its trial, as `run` takes it. Empty while no trial is finished. Those of trials that
    are no longer among the best are removed.
    """
    if not worker.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        return []
    single = len(worker.study.directions) == 1
    written = []
    for trial in worker.study.best_trials[:1] if single else worker.study.best_trials:
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
