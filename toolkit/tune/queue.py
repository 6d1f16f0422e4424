"""Values that are tried next: the recipe's own, and those that were asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import TrialState

from toolkit.api.errors import Problem, UsageError, nearest
from toolkit.recipe.overrides import from_inline
from toolkit.tune.outcome import UNCOUNTED, cause
from toolkit.tune.space import Space, label


def enqueue_own(study: optuna.Study, own: Mapping[str, Any]) -> None:
    """Make the recipe's own values the first trial of a new study."""
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial(dict(own), user_attrs={"own": sorted(own)})


def enqueue(study: optuna.Study, space: Space, asked: Sequence[str], *, trials: int) -> list[str]:
    """Queue known-good values: each text is `key=value,key=value`. Values that the study has are skipped, with a note
    for each: these are returned.

    Raises UsageError, before any is queued, for values outside the space and where the study would end at its `trials`
    without them.
    """
    new, had = [], []
    # one that failed by no fault of its values is tried again
    tried = [trial for trial in study.get_trials(deepcopy=False) if UNCOUNTED not in trial.user_attrs]
    for text in asked:
        values = _values(space, text)
        same = (trial for trial in tried if values == trial.system_attrs.get("fixed_params", trial.params))
        trial = next(same, None)
        if trial is not None:
            failed = f" and failed: {cause(trial)}" if trial.state == TrialState.FAIL else ""
            had.append(f"--enqueue {text}: trial {trial.number} has these values{failed}")
        elif values not in new:
            new.append(values)
    taken = sum(trial.state != TrialState.FAIL for trial in study.get_trials(deepcopy=False))
    if new and taken + len(new) > trials:
        raise UsageError(
            f"study {study.study_name} has {taken} of its {trials} trials, begun or queued: "
            f"--enqueue asks for {len(new)} more",
            next_step=f"run the same command with --set tune.trials={taken + len(new)}",
        )
    for values in new:
        study.enqueue_trial(values)
    return had


def _values(space: Space, text: str) -> dict[str, Any]:
    known = {one.key: one for one in space.dimensions}
    found: dict[str, Any] = {}
    for part in _parts(text):
        key, equals, written = (piece.strip() for piece in part.partition("="))
        value = from_inline(written)
        if not equals:
            raise _not_enqueued(text, f'expected key=value, got "{part}"', known)
        if key not in known:
            raise _not_enqueued(text, str(Problem(key, "is not in the space", nearest(key, known))), known)
        if not known[key].holds(value):
            raise _not_enqueued(text, f"{written} is outside the space of {key}", known)
        found[key] = label(value)
    return found


def _parts(text: str) -> Iterator[str]:
    """`a=1,b=[{c = 2, d = 3}]` -> `a=1` and `b=[{c = 2, d = 3}]`."""
    part = ""
    for piece in re.split(r",(?=[^,=]+=)", text):
        part = f"{part},{piece}" if part else piece
        if _is_whole(part):
            yield part
            part = ""
    if part:
        yield part


def _is_whole(text: str) -> bool:
    """Whether every bracket and quote of this TOML is closed."""
    unquoted = re.sub(r'"(?:\\.|[^"\\])*"|\'[^\']*\'', "", text)
    pairs = (unquoted.count(left) == unquoted.count(right) for left, right in ("[]", "{}"))
    return all(pairs) and not {'"', "'"} & {*unquoted}


def _not_enqueued(text: str, why: str, known: Mapping[str, Any]) -> UsageError:
    return UsageError(f"--enqueue {text}: {why}", next_step=f"give values of {', '.join(known)} that are in the space")
