"""The JSON Schema of a recipe with every installed component, so that editors complete and check TOML."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any, TypeAlias

from toolkit.api.errors import PluginError
from toolkit.host.registry import Registry
from toolkit.recipe.checking import json_schema
from toolkit.recipe.descriptions import descriptions
from toolkit.recipe.kinds import KINDS
from toolkit.recipe.tables import Recipe, table_of

Schema: TypeAlias = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_CLOSED = frozenset({"InputTable", "ClipTable", "TrainTable", "PartRates", "ExportTable", "Limits", "TuneTable"})
_OPEN = ("SamplerTable", "PrunerTable")


def recipe_schema(registry: Registry) -> Schema:
    """JSON Schema (draft 2020-12) of a recipe file; `$comment` names what broken plugins keep out of it.

    A component named `distribution:component` is accepted with any arguments.
    """
    schema = Recipe.model_json_schema()
    tables, top = schema["$defs"], schema["properties"]
    for name, said in descriptions().items():
        for key, text in said.items():
            tables.get(name, schema)["properties"][key]["description"] = text
    del top["name"]
    schema["required"].remove("name")
    left_out = [str(broken) for broken in registry.broken]
    components = {
        kind: _component(tables[table_of(kind).__name__], _described(registry, kind, left_out)) for kind in KINDS
    }
    registry.save()
    for word, kind in KINDS.items():
        above, _, key = kind.place.rpartition(".")
        holder = tables["TrainTable"]["properties"] if above == "train" else top
        reference = {"$ref": f"#/$defs/{word}"}
        if kind.several:
            holder[key]["items"] = reference
        else:
            holder[key] = reference
    for name in _OPEN:
        tables[name] = {"anyOf": [{"type": "string"}, tables[name]]}
    kept = {name: table for name, table in tables.items() if name in {*_CLOSED, *_OPEN}}
    comment = {"$comment": f"left out: {'; '.join(left_out)}"} if left_out else {}
    whole: Schema = _tidy(schema | {"$defs": kept | components})
    return {"$schema": DIALECT, **comment, **whole}


def _described(registry: Registry, kind: str, left_out: list[str]) -> list[tuple[str, Schema]]:
    """Name and table of arguments of every component of a kind; what cannot be described is added to `left_out`."""
    offers = registry.offers(kind)
    times = Counter(offer.name for offer in offers)
    found = []
    for offer in offers:
        name = offer.name if times[offer.name] == 1 else f"{offer.plugin.distribution}:{offer.name}"
        try:
            found.append((name, json_schema(registry.signature(offer))))
        except PluginError as error:
            left_out.append(error.message)
    return found


def _component(table: Schema, described: Iterable[tuple[str, Schema]]) -> Schema:
    """One closed branch for all components that take the same arguments, and the short form, a name alone."""
    alike: dict[str, list[str]] = {}
    for name, schema in described:
        alike.setdefault(json.dumps(schema), []).append(name)
    branches = [_branch(table, names, json.loads(schema)) for schema, names in alike.items()]
    short = [name for one in branches if set(one["required"]) <= {"name"} for name in one["properties"]["name"]["enum"]]
    alone = [{"enum": sorted(short)}] if short else []
    in_full = table | {
        "properties": table["properties"] | {"name": {"type": "string", "pattern": ":"}},
        "required": sorted({*table.get("required", ()), "name"}),
    }
    return {"anyOf": [*alone, *branches, in_full], "description": table["description"]}


def _branch(table: Schema, names: list[str], own: Schema) -> Schema:
    """The table's keys win over arguments of the same name, as they do when a recipe is read."""
    usual = table["properties"]["name"].get("default")
    properties = own.get("properties", {}) | table["properties"] | {"name": {"enum": names}}
    required = {*table.get("required", ()), *own.get("required", ()), *(() if usual in names else ("name",))}
    return {"type": "object", "properties": properties, "required": sorted(required), "additionalProperties": False}


def _tidy(schema: Any) -> Any:
    """Without what TOML cannot hold (null) and what only repeats a key (titles)."""
    if isinstance(schema, list):
        return [_tidy(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    kept: Schema = {}
    for key, value in schema.items():
        if key in {"properties", "$defs"}:  # below stand names that people chose, maybe `title` or `default`
            kept[key] = {name: _tidy(inner) for name, inner in value.items()}
        elif key != "title" and not (key == "default" and (value is None or isinstance(value, dict))):
            kept[key] = _tidy(value)
    if "anyOf" in kept:
        kept["anyOf"] = [member for member in kept["anyOf"] if member != {"type": "null"}]
        if len(kept["anyOf"]) == 1:
            kept |= kept.pop("anyOf")[0]
    return kept
