"""Equal networks are traced once a process: that takes longer than all else of an export, and small runs end alike."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    import onnx


class _Content(pickle.Pickler):
    """Writes tensors as what they hold, not as where, and sets in one order."""

    def persistent_id(self, found: object) -> object:
        if isinstance(found, set | frozenset):
            return type(found).__name__, sorted(found, key=repr)
        if not isinstance(found, torch.Tensor):
            return None
        held = sha256(found.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
        return type(found).__name__, str(found.dtype), tuple(found.shape), held


def content(found: object) -> bytes:
    """A digest that is equal only for what is equal in all that it holds. Raises what pickle raises."""
    written = io.BytesIO()
    _Content(written).dump(found)
    return sha256(written.getvalue()).digest()


def once(trace: Callable[..., onnx.ModelProto]) -> Callable[..., onnx.ModelProto]:
    """`trace`, which gives copies of one graph for equal arguments; of those that cannot be compared, one each time."""
    kept: dict[bytes, bytes] = {}

    def traced(*asked: Any) -> onnx.ModelProto:
        import onnx

        try:
            key = content(asked)
        except (pickle.PicklingError, AttributeError, TypeError):  # of a class inside a function, say
            return trace(*asked)
        if key not in kept:
            kept[key] = trace(*asked).SerializeToString()
        return onnx.ModelProto.FromString(kept[key])

    return traced
