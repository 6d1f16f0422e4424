"""Trackers: TensorBoard and MLflow, both writing to local files unless told otherwise."""

from __future__ import annotations

from toolkit import hookimpl


@hookimpl
def toolkit_trackers() -> dict[str, str]:
    return {
        "tensorboard": "toolkit_trackers.tensorboard:tensorboard",
        "mlflow": "toolkit_trackers.mlflow:mlflow",
    }
