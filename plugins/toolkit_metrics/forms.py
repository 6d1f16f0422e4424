"""Which forms of targets a metric is defined for."""

from __future__ import annotations

from toolkit.api.contracts import DataSpec, TargetForm

WORDS: dict[TargetForm, str] = {"index": "one class an item", "set": "sets of classes", "number": "numbers"}


def require_form(spec: DataSpec, name: str, *forms: TargetForm) -> None:
    """Raise ValueError, at the table of the metric `name`, unless the data has targets of one of these forms."""
    if spec.targets not in forms:
        defined = " or ".join(WORDS[form] for form in forms)
        raise ValueError(f"{name}: is defined for {defined}, the data has {WORDS[spec.targets]}")
