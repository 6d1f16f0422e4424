"""A recipe: what a run is made of, read from TOML, checked and frozen. Reading one runs no code of any plugin.

What a component takes besides its name is checked by `toolkit.components` against the component's signature.
"""

from __future__ import annotations

from toolkit.recipe.draft import Draft, Used, used
from toolkit.recipe.overrides import from_inline
from toolkit.recipe.read import invalid, load, overridden, parse, parse_text
from toolkit.recipe.tables import (
    METRICS,
    ClipTable,
    DataTable,
    ExportTable,
    InputTable,
    Limits,
    OptimizerTable,
    PartRates,
    PrunerTable,
    Recipe,
    SamplerTable,
    ScheduleTable,
    TomlArray,
    TrainTable,
    TuneTable,
    Use,
    plain,
)
from toolkit.recipe.write import computed, digest, inline, to_toml

__all__ = [
    "METRICS",
    "ClipTable",
    "DataTable",
    "Draft",
    "ExportTable",
    "InputTable",
    "Limits",
    "OptimizerTable",
    "PartRates",
    "PrunerTable",
    "Recipe",
    "SamplerTable",
    "ScheduleTable",
    "TomlArray",
    "TrainTable",
    "TuneTable",
    "Use",
    "Used",
    "computed",
    "digest",
    "from_inline",
    "inline",
    "invalid",
    "load",
    "overridden",
    "parse",
    "parse_text",
    "plain",
    "to_toml",
    "used",
]
