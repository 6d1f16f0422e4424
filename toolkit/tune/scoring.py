"""The scores of a trial: its runs, one for each of its seeds, and the mean of what they reach."""

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
from toolkit.recipe.draft import Draft
from toolkit.recipe.read import load, overridden
from toolkit.runs.directory import RunDirectory, explained
from toolkit.runs.loop import Records
from toolkit.runs.session import train_run
from toolkit.system import device as devices
from toolkit.system.signals import Signals
from toolkit.tune.aim import LATENCY
from toolkit.tune.latency import Latencies
from toolkit.tune.storage import repeat_of, trial_run
from toolkit.tune.study import StudyPlan
from toolkit.tune.worker.ranked import train_on_ranks


class ScoreMissing(RecipeError):  # noqa: N818 - it says what is wrong: a score is missing
    """No epoch has the score that the study looks for: every trial would fail."""


@dataclass(frozen=True)
class Scoring:
    """Trains the runs of trials, one after another; what they share is kept in this process."""

    study: optuna.Study
    planned: StudyPlan
    folder: Path
    """The study's own."""
    threads: int | None = None
    """Threads of a trial on the CPU, of each of its ranks, whose recipe gives none; None: torch's own choice."""
    ranks: int = 1
    """Processes that train a run."""
    kept: Kept = field(default_factory=Kept)
    latencies: Latencies = field(default_factory=Latencies)

    def values(self, trial: optuna.Trial, signals: Signals) -> list[float]:
        """One number for each metric: the mean over the trial's seeds of the scores of the weights that each run
        keeps. Raises TrialPruned once the trial is too poor to go on."""
        aim, planned = self.planned.aim, plan(self.draft(trial), self.planned.registry)
        latency = self.latencies.of(planned, self.kept) if aim.times else math.nan
        by_seed: list[list[float]] = []
        for number in range(self.planned.tune.seeds_per_trial):
            by_seed.append(self._trained(trial, planned, number, signals))
            if self._compares_seeds:
                last = number == self.planned.tune.seeds_per_trial - 1
                self._report(trial, by_seed[-1][0], number, last=last)
        means = dict(zip(aim.scores, map(fmean, zip(*by_seed, strict=True)), strict=True))
        return [(means | {LATENCY: latency})[metric] for metric in aim.metrics]

    def draft(self, trial: optuna.Trial) -> Draft:
        """The trial's recipe: by its values, or the study's own unchanged."""
        space, recipe = self.planned.space, self.planned.space.recipe
        own = trial.user_attrs.get("own")
        if own is None:
            overrides = space.suggest(trial)
        else:
            overrides = []
            for one in space.dimensions:
                if one.key in own:
                    one.suggest(trial)
        # Another number of threads rounds otherwise, so a run that was begun goes on with as many.
        begun = trial_run(self.folder, trial.number).recipe
        threads = load(begun).train.threads if begun.is_file() else self.threads
        free = recipe.train.threads is None and all(one.key != "train.threads" for one in space.dimensions)
        if threads is not None and free and devices.choose_device(recipe.train.device).type == "cpu":
            overrides = [*overrides, f"train.threads={threads}"]
        return overridden(recipe, self.planned.source, overrides)

    def _trained(self, trial: optuna.Trial, planned: Plan, number: int, signals: Signals) -> list[float]:
        """The scores of the weights that one run keeps: those of its best epoch by `train.metric`."""
        run = repeat_of(trial_run(self.folder, trial.number), number)
        seeded = planned.resolved.model_copy(update={"seed": planned.resolved.seed + number})
        reported = number == 0 and len(self.planned.aim.metrics) == 1 and not self._compares_seeds
        best: list[float] | None = None
        with ExitStack() as held:
            if number:
                with explained(run.path):
                    run.path.mkdir(parents=True, exist_ok=True)
                held.enter_context(run.locked())  # the first run is locked by who took the trial
            training = self._training(replace(planned, resolved=seeded), run, signals)
            for record in held.enter_context(_ended(training)):
                scores = self.scores(record)
                best = scores if record.best else best
                if reported:
                    self._report(trial, scores[0], record.epoch, last=record.epoch >= seeded.train.epochs)
        if best is None:
            raise RunFailed(f"{run.path}: ended without an epoch")
        return best

    def _training(self, planned: Plan, run: RunDirectory, signals: Signals) -> Records:
        if self.ranks == 1:
            return train_run(planned, run, kept=self.kept, signals=signals)
        return train_on_ranks(planned, run, ranks=self.ranks)

    @property
    def _compares_seeds(self) -> bool:
        """Whether the pruner compares seed with seed, not epoch with epoch."""
        return isinstance(self.study.pruner, WilcoxonPruner) and len(self.planned.aim.metrics) == 1

    def _report(self, trial: optuna.Trial, score: float, step: int, *, last: bool) -> None:
        """Report to the study, unless that was done before the trial was interrupted. Raises TrialPruned."""
        if step in self.study.get_trials(deepcopy=False)[trial.number].intermediate_values:
            return
        trial.report(score, step)
        if not last and trial.should_prune():
            raise optuna.TrialPruned

    def scores(self, record: EpochRecord) -> list[float]:
        """The epoch's scores that the study looks for."""
        missing = [metric for metric in self.planned.aim.scores if metric not in record.valid]
        if missing:
            there = ", ".join(record.valid) or "none (the dataset has no validation split)"
            problem = Problem("tune.metric", f'no score "{missing[0]}" is computed per epoch; available: {there}')
            next_step = "name one of them, or give the data a validation split"
            raise ScoreMissing(self.planned.source, [problem], next_step=next_step)
        scores = [record.valid[metric] for metric in self.planned.aim.scores]
        if not all(math.isfinite(score) for score in scores):
            raise RunFailed(f"epoch {record.epoch}: the score is not finite")
        return scores


@contextmanager
def _ended(training: Records) -> Iterator[Records]:
    """Close the training with the block, and pass it an error that ends the block: a trial that fails by its score
    has failed for the recipe's trackers too."""
    try:
        yield training
    except optuna.TrialPruned:
        raise
    except Exception as error:
        training.throw(error)
    finally:
        training.close()
