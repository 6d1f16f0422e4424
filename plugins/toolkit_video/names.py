"""The video models by name, written down so that listing them imports nothing."""

from __future__ import annotations

MODELS = (
    "csn_r101",
    "mvit_b",
    "r2plus1d_r50",
    "slow_r50",
    "slowfast_r50",
    "x3d_l",
    "x3d_m",
    "x3d_s",
    "x3d_xs",
)
