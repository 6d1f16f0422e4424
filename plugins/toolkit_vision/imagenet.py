"""torchvision's ImageNet weights: their names end in the start of their SHA-256."""

from __future__ import annotations

import torchvision

from toolkit.transfer.published import Published
from toolkit_vision.names import LICENCES


def imagenet(name: str) -> Published:
    """The weights torchvision recommends for its model `name`."""
    url = weights_url(name)
    digits = url.rpartition("-")[2].removesuffix(".pth")
    return Published("imagenet", "ImageNet weights", url, sha256=digits, licence=LICENCES["imagenet"])


def weights_url(name: str) -> str:
    """Where torchvision keeps its recommended weights for the model `name`."""
    url: str = torchvision.models.get_model_weights(name).DEFAULT.url
    return url
