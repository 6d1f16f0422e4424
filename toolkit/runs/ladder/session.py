"""Climbing a ladder: one step after the other, each scored on the same items; what is finished is kept."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from rich.console import Console
from torch import nn

from toolkit.api.contracts import Headed, KnowsNames, Pretraining
from toolkit.api.errors import UsageError, counted
from toolkit.build.assemble import Assembly, assemble
from toolkit.build.featuring import training_of_run
from toolkit.build.kept import Kept
from toolkit.build.plan import plan
from toolkit.host.registry import discover
from toolkit.recipe.kinds import KINDS
from toolkit.recipe.read import load
from toolkit.recipe.tables import Recipe
from toolkit.recipe.write import to_toml
from toolkit.runs.compare.comparison import compare
from toolkit.runs.compare.contender import Contender
from toolkit.runs.directory import RunDirectory, create
from toolkit.runs.evaluation import Scored, keep_evaluation, run_facts, score_splits
from toolkit.runs.files import read_run
from toolkit.runs.ladder.measuring import forget_peak, latency, peak
from toolkit.runs.ladder.probe import Majority, fit_probe
from toolkit.runs.ladder.steps import NO_GAIN, ZERO_SHOT, Climb, Cost, Step
from toolkit.runs.ladder.summary import summarise
from toolkit.runs.latest import point_at
from toolkit.runs.session import resume_run
from toolkit.system import device as devices
from toolkit.system.notices import say, show
from toolkit.system.signals import Signals, stopping
from toolkit.training.network import Network


def start_ladder(
    recipes: Sequence[tuple[Step, Recipe]], *, until: str, runs: Path, words: Sequence[str], console: Console
) -> Path:
    """Climb in a new folder below `runs`, which is returned. `words` are the command line, for what it may end with.

    Raises UsageError where the model has no backbone and head, or an item has not one class.
    """
    first = recipes[0][1]
    if not _require_steps(first, words):
        recipes = _without_zero_shot(recipes, until)
    folder = create(runs, first.name).path
    for step, recipe in recipes:
        run = RunDirectory(folder / step.name)
        with run.explained():
            run.path.mkdir()
        run.write_text(run.recipe, to_toml(recipe))
    Climb(until, [step.name for step, _ in recipes], {}).write(folder)  # last: a folder that has it holds every recipe
    return resume_ladder(folder, console=console)


def resume_ladder(folder: Path, *, console: Console) -> Path:
    """Go on from where a ladder stopped."""
    climb = Climb.read(folder)
    again = shlex.join(["python", "-m", "toolkit", "ladder", "--resume", str(folder)])
    with RunDirectory(folder).locked(), Signals(), stopping("finished steps are kept", again):
        show(f"ladder {folder}: {counted(len(climb.steps), 'step')}", console=console)
        done = _Climber(folder, climb, console).climb()
        summarise(folder, done, Climb.read(folder), console)
    return folder


@devices.enough_memory()
def _require_steps(recipe: Recipe, words: Sequence[str]) -> bool:
    """Whether the model answers without training. Raises UsageError where the model or the data has no ladder."""
    assembly = assemble(plan(recipe, discover()))
    model = recipe.model.name
    if not isinstance(assembly.network.model, Headed):
        step = shlex.join(["python", "-m", "toolkit", *words, "--set", "model=resnet18"])
        raise UsageError(f'ladder: model "{model}" has no backbone and head of its own', next_step=f"try: {step}")
    if isinstance(assembly.objective, Pretraining):
        step = shlex.join(["python", "-m", "toolkit", *words, "--set", f"task={{name='{KINDS['task'].usual[0]}'}}"])
        raise UsageError(
            f'ladder: task "{recipe.task.name}" learns features and no answers', next_step=f"learn answers: {step}"
        )
    if assembly.spec.targets != "index":
        raise UsageError("ladder: items have not one class each", next_step="use data with one class for each item")
    if not len(assembly.data.valid) + len(assembly.data.test):
        raise UsageError(
            "ladder: the data has neither a validation nor a test split, so nothing is scored",
            next_step=f"divide it: {shlex.join(['python', '-m', 'toolkit', *words, '--set', 'data.test_share=0.2'])}",
        )
    return isinstance(assembly.network.model, KnowsNames) and assembly.network.model.zero_shot


def _without_zero_shot(recipes: Sequence[tuple[Step, Recipe]], until: str) -> list[tuple[Step, Recipe]]:
    if until == ZERO_SHOT:
        model = recipes[0][1].model.name
        raise UsageError(
            f'ladder: model "{model}" does not know classes by their names, so it has no step {ZERO_SHOT}',
            next_step=f"use one that does: python -m toolkit ladder har_openclip --until {ZERO_SHOT}",
        )
    return [(step, recipe) for step, recipe in recipes if step.name != ZERO_SHOT]


@dataclass
class _Climber:
    folder: Path
    state: Climb
    console: Console

    def climb(self) -> list[Contender]:
        """The steps that are done, up to the last one that pays where the ladder stops there."""
        steps, done = self.state.steps, list[Contender]()
        for number, step in enumerate(steps, 1):
            run = RunDirectory(self.folder / step.name)
            if not (run.scores.is_file() and run.report.is_file()):
                say(f"step {number} of {len(steps)}: {step.title}", self.console, style="bold")
                with self._counted(step):
                    self._take(step, run)
            done.append(Contender(step.name, (read_run(run.path),)))
            if self.state.until == NO_GAIN and not _pays(done):
                say(
                    f'"{step.name}" is not better than the steps before it, beyond chance: the ladder ends',
                    self.console,
                )
                break
        return done

    def _take(self, step: Step, run: RunDirectory) -> None:
        if step.trained:
            point_at(run.path.absolute(), self.folder.absolute().parent.parent)
            prepared = resume_run(run.path, recipe=None, overrides=(), console=self.console)
            self._know(step, prepared.assembly, prepared.assembly.network)
        else:
            self._answer(step, run)

    @devices.enough_memory()
    def _answer(self, step: Step, run: RunDirectory) -> None:
        """Score answers that no epoch was trained for, and keep them as an evaluation is kept."""
        assembly = assemble(plan(load(run.recipe, name=self.folder.parent.name), discover()), Kept())
        network, remarks = self._untrained(step, assembly)
        scored = Scored.of_run(assembly, remarks)
        evaluated = score_splits(replace(assembly, network=cast(Network, network)), scored, 0)
        run.write_json(run.environment, assembly.environment())
        keep_evaluation(run, evaluated, run_facts(scored, assembly, run), Console(quiet=True))
        self._know(step, assembly, network)
        for text in remarks:
            say(text, self.console)

    def _untrained(self, step: Step, assembly: Assembly) -> tuple[nn.Module, list[str]]:
        """What answers in this step, and what there is to say of it."""
        if step.name == ZERO_SHOT:
            return assembly.network.eval(), ["answers by the names of the classes, before any training"]
        if step.name == "probe":
            probe, strength = fit_probe(assembly, _features(assembly, self.console))
            return probe, [f"logistic regression on frozen features, C = {strength:g} by cross-validation"]
        majority = Majority(_classes(assembly), len(assembly.spec.classes))
        return majority.to(assembly.device), ["answers of the most frequent class"]

    def _know(self, step: Step, assembly: Assembly, network: nn.Module) -> None:
        """Remember what the step needs besides time."""
        asked = math.nan if step.name == "majority" else latency(network, assembly)
        known = self.state.costs[step.name]
        self._write(step, replace(known, memory=peak(assembly.device), latency=asked))

    @contextmanager
    def _counted(self, step: Step) -> Iterator[None]:
        """Add the time that the block takes to that of the step, however it ends."""
        before = self.state.costs.get(step.name, Cost(0.0, 0, math.nan))
        self._write(step, before)
        forget_peak()
        started = time.monotonic()
        try:
            yield
        finally:
            spent = before.seconds + time.monotonic() - started
            self._write(step, replace(self.state.costs[step.name], seconds=spent))

    def _write(self, step: Step, cost: Cost) -> None:
        costs: Mapping[str, Cost] = {**self.state.costs, step.name: cost}
        self.state = replace(self.state, costs=costs)
        self.state.write(self.folder)


def _classes(assembly: Assembly) -> list[int]:
    return [target for target in assembly.data.train.targets if isinstance(target, int)]


def _features(assembly: Assembly, console: Console) -> torch.Tensor:
    """Of the training items, in order."""
    from toolkit.runs.screen import features_line

    _, setup = training_of_run(assembly)
    if setup.features is None:
        raise AssertionError("the recipe of this step asks for features")
    for event in setup.features.ready(1):
        if event.done == event.count:
            unit = "clips" if assembly.spec.clip else "images"
            show(features_line(event, unit, width=console.width), console=console)
    return setup.features.rows("train")[0]


def _pays(done: Sequence[Contender]) -> bool:
    """Whether the last step is better than the best one before it, beyond chance."""
    if len(done) < 2:
        return True
    *before, last = done
    best = max(before, key=lambda one: math.fsum(one.items.values()))
    (pair,) = compare([best, last]).pairs
    return pair.significant and pair.gain > 0
