"""The JSON Schema of bundle.json, against what the reader takes and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests import toy_bundle
from toolkit.api.clips import Clip
from toolkit.api.errors import BundleError
from toolkit.cli.main import main
from toolkit.serving.bundle import MANIFEST, read_manifest
from toolkit.serving.bundle.schema import bundle_schema

KINDS: dict[str, dict[str, Any]] = {
    "images": {},
    "clips": {"clip": Clip(frames=4)},
    "sets": {"thresholds": (0.5, 0.5)},
    "numbers": {"numbers": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_bundle_fits(kind: str, tmp_path: Path) -> None:
    bundle = toy_bundle.write(tmp_path / kind, **KINDS[kind])
    jsonschema.validate(json.loads((bundle / MANIFEST).read_text()), bundle_schema())


WRONG: dict[str, Callable[[dict[str, Any]], object]] = {
    "another version": lambda claimed: claimed.update(schema=99),
    "a key too many": lambda claimed: claimed.update(extra=1),
    "a key too few": lambda claimed: claimed.pop("classes"),
    "a class that is a number": lambda claimed: claimed["classes"].append(3),
    "a digest that is a number": lambda claimed: claimed["files"].update({"model.onnx": 5}),
    "an unknown form": lambda claimed: claimed.update(form="colour"),
    "an unknown fit": lambda claimed: claimed["input"].update(fit="squeeze"),
    "an input of another key": lambda claimed: claimed["input"].update(depth=3),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_does_not_fit_is_refused_by_the_reader_too(wrong: str, tmp_path: Path) -> None:
    bundle = toy_bundle.edit(toy_bundle.write(tmp_path / "toy"), WRONG[wrong])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads((bundle / MANIFEST).read_text()), bundle_schema())
    with pytest.raises(BundleError):
        read_manifest(bundle)


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--bundle"]) == 0
    assert json.loads(capsys.readouterr().out) == bundle_schema()
