"""Tasks: one class an item, or a set of classes."""

from __future__ import annotations

from toolkit import hookimpl


@hookimpl
def toolkit_tasks() -> dict[str, str]:
    return {
        "classification": "toolkit_tasks.classification:classification",
        "multi_label": "toolkit_tasks.multi_label:multi_label",
    }
