"""Image classifiers: a small CNN for CIFAR, and every torchvision classifier that ends in a fully connected layer."""

from __future__ import annotations

from toolkit import hookimpl
from toolkit.api.contracts import Model
from toolkit_vision.names import BACKBONES, LICENCES


@hookimpl
def toolkit_models() -> dict[str, str | Model]:
    pretrained = {
        **{name: f"toolkit_vision.backbones:{name}" for name in BACKBONES},
        "resnet18": "toolkit_vision.small:resnet18",
        "vgg16_bn": "toolkit_vision.small:vgg16_bn",
    }
    return {
        **{name: Model(place, licences=LICENCES) for name, place in pretrained.items()},
        "cnn": "toolkit_vision.cnn:cnn",
        "wide_resnet": "toolkit_vision.wide:wide_resnet",
    }
