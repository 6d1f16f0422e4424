"""The model's summary: layers, shapes, parameters, multiply-adds."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from toolkit.api.contracts import DataSpec

SHORT_DEPTH = 2
FULL_DEPTH = 6


@dataclass(frozen=True)
class Summary:
    short: str
    """A table for the screen: the model's first levels."""
    full: str
    multiply_adds: int
    """Of one item's forward pass."""


def summarise(network: nn.Module, spec: DataSpec, device: torch.device, *, compiled: bool) -> Summary:
    """Run one black item through the network, as torchinfo does, and tell what it saw.

    compiled: whether calling the network compiles it, which torchinfo's hooks, and an item alone, are not worth.
    """
    from torchinfo import summary

    shape = (1, 3, spec.size, spec.size) if spec.frames is None else (1, spec.frames, 3, spec.size, spec.size)
    columns = ("input_size", "output_size", "num_params", "mult_adds")
    with torch.compiler.set_stance("force_eager") if compiled else nullcontext():
        seen = summary(
            network,
            input_data=torch.zeros(shape, dtype=torch.uint8, device=device),
            depth=FULL_DEPTH,
            col_names=columns,
            mode="same" if not network.training else "eval",
            verbose=0,
        )
    full = str(seen)
    seen.formatting.max_depth = SHORT_DEPTH
    return Summary(str(seen), full + "\n", int(seen.total_mult_adds))
