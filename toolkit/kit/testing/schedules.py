"""The rules of learning-rate schedules."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Iterator

import torch

from toolkit.api.contracts import Direction, Horizon, Schedule
from toolkit.kit.testing.case import Subject
from toolkit.kit.testing.rulebook import Rulebook

RULES = Rulebook("schedule")

USUAL = Horizon(steps_per_epoch=10, epochs=12)
SHORT = (Horizon(1, 1), Horizon(1, 7), Horizon(13, 1), Horizon(3, 2))
DIRECTIONS: tuple[Direction, ...] = ("maximize", "minimize")
SCORES = (0.5, 0.6, 0.6, 0.55, 0.4, 0.4, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7)
"""Of epochs: better, as good, worse, and long without a better one, in either direction."""
ODD_SCORES = (math.nan, -1.0, 0.0, math.inf, -math.inf, 1e30, math.nan)


@RULES.rule
def factors(subject: Subject) -> Iterator[str]:
    """The factor is a finite number, at least 0, at every step."""
    for direction in DIRECTIONS:
        schedule = build(subject, direction=direction)
        yield from wrong_factors(schedule, USUAL)


@RULES.rule
def horizon(subject: Subject) -> Iterator[str]:
    """Every step of training has a factor, even where training has only one step or one epoch."""
    for short in SHORT:
        yield from wrong_factors(build(subject, short), short)


@RULES.rule
def again(subject: Subject) -> Iterator[str]:
    """Asking for a factor changes nothing: the next answer is the same."""
    schedule = build(subject)
    for step in range(USUAL.steps):
        first, second = schedule.factor(step), schedule.factor(step)
        if first != second:
            yield f"at step {step} it is {first:.6g}, then {second:.6g}"
            return


@RULES.rule
def order(subject: Subject) -> Iterator[str]:
    """The factor does not depend on the steps asked for before: a resumed run starts at any step."""
    schedule, shuffled = build(subject), list(range(USUAL.steps))
    expected = [schedule.factor(step) for step in shuffled]
    random.Random(0).shuffle(shuffled)  # noqa: S311 - no secret
    schedule = build(subject)
    for step in shuffled:
        if (found := schedule.factor(step)) != expected[step]:
            yield f"at step {step} it is {found:.6g} out of order, {expected[step]:.6g} in order"
            return


@RULES.rule
def scores(subject: Subject) -> Iterator[str]:
    """Every score is accepted, NaN and infinite ones too, and factors stay finite and at least 0."""
    for direction in DIRECTIONS:
        schedule = build(subject, direction=direction)
        for score in (*SCORES, *ODD_SCORES):
            schedule.observe(score)
            if wrong := next(wrong_factors(schedule, USUAL), None):
                yield f"after a score of {score}: {wrong}"
                break


@RULES.rule
def state(subject: Subject) -> Iterator[str]:
    """A new schedule that loads the state of any epoch continues as if training never stopped."""
    for direction in DIRECTIONS:
        expected = followed(build(subject, direction=direction))
        for epochs in range(1, len(SCORES)):
            first, second = build(subject, direction=direction), build(subject, direction=direction)
            followed(first, end=epochs)
            saved = io.BytesIO()
            torch.save(first.state_dict(), saved)
            saved.seek(0)
            second.load_state_dict(torch.load(saved, weights_only=True))
            if followed(second, start=epochs) != expected[epochs:]:
                yield f"it differs from epoch {epochs} on"
                return


@RULES.rule
def apart(subject: Subject) -> Iterator[str]:
    """Two schedules share nothing: the scores of one do not change the other."""
    first, second, third = build(subject), build(subject), build(subject)
    expected = [first.factor(step) for step in range(USUAL.steps)]
    followed(second)
    if [third.factor(step) for step in range(USUAL.steps)] != expected:
        yield "the factors of one changed with the scores of another"


def build(subject: Subject, horizon: Horizon = USUAL, direction: Direction = "maximize") -> Schedule:
    """A fresh schedule."""
    schedule: Schedule = subject.build(horizon, direction)
    return schedule


def wrong_factors(schedule: Schedule, horizon: Horizon) -> Iterator[str]:
    """What is wrong with the factors of all steps."""
    for step in range(horizon.steps):
        factor = schedule.factor(step)
        if type(factor) not in (int, float):
            yield f"at step {step} of {horizon.steps} it is {type(factor).__name__}, not a float"
        elif not 0 <= factor < math.inf:
            yield f"at step {step} of {horizon.steps} it is {factor}"


def followed(schedule: Schedule, start: int = 0, end: int = len(SCORES)) -> list[list[float]]:
    """The factors of the steps of each of these epochs, at whose ends the scores are given."""
    found = []
    for epoch in range(start, end):
        first = epoch * USUAL.steps_per_epoch
        found.append([schedule.factor(step) for step in range(first, first + USUAL.steps_per_epoch)])
        schedule.observe(SCORES[epoch])
    return found
