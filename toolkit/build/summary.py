"""The model's summary: layers, shapes, parameters, multiply-adds."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from toolkit.api.answers import percent
from toolkit.api.contracts import DataSpec

DEPTH = 6
_UNITS = {"Units.TERABYTES": "trillion", "Units.GIGABYTES": "billion", "Units.MEGABYTES": "million", "Units.NONE": "1"}
"""How torchinfo names the units of multiply-adds, and what they are."""


@dataclass(frozen=True)
class Summary:
    """What one item's way through the network shows."""

    table: str
    """One row per layer: the contents of summary.txt."""
    parameters: int
    trained: int
    """Of the parameters, those that training may change."""
    multiply_adds: int
    """Of one item's forward pass."""

    def line(self, model: str, item: str) -> str:
        """`model resnet50: 23.5 M parameters, 333.7 M multiply-adds per image`, with the share that is trained where
        that is not all of them. `item` is what the model sees one of: `image` or `clip`."""
        share = self.trained / max(self.parameters, 1)
        trained = "" if self.trained == self.parameters else f" ({percent(share)} trained)"
        parameters = f"{amount(self.parameters)} parameters{trained}"
        return f"model {model}: {parameters}, {amount(self.multiply_adds)} multiply-adds per {item}"


def amount(count: int) -> str:
    """`812`, `81.2 k`, `333.7 M`, `4.1 G`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return str(count)


def summarise(network: nn.Module, spec: DataSpec, device: torch.device, *, compiled: bool) -> Summary:
    """Run one black item through the network, as torchinfo does, and report what it saw.

    compiled: whether calling the network compiles it, which torchinfo's hooks, and an item alone, are not worth.
    """
    from torchinfo import summary

    columns = ("input_size", "output_size", "num_params", "mult_adds")
    with torch.compiler.set_stance("force_eager") if compiled else nullcontext():
        seen = summary(
            network,
            input_data=torch.zeros((1, *spec.item_shape), dtype=torch.uint8, device=device),
            depth=DEPTH,
            col_names=columns,
            mode="eval",
            verbose=0,
        )
    table = str(seen) + "\n"
    for unit, words in _UNITS.items():
        table = table.replace(unit, words)
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in network.parameters()]
    return Summary(
        table=table,
        parameters=sum(count for count, _ in counts),
        trained=sum(count for count, trained in counts if trained),
        multiply_adds=int(seen.total_mult_adds),
    )
