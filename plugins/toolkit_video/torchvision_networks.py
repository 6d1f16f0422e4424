"""torchvision's video networks, taken apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.models.video import MViT

from toolkit_video.designs import TORCHVISION, Wanted
from toolkit_video.parts import Network, TimeInside


def resnet(wanted: Wanted, *, name: str) -> Network:
    """R3D, MC3 or R(2+1)D (arXiv 1711.11248)."""
    network: Any = get_model(name, weights=None, num_classes=wanted.classes)
    last, network.fc = network.fc, nn.Identity()
    return Network(network, nn.Sequential(TimeInside(), network), last, "fc")


def s3d(wanted: Wanted) -> Network:
    """Separable 3D Inception (arXiv 1712.04851), for clips and frames of any size.

    torchvision pools 2 x 7 x 7 places, makes logits by a 1 x 1 x 1 convolution and averages these. The mean of the
    pooled features, then a fully connected layer, is the same.
    """
    network: Any = get_model("s3d", weights=None, num_classes=wanted.classes)
    channels = network.classifier[1].in_channels
    network.avgpool = network.classifier = nn.Identity()
    return Network(
        network,
        nn.Sequential(TimeInside(), network.features, PairsOfFrames()),
        nn.Linear(channels, wanted.classes),
        "classifier",
    )


class PairsOfFrames(nn.Module):
    """`[B, F, T, H, W]` -> `[B, F]`: the mean over each pair of neighbouring frames, then over the pairs. The first and
    last frame count half as much as the others."""

    def forward(self, features: Tensor) -> Tensor:
        frames = features.mean(dim=(3, 4))
        if frames.shape[2] > 1:
            frames = (frames[:, :, :-1] + frames[:, :, 1:]) / 2
        return frames.mean(dim=2)


def mvit(wanted: Wanted, *, name: str) -> Network:
    """Multiscale vision transformers (arXiv 2104.11227, 2112.01526), for clips of this length and size.

    torchvision's functions fix both, so its blocks are seen first, and the class is given their settings.
    """
    blocks: list[dict[str, Any]] = []

    def see(**given: Any) -> nn.Module:
        blocks.append(given)
        return nn.Identity()

    get_model(name, weights=None, block=see)
    shared = ("residual_pool", "residual_with_cls_embed", "rel_pos_embed", "proj_after_attn", "stochastic_depth_prob")
    network: Any = MViT(
        spatial_size=(wanted.size, wanted.size),
        temporal_size=wanted.frames,
        block_setting=[given["cnf"] for given in blocks],
        num_classes=wanted.classes,
        **{key: blocks[-1][key] for key in shared},
    )
    last, network.head = network.head[1], nn.Identity()
    return Network(network, nn.Sequential(TimeInside(), network), last, "head.1")


def swin(wanted: Wanted, *, name: str) -> Network:
    """Video Swin transformers (arXiv 2106.13230)."""
    network: Any = get_model(name, weights=None, num_classes=wanted.classes)
    last, network.head = network.head, nn.Identity()
    return Network(network, nn.Sequential(TimeInside(), network), last, "head")


_FAMILIES = {"mvit": mvit, "swin": swin}
BUILDERS: Mapping[str, Callable[[Wanted], Network]] = {
    name: s3d if name == "s3d" else partial(_FAMILIES.get(name[:4], resnet), name=name) for name in TORCHVISION
}
