"""What model hubs read of a card: the front matter of its README.md, as Hugging Face defines it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from toolkit.serving.bundle.manifest import Manifest

METRICS = ("accuracy", "f1", "precision", "recall", "roc_auc", "mse", "mae")
"""Metrics that hubs know, by their names there; ours may go on after them, as in `f1_macro`."""
SPLITS = {"test": "test", "valid": "validation"}
"""Ours to the hubs' names, in the order in which they are preferred."""


def front_matter(manifest: Manifest) -> str:
    """The block of YAML with its two lines of dashes. Scores of a model trained on the SAMPLE are not among it."""
    tables = tomllib.loads(manifest.recipe)
    split = next((name for name in SPLITS if name in manifest.results), None)
    scores = {} if split is None else manifest.results[split]["scores"]
    known = {name: kind for name in scores if (kind := _kind(name))}
    block: dict[str, Any] = {
        "license": tables.get("export", {}).get("license", "unknown"),
        "library_name": "onnx",
        "pipeline_tag": _pipeline(manifest),
        "tags": list(_tags(manifest, tables)),
    }
    if known:
        block["metrics"] = list(dict.fromkeys(known.values()))
    if known and split is not None and not manifest.sample:
        found = [{"type": kind, "value": round(scores[name], 6), "name": name} for name, kind in known.items()]
        block["model-index"] = [{"name": manifest.name, "results": [_result(manifest, SPLITS[split], found)]}]
    return f"---\n{yaml.safe_dump(block, sort_keys=False, allow_unicode=True, width=120)}---\n"


def _pipeline(manifest: Manifest) -> str:
    return "image-classification" if manifest.clip is None else "video-classification"


def _tags(manifest: Manifest, tables: Mapping[str, Any]) -> Iterator[str]:
    yield from ("onnx", "onnxruntime", "vision-toolkit")
    model = tables.get("model")
    name = model.get("name") if isinstance(model, Mapping) else model
    if isinstance(name, str):
        yield name
    if manifest.form == "set":
        yield "multi-label"
    if manifest.sample:
        yield "sample-data"


def _result(manifest: Manifest, split: str, metrics: list[dict[str, Any]]) -> dict[str, Any]:
    dataset = " ".join(str(manifest.trained_on.get("dataset", "unknown")).split())  # a line of dashes ends the block
    return {
        "task": {"type": _pipeline(manifest)},
        "dataset": {"name": dataset, "type": dataset, "split": split},
        "metrics": metrics,
    }


def _kind(name: str) -> str | None:
    if name.endswith("_weighted"):  # next to its macro average, which says more of rare classes
        return None
    return next((known for known in METRICS if name == known or name.startswith(f"{known}_")), None)
