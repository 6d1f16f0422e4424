"""The OpenAPI document of the server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit import __version__
from toolkit.serving.bundle.manifest import INPUT
from toolkit.serving.server.listing import MOST_FILES
from toolkit.serving.server.settings import Settings
from toolkit.serving.server.uploads import MOST_MOMENTS

Schema = dict[str, Any]
_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_INTEGER: Schema = {"type": "integer"}
_FREE: Schema = {"type": "object"}


def _object(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": [*required]}


def _list(of: Schema, **limits: int) -> Schema:
    return {"type": "array", "items": of, **limits}


def _named(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_ANSWER: Mapping[str, Schema] = {
    "prediction": _list(_TEXT),
    "classes": _list(_object({"class": _TEXT, "probability": _NUMBER})),
    "declined": {"type": "boolean", "description": "whether the input counts as unknown"},
    "plausible": {**_list(_TEXT), "description": "the set of classes that holds the truth"},
    "values": _list(_object({"output": _TEXT, "value": _NUMBER})),
    "picture": {**_TEXT, "description": "a small JPEG of what the model saw, as a data URL"},
}
_MAPS: Schema = {
    **_object(
        {
            "method": _TEXT,
            **dict.fromkeys(("left", "top", "width", "height"), _NUMBER),
            "of": _list(_object({"name": _TEXT, "values": _list(_list(_NUMBER))})),
        }
    ),
    "description": "where each answer comes from, 0 to 1, in rows; what they cover, as shares of the picture",
}
_TENSOR = _object(
    {"name": _TEXT, "datatype": _TEXT, "shape": _list(_INTEGER)},
    {"data": {"type": "array", "items": {}}, "parameters": _FREE},
)
_SCHEMAS: Mapping[str, Schema] = {
    "Error": _object({"error": _TEXT}),
    "Server": _object({"name": _TEXT, "version": _TEXT, "extensions": _list(_TEXT)}),
    "Live": _object({"live": {"type": "boolean"}}),
    "Ready": _object({"ready": {"type": "boolean"}}, {"name": _TEXT}),
    "Tensor": _TENSOR,
    "Metadata": _object(
        {
            "name": _TEXT,
            "versions": _list(_TEXT),
            "platform": _TEXT,
            "inputs": _list(_named("Tensor")),
            "outputs": _list(_named("Tensor")),
        }
    ),
    "InferRequest": _object(
        {
            "inputs": _list(
                _object(
                    {
                        "name": {"type": "string", "enum": [INPUT]},
                        "datatype": {"type": "string", "enum": ["UINT8"]},
                        "shape": _list({"type": "integer", "minimum": 1}, minItems=4, maxItems=5),
                    },
                    {
                        "data": {**_list({}), "description": "integers from 0 to 255, nested or not"},
                        "parameters": _object({}, {"binary_data_size": _INTEGER}),
                    },
                ),
                minItems=1,
                maxItems=1,
            )
        },
        {
            "id": _TEXT,
            "parameters": _object({}, {"binary_data_output": {"type": "boolean"}}),
            "outputs": _list(_object({"name": _TEXT}, {"parameters": _FREE}), minItems=1),
        },
    ),
    "InferResponse": _object(
        {"model_name": _TEXT, "model_version": _TEXT, "outputs": _list(_named("Tensor"))}, {"id": _TEXT}
    ),
    "Models": _object({"models": _list(_FREE), "limits": _FREE, "sources": _list(_TEXT)}),
    "FileAnswer": _object(
        {"name": _TEXT},
        {
            "kind": {"type": "string", "enum": ["image", "video"]},
            "seconds": _NUMBER,
            **_ANSWER,
            "maps": _MAPS,
            "moments": _list(_object({"start": _NUMBER, "end": _NUMBER}, _ANSWER), maxItems=MOST_MOMENTS),
            "notes": _list(_TEXT),
            "error": _TEXT,
        },
    ),
    "FileAnswers": _object({"model": _TEXT, "answers": _list(_named("FileAnswer"))}),
}
_OPTIONS: Mapping[str, Schema] = {
    "model": {**_TEXT, "description": "required where there are several"},
    "top": {"type": "integer", "minimum": 1, "description": "classes of each answer (default: 3)"},
    "every": {**_NUMBER, "description": "answer a video also every so many seconds"},
    "pictures": {"type": "boolean", "description": "small pictures of what the model saw"},
    "maps": {"type": "boolean", "description": "heat maps of images, of a model that gives them"},
}
_FILES = _object({"file": _list({"type": "string", "format": "binary"}, minItems=1, maxItems=MOST_FILES)}, _OPTIONS)
_INPUTS = _object(
    {
        "inputs": _list(
            {
                "anyOf": [
                    _object({"data": {"type": "string", "format": "byte"}}, {"name": _TEXT}),
                    _object({"url": {"type": "string", "format": "uri"}}, {"name": _TEXT}),
                ]
            },
            minItems=1,
            maxItems=MOST_FILES,
        )
    },
    _OPTIONS,
)


def document(settings: Settings) -> dict[str, Any]:
    """The document of a server with these settings."""
    paths = {
        "/openapi.json": _get("This document", _json(_FREE)),
        "/metrics": _get("Metrics for Prometheus", {"text/plain": {"schema": _TEXT}}),
        "/v1/models": _get("The models and the limits of requests", _json(_named("Models"))),
        "/v1/models/{name}/card": _get(
            "A model's card", {"text/markdown": {"schema": _TEXT}, "text/plain": {"schema": _TEXT}}, name=True
        ),
        "/v1/predict": _post(
            "Answers to images and videos",
            {"multipart/form-data": {"schema": _FILES}, "application/json": {"schema": _INPUTS}},
            _json(_named("FileAnswers")),
            settings,
        ),
        "/v1/stream": _stream(),
        "/v2": _get("The server", _json(_named("Server"))),
        "/v2/health/live": _get("Whether the server runs", _json(_named("Live"))),
        "/v2/health/ready": _get("Whether it answers", _json(_named("Ready")), others=("503",)),
        "/v2/repository/index": _post("Names of the models", None, _json(_list(_FREE)), settings),
        "/v2/models/{name}": _get("What a model takes and gives", _json(_named("Metadata")), name=True),
        "/v2/models/{name}/ready": _get("Whether it answers", _json(_named("Ready")), name=True),
        "/v2/models/{name}/config": _get("Its configuration, as Triton has it", _json(_FREE), name=True),
        "/v2/models/{name}/infer": _post(
            "Answers to raw tensors",
            {"application/json": {"schema": _named("InferRequest")}},
            {**_json(_named("InferResponse")), "application/octet-stream": {"schema": {}}},
            settings,
            name=True,
        ),
    }
    secured: Schema = {} if settings.token is None else {"security": [{"token": []}]}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Vision toolkit", "version": __version__, "license": {"name": "MIT"}},
        "paths": paths,
        "components": {"schemas": _SCHEMAS, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        **secured,
    }


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _get(summary: str, content: Schema, *, name: bool = False, others: tuple[str, ...] = ()) -> Schema:
    failing = ["401", "403", *(["404"] if name else []), *others]
    return {"get": {"summary": summary, **_parameters(name=name), "responses": _responses(content, failing)}}


def _post(summary: str, body: Schema | None, content: Schema, settings: Settings, *, name: bool = False) -> Schema:
    failing = ["400", "401", "403", "404", "408", "413", "415", "422", "429", "500"]
    limit = f"bodies of up to {settings.limits.body:,} bytes"
    taken = {} if body is None else {"requestBody": {"required": True, "description": limit, "content": body}}
    return {"post": {"summary": summary, **_parameters(name=name), **taken, "responses": _responses(content, failing)}}


def _stream() -> Schema:
    known = [("source", _TEXT, True), ("model", _OPTIONS["model"], False), ("top", _OPTIONS["top"], False)]
    asked = [{"name": name, "in": "query", "required": needed, "schema": schema} for name, schema, needed in known]
    events = {"text/event-stream": {"schema": {**_TEXT, "description": "events answer, note and end, with JSON"}}}
    failing = ["400", "401", "403", "404", "429", "503"]
    summary = "Answers to a camera or a live URL, as server-sent events"
    return {"get": {"summary": summary, "parameters": asked, "responses": _responses(events, failing)}}


def _parameters(*, name: bool) -> Schema:
    named = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    return {"parameters": [named]} if name else {}


def _responses(content: Schema, failing: list[str]) -> Schema:
    refused = {"description": "the reason", "content": _json(_named("Error"))}
    return {"200": {"description": "done", "content": content}, **dict.fromkeys(failing, refused)}
