"""One worker of a study: takes trials, trains each as a run, tells the study what became of it."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from toolkit.contracts import EpochRecord
from toolkit.directory import RunDirectory, explained
from toolkit.errors import Problem, RecipeError, RunFailed, Stopped
from toolkit.recipe import Draft, TuneTable, overridden
from toolkit.run import train_run
from toolkit.signals import Signalled, Signals, exit_code
from toolkit.tune.space import Space
from toolkit.tune.study import Aim, Grid, too_many_failures

LOOK_SECONDS = 0.5
"""How long a worker waits before it asks anew whether there is a trial to take."""


class ScoreMissing(RecipeError):  # noqa: N818 - it says what is wrong: a score is missing
    """No epoch has the score that the study looks for: every trial would fail."""


@dataclass(frozen=True)
class Worker:
    """Takes trials until the study has as many as were asked for."""

    study: optuna.Study
    space: Space
    aim: Aim
    tune: TuneTable
    source: str
    """The recipe's file."""
    folder: Path
    """The study's own: `runs/<study>`."""
    again: str
    """The command that goes on with the study."""

    def work(self) -> None:
        """Take one trial after another; wait for those of other workers, for they may leave one behind.

        Raises Stopped when a signal came, RunFailed after too many failures, RecipeError for a metric that no epoch
        has. What was finished or saved until then is kept.
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
                number = stopped.number if isinstance(stopped, Signalled) else None
                raise Stopped(
                    f"stopped by a signal; the study in {self.folder} keeps all trials and the last checkpoint",
                    exit_code=exit_code(number) if number else stopped.exit_code,  # type: ignore[union-attr]
                    next_step=self.again,
                ) from stopped

    def _take(self, signals: Signals) -> bool:
        """Take a trial and train it, or wait a little; False once there is nothing more to do."""
        with ExitStack() as held:
            with self._alone():
                trial = self._left_behind(held) or self._next(held)
                busy = self._running()
            if trial is not None:
                self._train(trial, signals)
                return True
        time.sleep(LOOK_SECONDS if busy else 0)
        return bool(busy)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other workers on this folder from taking a trial meanwhile."""
        import fcntl

        with explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / ".lock").open("a")
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _running(self) -> list[FrozenTrial]:
        """Trials under way on any machine; one whose worker was killed before it said where it is, is nobody's."""
        found = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [trial for trial in found if "machine" in trial.user_attrs]

    def _left_behind(self, held: ExitStack) -> optuna.Trial | None:
        """A trial of this machine whose worker is gone: its run is locked by nobody."""
        for trial in self._running():
            directory = self.directory(trial.number)
            if trial.user_attrs["machine"] == platform.node() and directory.path.is_dir():
                try:
                    held.enter_context(directory.locked())
                except RunFailed:
                    continue
                return optuna.Trial(self.study, trial._trial_id)
        return None

    def _next(self, held: ExitStack) -> optuna.Trial | None:
        done = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        full = len(done) + len(self._running()) >= self.tune.trials
        if full or (isinstance(self.study.sampler, Grid) and self.study.sampler.is_exhausted(self.study)):
            return None
        trial = self.study.ask()
        directory = self.directory(trial.number)
        with explained(directory.path):
            directory.path.mkdir(parents=True, exist_ok=True)
        held.enter_context(directory.locked())
        trial.set_user_attr("machine", platform.node())
        return trial

    def directory(self, number: int) -> RunDirectory:
        """The run of a trial."""
        return RunDirectory(self.folder / f"trial-{number:04}")

    def _train(self, trial: optuna.Trial, signals: Signals) -> None:
        try:
            values = self._values(trial, signals)
        except (Stopped, ScoreMissing):
            raise
        except optuna.TrialPruned:
            self.study.tell(trial, state=TrialState.PRUNED)
        except Exception as error:  # whatever a trial's values bring about is that trial's end alone
            trial.set_user_attr("cause", f"{type(error).__name__}: {error}")
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self.study.tell(trial, values)

    def _values(self, trial: optuna.Trial, signals: Signals) -> list[float]:
        """The scores of the trial's best epoch. Raises TrialPruned once it is too poor to go on."""
        known = self.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        best: list[float] | None = None
        directory = self.directory(trial.number)
        draft = self._draft(trial)
        with closing(train_run(draft, directory, signals=signals, console=Console(quiet=True))) as records:
            for record in records:
                scores = self._scores(record)
                best = scores if best is None or self.aim.better(scores[0], best[0]) else best
                if len(scores) == 1 and record.epoch not in known:
                    trial.report(scores[0], record.epoch)
                    if trial.should_prune() and draft.recipe and record.epoch < draft.recipe.train.epochs:
                        raise optuna.TrialPruned
        if best is None:
            raise RunFailed(f"{directory.path}: ended without an epoch")
        return best

    def _draft(self, trial: optuna.Trial) -> Draft:
        """The trial's recipe: by its values, or the study's own as it stands."""
        own = trial.user_attrs.get("own")
        if own is None:
            return overridden(self.space.recipe, self.source, self.space.suggest(trial))
        for one in self.space.dimensions:
            if one.key in own:
                one.suggest(trial)
        return overridden(self.space.recipe, self.source, [])

    def _scores(self, record: EpochRecord) -> list[float]:
        missing = [metric for metric in self.aim.metrics if metric not in record.valid]
        if missing:
            there = ", ".join(record.valid) or "none, for this data has no validation split"
            problem = Problem("tune.metric", f'there is no score "{missing[0]}" of an epoch; there are {there}')
            raise ScoreMissing(
                self.source, [problem], next_step="name one of them, or give the data a validation split"
            )
        scores = [record.valid[metric] for metric in self.aim.metrics]
        if not all(math.isfinite(score) for score in scores):
            raise RunFailed(f"epoch {record.epoch}: the score is not finite")
        return scores


def write_best(worker: Worker) -> list[Path]:
    """`best.toml`, or one `best-NNNN.toml` for each trial that no other is better than by all of several scores.

    Each is the complete recipe of its trial, as `run` takes it. Empty while no trial is finished.
    """
    single = len(worker.aim.metrics) == 1
    written = []
    for trial in worker.study.best_trials:
        path = worker.folder / ("best.toml" if single else f"best-{trial.number:04}.toml")
        text = worker.directory(trial.number).recipe.read_text(encoding="utf-8")
        RunDirectory(worker.folder).write_text(path.name, text)
        written.append(path)
        if single:
            break
    return written
