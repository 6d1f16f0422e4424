"""Metrics of classes: what is right, per class, and how far the probabilities can be trusted; metrics of numbers: how
far answers are from targets."""

from __future__ import annotations

from toolkit import hookimpl


@hookimpl
def toolkit_metrics() -> dict[str, str]:
    return {
        "accuracy": "toolkit_metrics.accuracy:accuracy",
        "top_k": "toolkit_metrics.accuracy:top_k",
        "precision": "toolkit_metrics.per_class:precision",
        "recall": "toolkit_metrics.per_class:recall",
        "f1": "toolkit_metrics.per_class:f1",
        "average_precision": "toolkit_metrics.average_precision:average_precision",
        "confusion_matrix": "toolkit_metrics.per_class:confusion_matrix",
        "log_loss": "toolkit_metrics.probability:log_loss",
        "calibration": "toolkit_metrics.probability:calibration",
        "mae": "toolkit_metrics.numbers:mae",
        "rmse": "toolkit_metrics.numbers:rmse",
        "r2": "toolkit_metrics.numbers:r2",
        "median_absolute_error": "toolkit_metrics.numbers:median_absolute_error",
    }
