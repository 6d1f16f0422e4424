"""The video models as they were published, written down so that listing them imports nothing."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.api.contracts import InputDesign


@dataclass(frozen=True)
class Design:
    """A model as it was published."""

    title: str
    takes: InputDesign
    file_name: str
    """Of its weights in PyTorchVideo's model zoo."""
    frames_in: int = 1
    """The number of frames must be a multiple of this."""
    size_in: int = 1
    """The side in pixels must be a multiple of this."""


def _takes(frames: int, rate: int, size: int, stored: int) -> InputDesign:
    return InputDesign(frames, rate, size, stored, mean=(0.45, 0.45, 0.45), std=(0.225, 0.225, 0.225))


DESIGNS = {
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


@dataclass(frozen=True)
class Wanted:
    """What a network is built for: classes, frames of a clip, and side of a frame in pixels."""

    classes: int
    frames: int
    size: int
