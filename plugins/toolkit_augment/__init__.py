"""Augmentations on the batch's device: every sample of a batch at once, each by its own fresh draw."""

from __future__ import annotations

from toolkit import hookimpl


@hookimpl
def toolkit_augmentations() -> dict[str, str]:
    return {
        "random_crop": "toolkit_augment.crop:random_crop",
        "random_resized_crop": "toolkit_augment.resize:random_resized_crop",
        "horizontal_flip": "toolkit_augment.flip:horizontal_flip",
        "alternating_flip": "toolkit_augment.flip:alternating_flip",
        "color_jitter": "toolkit_augment.color:color_jitter",
        "random_grayscale": "toolkit_augment.color:random_grayscale",
        "random_erasing": "toolkit_augment.erase:random_erasing",
        "cutout": "toolkit_augment.erase:cutout",
        "rand_augment": "toolkit_augment.policy:rand_augment",
        "trivial_augment": "toolkit_augment.policy:trivial_augment",
        "mixup": "toolkit_augment.mix:mixup",
        "cutmix": "toolkit_augment.mix:cutmix",
    }
