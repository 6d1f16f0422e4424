"""CIFAR-10, from the official files or image folders, and a sample of coloured objects."""

from __future__ import annotations

from toolkit import hookimpl


@hookimpl
def toolkit_datasets() -> dict[str, str]:
    return {"cifar10": "toolkit_cifar.dataset:cifar10"}
