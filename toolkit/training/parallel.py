"""Gradients that are summed over ranks while they are computed: torch's DistributedDataParallel around the network."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from toolkit.api.contracts import Objective
from toolkit.system.ranks import Ranks


class Trained(nn.Module):
    """The network, and whatever its objective trains, as one module: all that gradients are summed of."""

    def __init__(self, network: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.network, self.objective = network, cast(nn.Module, objective)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.network(pixels)
        return logits


class Parallel:
    """What one of several ranks asks in place of the network.

    A rank's loss is of its own share. `scale` makes its gradients those of the whole batch, since the wrapper takes
    the mean over ranks.
    """

    def __init__(self, network: nn.Module, objective: Objective, ranks: Ranks) -> None:
        self.ranks = ranks
        self._trained = Trained(network, objective)
        self._wrapped: DistributedDataParallel | None = None
        self._wanted: list[str] = []

    @property
    def scale(self) -> int:
        return self.ranks.count

    @property
    def network(self) -> nn.Module:
        """Takes pixels and gives outputs; backward sums gradients."""
        return self._trained.network if self._wrapped is None else self._wrapped

    def begin_epoch(self) -> None:
        """Wrap what is trained from here on: parameters that an epoch has thawed are new to the wrapper."""
        wanted = [name for name, parameter in self._trained.named_parameters() if parameter.requires_grad]
        if not self.ranks.together or wanted == self._wanted:
            return
        self._wanted = wanted
        self._wrapped = DistributedDataParallel(
            self._trained,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
            find_unused_parameters=self._some_unused(),
        )

    def part(self, *, last: bool) -> AbstractContextManager[Any]:
        """The context of one part of a batch: gradients are summed after the last."""
        return nullcontext() if last or self._wrapped is None else self._wrapped.no_sync()

    def _some_unused(self) -> bool:
        """Whether the network has parameters that no loss reaches, which the wrapper must look for in each step."""
        return False
