"""A bundle's bill of materials in CycloneDX (ML-BOM), from its manifest: data, weights, licence, files and versions."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from toolkit.serving.bundle.manifest import INPUT, Manifest

BOM = "bom.cdx.json"
_MODEL, _DATA, _WEIGHTS = "model", "data", "weights"
_OURS = "vision-toolkit"


def bill_of_materials(manifest: Manifest) -> str:
    """JSON of CycloneDX 1.6: https://cyclonedx.org/docs/1.6/json"""
    components = [*_components(manifest)]
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"timestamp": datetime.fromisoformat(manifest.created).isoformat(), "component": _model(manifest)},
        "components": components,
        "dependencies": [{"ref": _MODEL, "dependsOn": [one["bom-ref"] for one in components]}],
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _model(manifest: Manifest) -> Mapping[str, Any]:
    return {
        "type": "machine-learning-model",
        "bom-ref": _MODEL,
        "name": manifest.name,
        "version": manifest.created,
        **_licensed(tomllib.loads(manifest.recipe).get("export", {}).get("license", "unknown")),
        "modelCard": _card(manifest),
        "properties": [
            {"name": f"{_OURS}:recipe_digest", "value": manifest.digest},
            {"name": f"{_OURS}:split_hash", "value": str(manifest.protocol.get("split_hash", ""))},
        ],
    }


def _card(manifest: Manifest) -> Mapping[str, Any]:
    frames = manifest.input.frames
    shape = "[N, H, W, 3]" if frames is None else f"[N, {frames}, H, W, 3]"
    limits = ["trained on pictures drawn by code: its answers say nothing about real data"] if manifest.sample else []
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": "image-classification" if frames is None else "video-classification",
            "architectureFamily": str(manifest.trained_on.get("model", "")),
            "datasets": [{"ref": _DATA}],
            "inputs": [{"format": f"{INPUT}: uint8 {shape}"}],
            "outputs": [{"format": f"{manifest.output}: float32 [N, {len(manifest.classes)}]"}],
        },
        "quantitativeAnalysis": {"performanceMetrics": [*_metrics(manifest)]},
        **({"considerations": {"technicalLimitations": limits}} if limits else {}),
    }


def _metrics(manifest: Manifest) -> Iterator[Mapping[str, Any]]:
    """The scores of each split, with their intervals."""
    for split, result in manifest.results.items():
        for name, value in result["scores"].items():
            low, high = result.get("intervals", {}).get(name, (None, None))
            interval = {} if low is None else {"confidenceInterval": {"lowerBound": str(low), "upperBound": str(high)}}
            yield {"type": name, "value": str(value), "slice": split, **interval}


def _components(manifest: Manifest) -> Iterator[Mapping[str, Any]]:
    """What the model is made of: data, published weights, files, and the libraries that trained and exported it."""
    name = str(manifest.trained_on.get("dataset", "unknown"))
    content = {"type": "dataset", "name": name, "description": ", ".join(manifest.trained_on.get("notes", ()))}
    yield {"type": "data", "bom-ref": _DATA, "name": name, "data": [content]}
    model = tomllib.loads(manifest.recipe).get("model")
    weights = model.get("weights", "none") if isinstance(model, Mapping) else "none"
    if weights != "none":
        yield {"type": "machine-learning-model", "bom-ref": _WEIGHTS, "name": str(weights)}
    for file, digest in manifest.files.items():
        hashes = [{"alg": "SHA-256", "content": digest}]
        yield {"type": "file", "bom-ref": f"file:{file}", "name": file, "hashes": hashes}
    for library, version in manifest.versions.items():
        url = f"pkg:pypi/{library.lower()}@{version}"
        yield {"type": "library", "bom-ref": url, "name": library, "version": version, "purl": url}


def _licensed(license_: str) -> Mapping[str, Any]:
    return {} if license_ == "unknown" else {"licenses": [{"license": {"name": license_}}]}
