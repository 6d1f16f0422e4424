"""Which keys each of the core's own tables has, and where a key belongs that stands in the wrong one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pydantic import BaseModel

from toolkit.api.errors import Problem
from toolkit.recipe.complaints import UNKNOWN_KEY
from toolkit.recipe.tables import (
    ClipTable,
    ExportTable,
    InputTable,
    Limits,
    OptimizerTable,
    PartRates,
    Recipe,
    ScheduleTable,
    TrainTable,
    TuneTable,
)

_TABLES: Mapping[str, type[BaseModel]] = {
    "": Recipe,
    "input": InputTable,
    "clip": ClipTable,
    "train": TrainTable,
    "train.optimizer": OptimizerTable,
    "train.schedule": ScheduleTable,
    "export": ExportTable,
    "tune": TuneTable,
}


def keys_of(table: str) -> list[str]:
    """The keys that the table with this dotted name may have."""
    model = _TABLES.get(table, Limits if table.startswith("export.") else PartRates)
    return [key for key in model.model_fields if (table, key) != ("", "name")]


def at_home(problem: Problem) -> Problem:
    """`problem`; an unknown key that just one table has, by this very name, is suggested there."""
    key = problem.key.rpartition(".")[2]
    homes = [table for table in _TABLES if key in keys_of(table)]
    if problem.message != UNKNOWN_KEY or len(homes) != 1:
        return problem
    return replace(problem, suggestion=f"{homes[0]}.{key}" if homes[0] else key)
