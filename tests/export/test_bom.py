"""The bill of materials of a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests import toy_bundle
from toolkit.api.clips import Clip
from toolkit.export.bom import BOM, bill_of_materials
from toolkit.serving.bundle import read_manifest

RECIPE = '[model]\nname = "resnet50"\nweights = "imagenet"\n[export]\nlicense = "apache-2.0"\n'
RESULTS = {"test": {"scores": {"accuracy": 0.9, "log_loss": 0.3}, "intervals": {"accuracy": [0.8, 0.95]}, "items": 10}}


def bill(folder: Path, **changes: Any) -> dict[str, Any]:
    text = bill_of_materials(read_manifest(toy_bundle.write(folder / "toy", **changes)))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"clip": Clip(frames=4), "sample": True},
        {"recipe": 'model = "cnn"\n'},
        {"recipe": RECIPE, "results": RESULTS, "versions": {"torch": "2.14.1", "PyYAML": "6.0"}},
    ],
)
def test_it_is_valid_for_every_bundle(changes: dict[str, Any], tmp_path: Path) -> None:
    found = bill(tmp_path, **changes)
    assert found["metadata"]["timestamp"] == "2031-02-03T04:05:06+00:00"
    assert {one["bom-ref"] for one in found["components"]} == set(found["dependencies"][0]["dependsOn"])


def test_it_names_data_weights_licence_files_versions_and_the_recipe(tmp_path: Path) -> None:
    found = bill(tmp_path, recipe=RECIPE, results=RESULTS, versions={"torch": "2.14.1"}, digest="a" * 64)
    model, parts = found["metadata"]["component"], {one["bom-ref"]: one for one in found["components"]}
    assert model["licenses"] == [{"license": {"name": "apache-2.0"}}]
    assert {"name": "vision-toolkit:recipe_digest", "value": "a" * 64} in model["properties"]
    assert model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"][0] == {
        "type": "accuracy",
        "value": "0.9",
        "slice": "test",
        "confidenceInterval": {"lowerBound": "0.8", "upperBound": "0.95"},
    }
    assert parts["data"]["name"] == "toy"
    assert parts["weights"]["name"] == "imagenet"
    assert parts["pkg:pypi/torch@2.14.1"]["version"] == "2.14.1"
    manifest = read_manifest(tmp_path / "toy")
    assert parts["file:model.onnx"]["hashes"] == [{"alg": "SHA-256", "content": manifest.files["model.onnx"]}]


def test_a_sample_is_named_as_a_limit(tmp_path: Path) -> None:
    card = bill(tmp_path, sample=True)["metadata"]["component"]["modelCard"]
    assert "say nothing about real data" in card["considerations"]["technicalLimitations"][0]


def test_an_exported_bundle_holds_its_bill(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    assert BOM in manifest.files
    found = json.loads((bundle / BOM).read_text(encoding="utf-8"))
    assert found["metadata"]["component"]["name"] == manifest.name
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str((bundle / BOM).read_text(encoding="utf-8")) is None
