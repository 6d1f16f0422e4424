"""The JSON Schema of a recipe with every installed component, so that editors complete and check TOML.

A table of a component is judged by its `name` through `if` and `then`: one mistake gives one message. Editors that do
not read `if` complete from `properties`, which list the arguments of all components of a kind, with descriptions.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from toolkit.api.errors import PluginError, first_few
from toolkit.host.registry import Registry
from toolkit.recipe.checking import json_schema
from toolkit.recipe.descriptions import descriptions
from toolkit.recipe.kinds import KINDS
from toolkit.recipe.tables import Recipe, table_of

Schema: TypeAlias = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_CLOSED = frozenset(
    {"InputTable", "ClipTable", "TrainTable", "PartRates", "ExportTable", "Limits", "SegmentsTable", "TuneTable"}
)
_OPEN = ("SamplerTable", "PrunerTable")
_ANYTHING: Schema = {}


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
    skipped = [str(broken) for broken in registry.broken]
    components = {
        kind: _component(tables[table_of(kind).__name__], _described(registry, kind, skipped)) for kind in KINDS
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
        tables[name]["type"] = ["string", "object"]
    kept = {name: table for name, table in tables.items() if name in {*_CLOSED, *_OPEN}}
    comment = {"$comment": f"skipped: {'; '.join(skipped)}"} if skipped else {}
    whole: Schema = _tidy(schema | {"$defs": kept | components})
    return {"$schema": DIALECT, **comment, **whole}


def _described(registry: Registry, kind: str, skipped: list[str]) -> list[tuple[str, Schema]]:
    """Name and table of arguments of every component of a kind; what cannot be described is added to `skipped`."""
    offers = registry.offers(kind)
    times = Counter(offer.name for offer in offers)
    found = []
    for offer in offers:
        name = offer.name if times[offer.name] == 1 else f"{offer.plugin.distribution}:{offer.name}"
        try:
            found.append((name, json_schema(registry.signature(offer))))
        except PluginError as error:
            skipped.append(error.message)
    return found


def _component(table: Schema, described: Sequence[tuple[str, Schema]]) -> Schema:
    """The table of one kind of component, or the short form, a name alone.

    Components that take the same arguments share one closed branch, which their name chooses.
    """
    alike: dict[str, list[str]] = {}
    for name, schema in described:
        alike.setdefault(json.dumps(schema), []).append(name)
    branches = [_branch(table, json.loads(schema)) for schema in alike]
    needy = {name for names, one in zip(alike.values(), branches, strict=True) if one.get("required") for name in names}
    every = [name for name, _ in described]
    own = table["properties"] | {"name": table["properties"]["name"] | _name_among(every)}
    return {
        "description": table["description"],
        "type": ["string", "object"],
        "required": table.get("required", []),
        "allOf": [
            {"description": table["description"], "properties": _arguments_of_all(described) | own},
            {"if": {"type": "string"}, "then": _name_among([name for name in every if name not in needy])},
            *(
                {"if": _called(names, by_default=table["properties"]["name"].get("default") in names), "then": branch}
                for names, branch in zip(alike.values(), branches, strict=True)
            ),
        ],
    }


def _name_among(names: Iterable[str]) -> Schema:
    """One of these names, or a qualified one. The `anyOf` accepts all: it is there for editors, which complete it."""
    choice = {"enum": sorted(names)}
    return {"type": "string", "if": {"pattern": ":"}, "else": choice, "anyOf": [choice, _ANYTHING]}


def _called(names: Sequence[str], *, by_default: bool) -> Schema:
    """Whether a table's `name` is one of these; where it has no name, whether the usual one is."""
    required: Schema = {} if by_default else {"required": ["name"]}
    return {"type": "object", "properties": {"name": {"enum": list(names)}}, **required}


def _branch(table: Schema, own: Schema) -> Schema:
    """What a table may hold for these components. The table's keys win over arguments of the same name, as they do when
    a recipe is read. A key that the table itself requires is not required again."""
    required = sorted({*own.get("required", ())} - {*table["properties"]})
    properties = own.get("properties", {}) | dict.fromkeys(table["properties"], _ANYTHING)
    return {"properties": properties, **({"required": required} if required else {}), "additionalProperties": False}


def _refusal(known: Iterable[str]) -> Schema:
    """What an unknown key is judged by. `false` would mean the same, but taplo then marks every line of the table."""
    return {"not": {"description": f"unknown key; the keys here are {', '.join(known)}"}}


def _arguments_of_all(described: Sequence[tuple[str, Schema]]) -> Schema:
    """Every argument of a component of this kind with what it means; the branches judge its value."""
    meanings: dict[str, dict[str, list[str]]] = {}
    for name, schema in described:
        for key, value in schema.get("properties", {}).items():
            meanings.setdefault(key, {}).setdefault(value.get("description", ""), []).append(name)
    return {key: {"description": "\n\n".join(_meanings(texts))} for key, texts in meanings.items()}


def _meanings(texts: dict[str, list[str]]) -> Iterator[str]:
    """What an argument means, with the components that have it."""
    for text, names in texts.items():
        yield f"{text or 'An argument'} ({first_few(names)})"


def _tidy(schema: Any) -> Any:
    """Without what TOML cannot hold (null) and what only repeats a key (titles); unknown keys are named."""
    if isinstance(schema, list):
        return [_tidy(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    kept: Schema = {}
    for key, value in schema.items():
        if key in {"properties", "$defs"}:  # below stand names that people chose, maybe `title` or `default`
            kept[key] = {name: _tidy(inner) for name, inner in value.items()}
        elif key == "additionalProperties" and value is False:
            kept[key] = _refusal(schema["properties"])
        elif key != "title" and not (key == "default" and (value is None or isinstance(value, dict))):
            kept[key] = _tidy(value)
    return _without_choice(kept) if "anyOf" in kept else kept


def _without_choice(schema: Schema) -> Schema:
    """An `anyOf` of members of different types as one member for each type, so that a wrong value has one message."""
    members = [member for member in schema["anyOf"] if member != {"type": "null"}]
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    if len(members) == 1:
        return {**rest, **members[0]}
    types = [member.get("type") for member in members]
    if (
        not all(isinstance(one, str) for one in types)
        or len({*types}) < len(types)
        or {"integer", "number"} <= {*types}
    ):
        return {**rest, "anyOf": members}
    judged = [{"if": {"type": one}, "then": member} for one, member in zip(types, members, strict=True)]
    return {**rest, "type": types, "allOf": judged}
