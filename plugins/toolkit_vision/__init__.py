"""Image classifiers: a small CNN for CIFAR, and every torchvision classifier that ends in a fully connected layer."""

from __future__ import annotations

from toolkit import hookimpl
from toolkit_vision.names import BACKBONES


@hookimpl
def toolkit_models() -> dict[str, str]:
    return {
        **{name: f"toolkit_vision.backbones:{name}" for name in BACKBONES},
        "cnn": "toolkit_vision.cnn:cnn",
        "resnet18": "toolkit_vision.small:resnet18",
        "vgg16_bn": "toolkit_vision.small:vgg16_bn",
    }
