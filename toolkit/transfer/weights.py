"""Weights files: reading them, and putting them into a module with nothing left to chance.

A weights file holds one tensor for each parameter and buffer, under the names of `Module.state_dict`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from toolkit.api.errors import WeightsError

Weights: TypeAlias = dict[str, Tensor]

_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model")
_PREFIXES = ("module.", "_orig_mod.")  # what DistributedDataParallel and torch.compile put before every name
_COUNTER = "num_batches_tracked"  # absent from files older than PyTorch 0.4.1; no default batch norm reads it

_TENSORS_ALONE = (
    "if you trust the file, write its state dict alone: torch.save(torch.load(PATH, weights_only=False)[KEY], NEW), "
    "where KEY is what it stands under"
)


def read_weights(path: Path) -> Weights:
    """Read a state dict onto the CPU, in the precision it is stored in.

    `.safetensors` files are read as they are. `.pt`, `.pth` and `.pyth` files are read without running code
    (`weights_only=True`); a state dict inside `state_dict`, `model_state_dict`, `model_state` or `model` is found, and
    a prefix `module.` or `_orig_mod.` that all names share is taken off.

    Raises:
        WeightsError: no such file, an unknown suffix, a damaged file, or content that is no state dict.
    """
    return state_dict_of(read_content(path), path)


def read_content(path: Path) -> Any:
    """What a weights file holds, as `read_weights` reads it. Raises WeightsError."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file", next_step="check the path")
    reader = _READERS.get(path.suffix)
    if reader is None:
        raise WeightsError(
            f'{path}: unknown suffix "{path.suffix}"', next_step=f"give a file that ends in {', '.join(_READERS)}"
        )
    try:
        return reader(path)
    except Exception as error:  # a damaged file makes the readers raise almost anything
        if foreign := re.search(r"GLOBAL (\S+) was not an allowed", str(error)):
            message = f"{path}: holds {foreign[1]} beside tensors, and reading that could run code"
            raise WeightsError(message, next_step=_TENSORS_ALONE) from error
        reason = (str(error) or type(error).__name__).splitlines()[0]
        message = f"{path}: damaged, or no weights file: {reason}"
        raise WeightsError(message, next_step="fetch or write the file again") from error


def state_dict_of(content: Any, path: Path) -> Weights:
    """The state dict in the content of a file, without the prefixes that wrappers put before every name."""
    weights = _state_dict(content, path)
    while shared := next((prefix for prefix in _PREFIXES if all(name.startswith(prefix) for name in weights)), None):
        weights = {name.removeprefix(shared): value for name, value in weights.items()}
    return weights


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], *, ignore: Sequence[str] = (), source: str) -> None:
    """Copy `weights` into `module`, all or nothing, cast to the dtypes and devices the module has.

    ignore: prefixes of names left alone, both in `weights` and in `module`.
    source: where the weights come from, for the message.

    Raises:
        WeightsError: lists every missing, unexpected and mis-shaped name; the module is then unchanged.
    """
    wanted = _considered(module.state_dict(), ignore)
    given = _considered(weights, ignore)
    missing = [name for name in wanted if name not in given and not name.endswith(_COUNTER)]
    unexpected = [name for name in given if name not in wanted]
    shared = [name for name in wanted if name in given]
    mis_shaped = [
        f"{name} ({_shape(given[name])} given, {_shape(wanted[name])} wanted)"
        for name in shared
        if given[name].shape != wanted[name].shape
    ]
    if missing or unexpected or mis_shaped:
        raise WeightsError(
            f"{source}: the weights do not fit the model",
            missing=missing,
            unexpected=unexpected,
            mis_shaped=mis_shaped,
            next_step="name the model these weights belong to (--set model.name=NAME), or other weights",
        )
    with torch.no_grad():
        for name in shared:
            wanted[name].copy_(given[name])


_READERS: dict[str, Callable[[Path], Any]] = {
    ".safetensors": load_file,
    **dict.fromkeys((".pt", ".pth", ".pyth"), partial(torch.load, map_location="cpu", weights_only=True)),
}


def _state_dict(content: Any, path: Path) -> Weights:
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if isinstance(content, Mapping) and content and all(isinstance(value, Tensor) for value in content.values()):
        return {str(name): value for name, value in content.items()}
    raise WeightsError(
        f"{path}: holds no state dict (names mapped to tensors)",
        next_step="write one with torch.save(model.state_dict(), PATH)",
    )


def _considered(weights: Mapping[str, Tensor], ignore: Sequence[str]) -> Weights:
    return {name: value for name, value in weights.items() if not name.startswith(tuple(ignore))}


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
