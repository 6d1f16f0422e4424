"""PyTorchVideo's networks, taken apart: what makes features, and the fully connected layer that makes logits.

Only `pytorchvideo.models` is used; it is slow to import, so this module is imported when a network is built.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from toolkit_video.depthwise import with_fast_gradients
from toolkit_video.designs import Wanted
from toolkit_video.parts import Network, TimeInside

with warnings.catch_warnings():
    for kind in (FutureWarning, DeprecationWarning):  # fvcore scripts a loss nobody here uses; torch.jit is deprecated
        warnings.simplefilter("ignore", kind)
    from pytorchvideo.models.csn import create_csn
    from pytorchvideo.models.r2plus1d import create_r2plus1d
    from pytorchvideo.models.resnet import create_resnet
    from pytorchvideo.models.slowfast import create_slowfast
    from pytorchvideo.models.vision_transformers import create_multiscale_vision_transformers
    from pytorchvideo.models.x3d import create_x3d

ALPHA = 4
"""Frames that SlowFast's fast pathway sees for each one of its slow pathway."""

_GLOBAL = {"head_pool": nn.AdaptiveAvgPool3d, "head_activation": None}
"""The zoo pools with kernels as large as the map of its own clips: at those the same, and this takes any clip."""


def x3d(wanted: Wanted, *, depth_factor: float = 2.2) -> Network:
    """X3D (arXiv 2004.04730)."""
    network = create_x3d(
        model_num_class=wanted.classes, depth_factor=depth_factor, inner_act=nn.SiLU, head_activation=None
    )
    network.set_submodule("blocks.5.pool.pool", nn.AdaptiveAvgPool3d(1))
    with_fast_gradients(network)
    return _of_blocks(network)


def slow(wanted: Wanted) -> Network:
    """The slow pathway of SlowFast alone, a ResNet-50 (arXiv 1812.03982)."""
    return _of_blocks(create_resnet(model_num_class=wanted.classes, stem_conv_kernel_size=(1, 7, 7), **_GLOBAL))


def slowfast(wanted: Wanted) -> Network:
    """SlowFast with ResNet-50 (arXiv 1812.03982)."""
    return _of_blocks(create_slowfast(model_num_class=wanted.classes, **_GLOBAL), Pathways(wanted.frames))


def r2plus1d(wanted: Wanted) -> Network:
    """R(2+1)D with ResNet-50 (arXiv 1711.11248)."""
    return _of_blocks(create_r2plus1d(model_num_class=wanted.classes, **_GLOBAL))


def csn(wanted: Wanted) -> Network:
    """Channel-separated ResNet-101 (arXiv 1904.02811)."""
    network = create_csn(model_num_class=wanted.classes, model_depth=101, stem_pool=nn.MaxPool3d, **_GLOBAL)
    with_fast_gradients(network)
    return _of_blocks(network)


def mvit(wanted: Wanted) -> Network:
    """Multiscale vision transformer, base (arXiv 2104.11227)."""
    network: Any = create_multiscale_vision_transformers(
        spatial_size=wanted.size,
        temporal_size=wanted.frames,
        embed_dim_mul=[[1, 2.0], [3, 2.0], [14, 2.0]],
        atten_head_mul=[[1, 2.0], [3, 2.0], [14, 2.0]],
        pool_q_stride_size=[[1, 1, 2, 2], [3, 1, 2, 2], [14, 1, 2, 2]],
        pool_kv_stride_adaptive=[1, 8, 8],
        pool_kvq_kernel=[3, 3, 3],
        head_num_classes=wanted.classes,
    )
    head, network.head = network.head, None
    return Network(network, nn.Sequential(TimeInside(), network, head.sequence_pool), head.proj, "head.proj")


BUILDERS: Mapping[str, Callable[[Wanted], Network]] = {
    "csn_r101": csn,
    "mvit_b": mvit,
    "r2plus1d_r50": r2plus1d,
    "slow_r50": slow,
    "slowfast_r50": slowfast,
    "x3d_l": partial(x3d, depth_factor=5.0),
    "x3d_m": x3d,
    "x3d_s": x3d,
    "x3d_xs": x3d,
}


def _of_blocks(network: nn.Module, *first: nn.Module) -> Network:
    """Take apart a network whose last block pools, drops out, projects each place and averages the places."""
    blocks: list[nn.Module] = list(network.get_submodule("blocks").children())
    head: Any = blocks.pop()
    last, head.proj = head.proj, None
    features = nn.Sequential(TimeInside(), *first, *blocks, head.pool or nn.Identity(), nn.Flatten())
    return Network(network, features, last, f"blocks.{len(blocks)}.proj")


class Pathways(nn.Module):
    """`[B, 3, T, H, W]` -> the slow pathway's `[B, 3, T / 4, H, W]`, evenly spread from first to last frame, and the
    fast pathway's own `[B, 3, T, H, W]`.

    Each call makes a new list, since the blocks of PyTorchVideo put their results into it.
    """

    seen: Tensor

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.register_buffer("seen", torch.linspace(0, frames - 1, frames // ALPHA).long(), persistent=False)

    def forward(self, clips: Tensor) -> list[Tensor]:
        return [clips.index_select(2, self.seen), clips]
