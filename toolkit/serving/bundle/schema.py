"""The JSON Schema of bundle.json, from the types that read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit.serving.bundle.manifest import SCHEMA, Manifest
from toolkit.serving.bundle.seal import SEAL

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def bundle_schema() -> dict[str, Any]:
    """What every bundle.json of this version fits. That its values fit each other and the files is for the reader."""
    from pydantic import TypeAdapter

    from toolkit.api.contracts import Fit, TargetForm

    adapter = TypeAdapter(Manifest)
    adapter.rebuild(_types_namespace={"Any": Any, "Fit": Fit, "Mapping": Mapping, "TargetForm": TargetForm})
    schema = adapter.json_schema()
    digest = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
    schema["properties"] |= {"schema": {"const": SCHEMA}, SEAL: digest}
    schema["properties"]["files"]["additionalProperties"] = digest
    schema["required"] += ["schema", SEAL]
    for part in schema["$defs"].values():
        part["additionalProperties"] = False
    return {"$schema": DIALECT, **schema, "title": "bundle.json", "additionalProperties": False}
