"""What the values of a trial are worth: its runs trained, one for each of its seeds, and their scores."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean

import optuna
from optuna.pruners import WilcoxonPruner

from toolkit.api.contracts import EpochRecord
from toolkit.api.errors import Problem, RecipeError, RunFailed
from toolkit.build.kept import Kept
from toolkit.build.plan import Plan, plan
from toolkit.host.registry import Registry, discover
from toolkit.recipe.draft import Draft
from toolkit.recipe.read import load, overridden
from toolkit.recipe.tables import TuneTable
from toolkit.runs.directory import explained
from toolkit.runs.session import Records, train_run
from toolkit.system import device as devices
from toolkit.system.signals import Signals
from toolkit.tune.aim import LATENCY, Aim
from toolkit.tune.folder import repeat_of, trial_run
from toolkit.tune.latency import Latencies
from toolkit.tune.space import Space


class ScoreMissing(RecipeError):  # noqa: N818 - it says what is wrong: a score is missing
    """No epoch has the score that the study looks for: every trial would fail."""


@dataclass(frozen=True)
class Scoring:
    """Trains the runs of trials, one after another; what they share is kept in this process."""

    study: optuna.Study
    space: Space
    aim: Aim
    tune: TuneTable
    source: str
    """The recipe's file."""
    folder: Path
    """The study's own."""
    threads: int | None = None
    """Threads of a trial that computes on the CPU and says nothing of them; None: torch's own choice."""
    registry: Registry = field(default_factory=discover)
    kept: Kept = field(default_factory=Kept)
    latencies: Latencies = field(default_factory=Latencies)

    def values(self, trial: optuna.Trial, signals: Signals) -> list[float]:
        """One number for each metric: the mean over the trial's seeds of the scores of the weights that each run
        keeps. Raises TrialPruned once the trial is too poor to go on."""
        planned = self._planned(trial)
        latency = self.latencies.of(planned, self.kept) if self.aim.times else math.nan
        found: list[list[float]] = []
        for number in range(self.tune.seeds_per_trial):
            found.append(self._trained(trial, planned, number, signals))
            self._compare_seeds(trial, number, found[-1][0])
        means = dict(zip(self.aim.scores, map(fmean, zip(*found, strict=True)), strict=True))
        return [(means | {LATENCY: latency})[metric] for metric in self.aim.metrics]

    def draft(self, trial: optuna.Trial) -> Draft:
        """The trial's recipe: by its values, or the study's own as it stands."""
        own = trial.user_attrs.get("own")
        if own is None:
            return self._with_threads(trial, self.space.suggest(trial))
        for one in self.space.dimensions:
            if one.key in own:
                one.suggest(trial)
        return self._with_threads(trial, [])

    def _planned(self, trial: optuna.Trial) -> Plan:
        return plan(self.draft(trial), self.registry)

    def _with_threads(self, trial: optuna.Trial, overrides: list[str]) -> Draft:
        """Another number of threads rounds otherwise, so a run that was begun goes on with as many."""
        recipe = self.space.recipe
        begun = trial_run(self.folder, trial.number).recipe
        threads = load(begun).train.threads if begun.is_file() else self.threads
        free = recipe.train.threads is None and all(one.key != "train.threads" for one in self.space.dimensions)
        if threads is not None and free and devices.choose_device(recipe.train.device).type == "cpu":
            overrides = [*overrides, f"train.threads={threads}"]
        return overridden(recipe, self.source, overrides)

    def _trained(self, trial: optuna.Trial, planned: Plan, number: int, signals: Signals) -> list[float]:
        """The scores of the weights that one run keeps: those of its best epoch by `train.metric`."""
        run = repeat_of(trial_run(self.folder, trial.number), number)
        seeded = planned.resolved.model_copy(update={"seed": planned.resolved.seed + number})
        reported = number == 0 and len(self.aim.metrics) == 1 and not self._compares_seeds
        kept: list[float] | None = None
        with ExitStack() as held:
            if number:
                with explained(run.path):
                    run.path.mkdir(parents=True, exist_ok=True)
                held.enter_context(run.locked())  # the first run is locked by who took the trial
            training = train_run(replace(planned, resolved=seeded), run, kept=self.kept, signals=signals)
            for record in held.enter_context(_ended(training)):
                scores = self.scores(record)
                kept = scores if record.best else kept
                if reported:
                    self._report(trial, scores[0], record.epoch, last=seeded.train.epochs)
        if kept is None:
            raise RunFailed(f"{run.path}: ended without an epoch")
        return kept

    @property
    def _compares_seeds(self) -> bool:
        return isinstance(self.study.pruner, WilcoxonPruner)

    def _compare_seeds(self, trial: optuna.Trial, number: int, score: float) -> None:
        """Report a seed's score where the pruner compares seed with seed, not epoch with epoch."""
        if self._compares_seeds and len(self.aim.metrics) == 1:
            self._report(trial, score, number, last=self.tune.seeds_per_trial - 1)

    def _report(self, trial: optuna.Trial, score: float, step: int, *, last: int) -> None:
        """Tell the study, unless it has been told before the trial was interrupted. Raises TrialPruned."""
        known = self.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        if step in known:
            return
        trial.report(score, step)
        if step < last and trial.should_prune():
            raise optuna.TrialPruned

    def scores(self, record: EpochRecord) -> list[float]:
        """The epoch's scores that the study looks for."""
        missing = [metric for metric in self.aim.scores if metric not in record.valid]
        if missing:
            there = ", ".join(record.valid) or "none, for this data has no validation split"
            problem = Problem("tune.metric", f'there is no score "{missing[0]}" of an epoch; there are {there}')
            raise ScoreMissing(
                self.source, [problem], next_step="name one of them, or give the data a validation split"
            )
        scores = [record.valid[metric] for metric in self.aim.scores]
        if not all(math.isfinite(score) for score in scores):
            raise RunFailed(f"epoch {record.epoch}: the score is not finite")
        return scores


@contextmanager
def _ended(training: Records) -> Iterator[Records]:
    """Training that is left with the block, and hears of an error that ends it: a trial that fails by its score has
    failed for the recipe's trackers too."""
    try:
        yield training
    except optuna.TrialPruned:
        raise
    except Exception as error:
        training.throw(error)
    finally:
        training.close()
