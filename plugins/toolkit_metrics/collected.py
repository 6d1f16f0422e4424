"""Tensors gathered batch by batch on the device they came from, copied to the host once, when a score is asked for."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Column: TypeAlias = NDArray[Any]


class Collected:
    """Values and targets, `[B, ...]` a batch each."""

    def __init__(self) -> None:
        self._batches: list[tuple[Tensor, Tensor]] = []

    def add(self, values: Tensor, targets: Tensor) -> None:
        """Keep copies: a model may overwrite what it hands out, and a loader too."""
        self._batches.append((values.detach().clone(), targets.detach().clone()))

    def columns(self) -> tuple[Column, Column]:
        """All values and all targets, `[N, ...]` each; N is 0 where nothing was added."""
        if not self._batches:
            return np.empty(0), np.empty(0, dtype=np.int64)
        values, targets = zip(*self._batches, strict=True)
        return torch.cat(values).cpu().numpy(), torch.cat(targets).cpu().numpy()
