"""The plugin: names of components, mapped to the places where their factories are imported from when they are used."""

from __future__ import annotations

from toolkit import hookimpl
from toolkit.api.contracts import Task

toolkit_contract = "1.0"


@hookimpl
def toolkit_tasks() -> dict[str, Task]:
    return {
        "ordinal": Task(
            "toolkit_ordinal.ordinal:ordinal",
            metrics=("accuracy", "f1", "confusion_matrix", "log_loss"),
            metric="loss",
            direction="minimize",
        )
    }


@hookimpl
def toolkit_optimizers() -> dict[str, str]:
    return {"lamb": "toolkit_ordinal.lamb:lamb"}


@hookimpl
def toolkit_schedules() -> dict[str, str]:
    return {"inverse_sqrt": "toolkit_ordinal.inverse_sqrt:inverse_sqrt"}
