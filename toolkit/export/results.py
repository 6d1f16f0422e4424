"""What a run scored on its own splits, for the card and for bundle.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from toolkit.runs.directory import nan_for_null
from toolkit.runs.evaluation import Scored
from toolkit.runs.reopen import Trained
from toolkit.runs.significance import wilson_interval

CHOSE = {"valid": "chose the epoch", "test": "chose nothing"}
"""What each split had to do with the weights."""


def results(trained: Trained) -> dict[str, dict[str, Any]]:
    """By split: its role, its number of items, the model's precision and scores, and 95 % intervals where they are
    known. Empty where the run has no scores of this checkpoint, or of the data that it is exported with."""
    run = trained.directory
    kept = nan_for_null(run.read_json(run.scores))
    if kept.get("best_epoch") != trained.best_epoch or not _same_data(trained, kept.get("protocol")):
        return {}
    return {split: _of_split(trained, split, kept) for split in CHOSE if kept.get(split)}


def _same_data(trained: Trained, protocol: Any) -> bool:
    if not isinstance(protocol, Mapping):
        return False
    now = Scored.of_run(trained.assembly).protocol()
    return all(protocol.get(key) == now.get(key) for key in ("dataset", "split_hash"))


def _of_split(trained: Trained, split: str, kept: Mapping[str, Any]) -> dict[str, Any]:
    skipped = kept["protocol"].get("skipped", {}).get(split, 0)
    items = len(trained.assembly.loaders()[split].store) - skipped
    plain = {name: value for name, value in kept[split].items() if isinstance(value, float) and math.isfinite(value)}
    shares = ["accuracy"] if "accuracy" in plain and trained.assembly.spec.targets == "index" else []
    return {
        "role": CHOSE[split],
        "items": items,
        "precision": kept["protocol"].get("precision"),
        "scores": plain,
        "intervals": {name: list(wilson_interval(plain[name], items)) for name in shares},
    }
