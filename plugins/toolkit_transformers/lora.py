"""Low-rank adapters (LoRA, arXiv 2106.09685) by peft, and their merging before a model is exported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field
from torch import nn

from toolkit.api.extras import require


@dataclass(frozen=True)
class Lora:
    """Trains two small matrices next to each fully connected layer of the backbone instead of the layer.

    rank: columns of the first matrix and rows of the second
    alpha: their product is scaled by alpha / rank; unset: 2 x rank
    dropout: share of values zeroed before the first matrix
    layers: ends of the names of the layers that get them (`query`, `value`); unset: all of the backbone
    """

    rank: Annotated[int, Field(ge=1)] = 8
    alpha: Annotated[float, Field(gt=0)] | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    layers: tuple[Annotated[str, Field(min_length=1)], ...] = ()


def add_lora(backbone: nn.Module, lora: Lora) -> None:
    """Put adapters next to the layers of `backbone`, which train alone from here on; at first they change no answer.

    Raises ValueError if none of its layers has such a name.
    """
    peft = require("peft", extra="transformers", user="model.lora")
    linear = [name for name, module in backbone.named_modules() if isinstance(module, nn.Linear)]
    chosen = [name for name in linear if not lora.layers or name.endswith(lora.layers)]
    if not chosen:
        known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
        raise ValueError(f"lora: no layer of the backbone ends in {_listed(lora.layers)}; its layers end in {known}")
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=2 * lora.rank if lora.alpha is None else lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=chosen,
    )
    peft.inject_adapter_in_model(config, backbone)


def merge_lora(backbone: nn.Module) -> None:
    """Add each adapter's product to the weights of its layer, and remove the adapters."""
    for name, module in list(backbone.named_modules()):
        if hasattr(module, "lora_A") and hasattr(module, "get_base_layer"):
            layer: Any = module
            layer.merge(safe_merge=True)
            backbone.set_submodule(name, layer.get_base_layer())


def _listed(names: Sequence[str]) -> str:
    return " or ".join(f'"{name}"' for name in names)
