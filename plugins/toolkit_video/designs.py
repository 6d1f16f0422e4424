"""The video models as they were published, written down so that listing them imports nothing."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.api.contracts import IMAGENET_MEAN, IMAGENET_STD, InputDesign


@dataclass(frozen=True)
class Design:
    """A model as it was published."""

    title: str
    takes: InputDesign
    file_name: str
    """Of its weights at the library's publisher; torchvision's ends in the first digits of its SHA-256."""
    frames_in: int = 1
    """The number of frames must be a multiple of this."""
    size_in: int = 1
    """The side in pixels must be a multiple of this."""
    library: str = "PyTorchVideo"
    """Whose network and weights they are."""


def _takes(frames: int, rate: int, size: int, stored: int) -> InputDesign:
    return InputDesign(frames, rate, size, stored, mean=(0.45, 0.45, 0.45), std=(0.225, 0.225, 0.225))


PYTORCHVIDEO = {
    "csn_r101": Design("CSN R101 (arXiv 1904.02811)", _takes(32, 2, 224, 256), "CSN_32x2_R101.pyth"),
    "mvit_b": Design(
        "MViT-B 16x4 (arXiv 2104.11227)", _takes(16, 4, 224, 256), "MVIT_B_16x4.pyth", frames_in=2, size_in=4
    ),
    "r2plus1d_r50": Design("R(2+1)D R50 (arXiv 1711.11248)", _takes(16, 4, 224, 256), "R2PLUS1D_16x4_R50.pyth"),
    "slow_r50": Design("Slow R50 (arXiv 1812.03982)", _takes(8, 8, 224, 256), "SLOW_8x8_R50.pyth"),
    "slowfast_r50": Design(
        "SlowFast R50 (arXiv 1812.03982)", _takes(32, 2, 224, 256), "SLOWFAST_8x8_R50.pyth", frames_in=4
    ),
    "x3d_l": Design("X3D-L (arXiv 2004.04730)", _takes(16, 5, 312, 356), "X3D_L.pyth"),
    "x3d_m": Design("X3D-M (arXiv 2004.04730)", _takes(16, 5, 224, 256), "X3D_M.pyth"),
    "x3d_s": Design("X3D-S (arXiv 2004.04730)", _takes(13, 6, 160, 182), "X3D_S.pyth"),
    "x3d_xs": Design("X3D-XS (arXiv 2004.04730)", _takes(4, 12, 160, 182), "X3D_XS.pyth"),
}

_OWN = ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))
_HALVES = ((0.45, 0.45, 0.45), (0.225, 0.225, 0.225))
_IMAGENET = (IMAGENET_MEAN, IMAGENET_STD)
"""Mean and standard deviation that torchvision's video models were trained with."""


def _torchvision(title: str, takes: InputDesign, file_name: str, frames_in: int = 1, size_in: int = 1) -> Design:
    return Design(title, takes, file_name, frames_in, size_in, library="torchvision")


TORCHVISION = {
    "mc3_18": _torchvision("MC3-18 (arXiv 1711.11248)", InputDesign(16, 2, 112, 128, *_OWN), "mc3_18-a90a0ba3.pth"),
    "mvit_v1_b": _torchvision(
        "MViT-B (arXiv 2104.11227)", InputDesign(16, 4, 224, 256, *_HALVES), "mvit_v1_b-dbeb1030.pth", 2, 32
    ),
    "mvit_v2_s": _torchvision(
        "MViTv2-S (arXiv 2112.01526)", InputDesign(16, 4, 224, 256, *_HALVES), "mvit_v2_s-ae3be167.pth", 2, 32
    ),
    "r2plus1d_18": _torchvision(
        "R(2+1)D-18 (arXiv 1711.11248)", InputDesign(16, 2, 112, 128, *_OWN), "r2plus1d_18-91a641e6.pth"
    ),
    "r3d_18": _torchvision("R3D-18 (arXiv 1711.11248)", InputDesign(16, 2, 112, 128, *_OWN), "r3d_18-b3b3357e.pth"),
    "s3d": _torchvision("S3D (arXiv 1712.04851)", InputDesign(128, 2, 224, 256, *_OWN), "s3d-d76dad2f.pth"),
    "swin3d_b": _torchvision(
        "Video Swin-B (arXiv 2106.13230)", InputDesign(32, 2, 224, 256, *_IMAGENET), "swin3d_b_1k-24f7c7c6.pth"
    ),
    "swin3d_s": _torchvision(
        "Video Swin-S (arXiv 2106.13230)", InputDesign(32, 2, 224, 256, *_IMAGENET), "swin3d_s-da41c237.pth"
    ),
    "swin3d_t": _torchvision(
        "Video Swin-T (arXiv 2106.13230)", InputDesign(32, 2, 224, 256, *_IMAGENET), "swin3d_t-7615ae03.pth"
    ),
}
DESIGNS = {**PYTORCHVIDEO, **TORCHVISION}

LICENCES = {"PyTorchVideo": {"kinetics400": "apache-2.0"}, "torchvision": {"kinetics400": "bsd-3-clause"}}
"""Of each library's weights, by their word: that of the library, which states no other one for them."""


@dataclass(frozen=True)
class Wanted:
    """What a network is built for: classes, frames of a clip, and side of a frame in pixels."""

    classes: int
    frames: int
    size: int
