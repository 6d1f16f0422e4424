"""Trackers: TensorBoard, MLflow, and Weights & Biases. All write to local files unless a recipe asks for more."""

from __future__ import annotations

from toolkit import hookimpl


@hookimpl
def toolkit_trackers() -> dict[str, str]:
    return {
        "tensorboard": "toolkit_trackers.tensorboard:tensorboard",
        "mlflow": "toolkit_trackers.mlflow:mlflow",
        "wandb": "toolkit_trackers.wandb:wandb",
    }
