"""Tasks: one class an item, or a set of classes."""

from __future__ import annotations

from toolkit import hookimpl
from toolkit.api.contracts import Task


@hookimpl
def toolkit_tasks() -> dict[str, str | Task]:
    return {
        "classification": "toolkit_tasks.classification:classification",
        "multi_label": Task(
            "toolkit_tasks.multi_label:multi_label",
            metrics=("accuracy", "precision", "recall", "f1", "average_precision"),
            metric="mean_average_precision",
        ),
    }
