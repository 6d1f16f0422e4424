"""CIFAR-10, from the official files or image folders, a sample of coloured objects, and a network that learns fast."""

from __future__ import annotations

from toolkit import hookimpl


@hookimpl
def toolkit_datasets() -> dict[str, str]:
    return {"cifar10": "toolkit_cifar.dataset:cifar10"}


@hookimpl
def toolkit_models() -> dict[str, str]:
    return {"whitened_cnn": "toolkit_cifar.whitened:whitened_cnn"}
