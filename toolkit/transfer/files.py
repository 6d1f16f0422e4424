"""Weights files: what they hold, read without running code. The content of a file decides how it is read."""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import load_file
from torch import Tensor

from toolkit.api.errors import WeightsError, first_few
from toolkit.api.files import read_regular
from toolkit.system.checkpoints import is_whole
from toolkit.transfer.names import Weights

_WRAPPERS = (
    *("state_dict", "model_state_dict", "model_state", "model", "net"),
    *("model_ema", "ema", "state_dict_ema", "ema_state_dict"),
)
_ZIP, _PICKLE, _JSON = b"PK\x03\x04", b"\x80", b"{"
_AFTER_LENGTH = slice(8, 9)  # safetensors: eight bytes of length, then the header, which is JSON

_TENSORS_ALONE = (
    "if you trust the file, write its state dict alone: torch.save(torch.load(PATH, weights_only=False)[KEY], NEW), "
    "where KEY is the key of the state dict"
)
_WRITE_ONE = "write one with torch.save(model.state_dict(), PATH)"


def read_weights(path: Path) -> Weights:
    """Read a state dict onto the CPU, in the precision and under the names that it is stored in.

    The file is one of safetensors, one that `torch.save` wrote (`weights_only=True`: no code runs), or the index
    (`*.index.json`) of several of these. A state dict inside `state_dict`, `model_state_dict`, `model_state`, `model`,
    `net`, `model_ema`, `ema`, `state_dict_ema` or `ema_state_dict` is found.

    Raises:
        WeightsError: the file is missing, damaged or of another kind, or holds no state dict of plain tensors.
    """
    return state_dict_of(read_content(path), path)


def read_content(path: Path) -> Any:
    """What a weights file holds, as `read_weights` reads it. Raises WeightsError."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file", next_step="check the path")
    try:
        return _read(path)
    except WeightsError:
        raise
    except Exception as error:  # a damaged file makes the readers raise almost anything
        if foreign := re.search(r"GLOBAL (\S+) was not an allowed", str(error)):
            message = f"{path}: holds {foreign[1]} besides tensors, and reading that could run code"
            raise WeightsError(message, next_step=_TENSORS_ALONE) from error
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise _damaged(path, reason) from error


def state_dict_of(content: Any, path: Path) -> Weights:
    """The state dict in the content of the file at `path`. Raises WeightsError."""
    while isinstance(content, Mapping):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping) or not content or not all(isinstance(one, Tensor) for one in content.values()):
        raise WeightsError(f"{path}: holds no state dict (names mapped to tensors)", next_step=_WRITE_ONE)
    weights = {str(name): value for name, value in content.items()}
    if unusable := unusable_tensors(weights):
        raise WeightsError(
            f"{path}: expected plain tensors, got {first_few(unusable)}",
            next_step="write the weights as dense floating-point tensors, before any quantization",
        )
    return weights


def load_plainly(file: BinaryIO) -> Any:
    """What `torch.save` wrote, onto the CPU: tensors and plain values, without running code and without warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sparse and quantized tensors, which are refused
        return torch.load(file, map_location="cpu", weights_only=True)


def unusable_tensors(weights: Mapping[str, Tensor]) -> list[str]:
    """The tensors that have no plain values, each with the reason."""
    return [f"{name} ({reason})" for name, value in weights.items() if (reason := _unusable(value))]


def _unusable(value: Tensor) -> str | None:
    if value.is_meta:
        return "meta: without values"
    if value.is_nested:
        return "nested"
    if value.is_quantized:
        return "quantized"
    if value.layout is not torch.strided:
        return "sparse"
    return None


def _read(path: Path) -> Any:
    with path.open("rb") as file:
        if is_whole(file) is False:
            raise _damaged(path, "its bytes do not match its checksum")
        head = file.read(16)
    if head.startswith(_ZIP):
        _require_uncompressed(path)
    if head[_AFTER_LENGTH] == _JSON and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return load_file(path)  # before pickles: a length may begin with the byte that they begin with
    if head.startswith((_ZIP, _PICKLE)):
        with path.open("rb") as file:
            return load_plainly(file)
    if head.lstrip().startswith(_JSON):
        return _read_shards(path)
    raise _damaged(path, "expected a safetensors file, or one that torch.save wrote")


def _read_shards(path: Path) -> Weights:
    """The tensors that an index lists, from the files in its folder."""
    index = json.loads(read_regular(path))
    places = index.get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(place, str) for place in places.values()):
        raise _damaged(path, "expected a table weight_map of file names")
    if elsewhere := [place for place in places.values() if place != Path(place).name or place == path.name]:
        raise _damaged(path, f"expected names of other files in its folder, got {elsewhere[0]}")
    shards = {place: read_weights(path.parent / place) for place in sorted(set(places.values()))}
    if missing := [name for name, place in places.items() if name not in shards[place]]:
        raise _damaged(path, f"not in the files it lists: {first_few(missing)}")
    return {name: shards[place][name] for name, place in places.items()}


def _require_uncompressed(path: Path) -> None:
    """`torch.save` compresses nothing, and a small compressed file can fill the memory."""
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise _damaged(path, "a compressed archive, which torch.save does not write")


def _damaged(path: Path, reason: str) -> WeightsError:
    return WeightsError(f"{path}: damaged, or not a weights file: {reason}", next_step="fetch or write the file again")
