"""A study: Optuna's, in a storage that outlives every worker, of one space and one aim."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from toolkit.api.errors import RunFailed, UsageError
from toolkit.recipe.tables import Recipe, TuneTable
from toolkit.recipe.write import computed, digest, inline
from toolkit.tune.aim import Aim
from toolkit.tune.search import Search
from toolkit.tune.space import Space

UNCOUNTED = "uncounted"
"""The user attribute of a failed trial that failed by no fault of its values."""


def open_study(
    recipe: Recipe, tune: TuneTable, space: Space, aim: Aim, search: Search, storage: BaseStorage
) -> optuna.Study:
    """The study of this recipe in `storage`, made now or gone on with.

    A study is what its recipe, space and aim are; sampler, pruner and number of trials may change. Raises UsageError
    where the storage has a study of this name that is another.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        storage=storage,
        study_name=recipe.name,
        directions=list(aim.directions),
        sampler=search.sampler,
        pruner=search.pruner,
        load_if_exists=True,
    )
    now = identity(recipe, tune, space, aim)
    before = study.user_attrs.get("identity")
    if before is None:
        study.set_user_attr("identity", now)
    elif changed := differences(before, now):
        raise UsageError(
            f"study {recipe.name} was begun otherwise: {'; '.join(changed)}",
            next_step="take the change back, or tune a copy of the recipe under another name",
        )
    return study


def identity(recipe: Recipe, tune: TuneTable, space: Space, aim: Aim) -> dict[str, Any]:
    """What tells one study from another, as JSON has it."""
    return {
        "recipe": digest(recipe),
        "values": {key: inline(value) for key, value in _flat(computed(recipe)).items()},
        "metrics": list(aim.metrics),
        "directions": list(aim.directions),
        "seeds_per_trial": tune.seeds_per_trial,
        "space": space.described(),
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What of a study's identity has changed, in words."""
    found = [
        f"{key} {', '.join(before[key])}, now {', '.join(now[key])}"
        for key in ("metrics", "directions")
        if before[key] != now[key]
    ]
    if before["seeds_per_trial"] != now["seeds_per_trial"]:
        found.append(f"seeds_per_trial {before['seeds_per_trial']}, now {now['seeds_per_trial']}")
    old, new = before["space"], now["space"]
    found += [
        f"tune.space.{key} {_told(old.get(key))}, now {_told(new.get(key))}"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]
    if before["recipe"] != now["recipe"]:
        old, new = before.get("values", {}), now["values"]
        found += [
            f"{key} {old.get(key, 'absent')}, now {new.get(key, 'absent')}"
            for key in sorted({*old, *new} if old else ())
            if old.get(key) != new.get(key)
        ] or ["the recipe itself has other values"]
    return found


def _flat(tables: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Dotted key to value, of tables in tables."""
    found: dict[str, Any] = {}
    for key, value in tables.items():
        found |= _flat(value, f"{above}{key}.") if isinstance(value, Mapping) and value else {f"{above}{key}": value}
    return found


def _told(values: Any) -> str:
    return "absent" if values is None else json.dumps(values)


def too_many_failures(study: optuna.Study, limit: int) -> RunFailed | None:
    """The error that ends a study, once `limit` trials have failed by what they tried."""
    ended = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    failed = [trial for trial in ended if UNCOUNTED not in trial.user_attrs]
    if len(failed) < limit:
        return None
    return RunFailed(
        f"study {study.study_name}: {len(failed)} trials failed, the last by {failed[-1].user_attrs.get('cause')}",
        next_step="mend the cause or narrow the space; more are allowed with --set tune.max_failures=N",
    )
