"""The image models of timm, and its random erasing and mixup."""

from __future__ import annotations

from toolkit import hookimpl
from toolkit.api.contracts import Model


@hookimpl
def toolkit_models() -> dict[str, Model]:
    # One name for 1,300 models: timm adds some each month, and a list of them would need its import.
    return {"timm": Model("toolkit_timm.models:image_model", takes="toolkit_timm.names:design", settled=True)}


@hookimpl
def toolkit_augmentations() -> dict[str, str]:
    return {
        "timm_mixup": "toolkit_timm.mixup:mixup",
        "timm_random_erasing": "toolkit_timm.erasing:random_erasing",
    }
