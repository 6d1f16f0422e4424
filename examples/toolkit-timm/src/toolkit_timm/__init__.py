"""The plugin: names of components, mapped to the places where their factories are imported from when they are used."""

from __future__ import annotations

from toolkit import hookimpl

toolkit_contract = "1.0"


@hookimpl
def toolkit_models() -> dict[str, str]:
    return {"timm": "toolkit_timm.models:image_model"}


@hookimpl
def toolkit_augmentations() -> dict[str, str]:
    return {
        "timm_mixup": "toolkit_timm.mixup:mixup",
        "timm_random_erasing": "toolkit_timm.erasing:random_erasing",
    }
