"""Tasks: one class an item, a set of classes, numbers, or features without labels."""

from __future__ import annotations

from toolkit import hookimpl
from toolkit.api.contracts import Task


@hookimpl
def toolkit_tasks() -> dict[str, str | Task]:
    return {
        "classification": Task("toolkit_tasks.classification:classification", targets="index"),
        "distill": Task("toolkit_tasks.distill:distill", targets="index"),
        "multi_label": Task(
            "toolkit_tasks.multi_label:multi_label",
            metrics=("accuracy", "precision", "recall", "f1", "average_precision"),
            metric="mean_average_precision",
            targets="set",
        ),
        "simsiam": Task("toolkit_tasks.simsiam:simsiam", labels=False),
        "regression": Task(
            "toolkit_tasks.regression:regression",
            metrics=("mae", "rmse", "r2", "median_absolute_error"),
            metric="mae",
            direction="minimize",
            targets="number",
        ),
    }
