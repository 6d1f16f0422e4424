"""The JSON Schema of a recipe with every installed component, so that editors complete and check TOML."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from toolkit.api.errors import PluginError
from toolkit.build.plan import CORE_KINDS, core_factory, core_names
from toolkit.host.registry import HOOKS, Registry
from toolkit.recipe import signature as arguments
from toolkit.recipe.signature import GIVEN_BY_CORE
from toolkit.recipe.tables import Recipe

Schema: TypeAlias = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TABLES = {
    "dataset": "DataTable",
    "task": "TaskTable",
    "optimizer": "OptimizerTable",
    "schedule": "ScheduleTable",
}
_CLOSED = frozenset({"InputTable", "ClipTable", "TrainTable", "PartRates", "ExportTable", "Limits", "TuneTable"})
_OPEN = ("SamplerTable", "PrunerTable")
_LISTS = {"augment": "augmentation", "metrics": "metric", "trackers": "tracker"}


def recipe_schema(registry: Registry) -> Schema:
    """JSON Schema (draft 2020-12) of a recipe file; `$comment` names what broken plugins keep out of it.

    Imports every component. A component named `distribution:component` is accepted with any arguments.
    """
    schema = Recipe.model_json_schema()
    tables, top = schema["$defs"], schema["properties"]
    del top["name"]
    schema["required"].remove("name")
    left_out = [str(broken) for broken in registry.broken]
    components = {
        kind: _component(kind, tables[_TABLES.get(kind, "Use")], _described(registry, kind, left_out))
        for kind in (*HOOKS.values(), *CORE_KINDS)
    }
    for key, kind in _LISTS.items():
        top[key]["items"] = _reference(kind)
    top |= {"data": _reference("dataset"), "model": _reference("model"), "task": _reference("task")}
    tables["TrainTable"]["properties"] |= {kind: _reference(kind) for kind in CORE_KINDS}
    for name in _OPEN:
        tables[name] = {"anyOf": [{"type": "string"}, tables[name]]}
    kept = {name: table for name, table in tables.items() if name in {*_CLOSED, *_OPEN}}
    comment = {"$comment": f"left out: {'; '.join(left_out)}"} if left_out else {}
    whole: Schema = _tidy(schema | {"$defs": kept | components})
    return {"$schema": DIALECT, **comment, **whole}


def _reference(kind: str) -> Schema:
    return {"$ref": f"#/$defs/{kind}"}


def _described(registry: Registry, kind: str, left_out: list[str]) -> list[tuple[str, Schema]]:
    """Name and table of arguments of every component of a kind; what cannot be described is added to `left_out`."""
    if kind in CORE_KINDS:
        return [(name, _arguments(core_factory(kind, name), kind)) for name in core_names(kind)]
    offers = registry.offers(kind)
    times = Counter(offer.name for offer in offers)
    found = []
    for offer in offers:
        name = offer.name if times[offer.name] == 1 else f"{offer.plugin.distribution}:{offer.name}"
        try:
            found.append((name, _arguments(offer.load(), kind)))
        except PluginError as error:
            left_out.append(error.message)
        except (TypeError, ValueError) as error:
            left_out.append(offer.failed("has an unusable signature", error).message)
    return found


def _arguments(factory: Callable[..., Any] | None, kind: str) -> Schema:
    return arguments.json_schema(factory, skip=GIVEN_BY_CORE.get(kind, ())) if factory else {}


def _component(kind: str, table: Schema, described: Iterable[tuple[str, Schema]]) -> Schema:
    """One closed branch for all components that take the same arguments, and the short form, a name alone."""
    alike: dict[str, list[str]] = {}
    for name, schema in described:
        alike.setdefault(json.dumps(schema), []).append(name)
    branches = [_branch(table, names, json.loads(schema)) for schema, names in alike.items()]
    short = [name for branch in branches if set(branch["required"]) <= {"name"} for name in _names(branch)]
    alone = [{"enum": sorted(short)}] if short else []
    elsewhere = [] if kind in CORE_KINDS else [_named_in_full(table)]
    return {"anyOf": [*alone, *branches, *elsewhere], "description": table["description"]}


def _names(branch: Schema) -> list[str]:
    names: list[str] = branch["properties"]["name"]["enum"]
    return names


def _branch(table: Schema, names: list[str], own: Schema) -> Schema:
    """The table's keys win over arguments of the same name, as they do when a recipe is read."""
    usual = table["properties"]["name"].get("default")
    properties = own.get("properties", {}) | table["properties"] | {"name": {"enum": names}}
    required = {*table.get("required", ()), *own.get("required", ()), *(() if usual in names else ("name",))}
    return {"type": "object", "properties": properties, "required": sorted(required), "additionalProperties": False}


def _named_in_full(table: Schema) -> Schema:
    return table | {"properties": table["properties"] | {"name": {"type": "string", "pattern": ":"}}}


def _tidy(schema: Any) -> Any:
    """Without what TOML cannot hold (null) and what only repeats a key (titles)."""
    if isinstance(schema, list):
        return [_tidy(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _tidy_named(key, value) for key, value in schema.items() if not _is_noise(key, value)}
    if "anyOf" in kept:
        kept["anyOf"] = [member for member in kept["anyOf"] if member != {"type": "null"}]
        if len(kept["anyOf"]) == 1:
            kept |= kept.pop("anyOf")[0]
    return kept


def _tidy_named(key: str, value: Any) -> Any:
    """Below `properties` and `$defs` stand names that people chose; `title` and `default` may be among them."""
    return {name: _tidy(inner) for name, inner in value.items()} if key in {"properties", "$defs"} else _tidy(value)


def _is_noise(key: str, value: Any) -> bool:
    return key == "title" or (key == "default" and (value is None or isinstance(value, dict)))
