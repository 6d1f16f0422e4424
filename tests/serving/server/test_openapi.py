"""The OpenAPI document is valid, and the server does what it says, whatever is sent."""

from __future__ import annotations

import os

import httpx
import hypothesis
import pytest
import schemathesis
from openapi_spec_validator import validate
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.serving.server.conftest import Site
from toolkit.serving.server.app import Application
from toolkit.serving.server.openapi import document
from toolkit.serving.server.settings import Settings

CASES = int(os.environ.get("TOOLKIT_SCHEMATHESIS_CASES", "5"))
"""Requests of each operation."""


def test_the_document_is_valid() -> None:
    validate(document(Settings()))
    validate(document(Settings(token="x")))


def test_every_address_is_in_the_document(site: Site) -> None:
    routes = {route.path for route in Application._routes(site.server.application)}
    described = set(httpx.get(f"{site.url}/openapi.json").json()["paths"])
    assert {path for path in routes if "versions" not in path} - {"/"} == described


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_server_keeps_to_the_document(site: Site) -> None:
    schema = schemathesis.openapi.from_url(f"{site.url}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    for operation in operations:

        @hypothesis.settings(
            max_examples=CASES, database=None, deadline=None, derandomize=True,
            suppress_health_check=[*hypothesis.HealthCheck],
        )  # fmt: skip
        @hypothesis.given(case=operation.as_strategy())
        def run(case: schemathesis.Case) -> None:
            if case.path_parameters:
                case.path_parameters["name"] = "images"
            checks = [
                not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
            ]  # fmt: skip
            case.validate_response(case.call(), checks=checks)

        run()
    assert len(operations) == len(document(Settings())["paths"]) - 1  # it does not ask for the document itself again
