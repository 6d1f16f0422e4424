"""How one process computes its share of each batch: in parts, with layers that see the whole batch, and with gradients
that torch's DistributedDataParallel, or FSDP2, sums over ranks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from toolkit.api.contracts import Batch, Objective, Visit
from toolkit.data.loader import Share
from toolkit.system.ranks import ALONE, Ranks
from toolkit.training.asked import Asked
from toolkit.training.sharded import is_sharded, shard
from toolkit.training.whole_batch import Part, buffers_kept, drawing, drop_by_item, norm_over_ranks

_SYNC_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")  # the latter until torch 2.13
    if name in inspect.signature(DistributedDataParallel).parameters
)
"""Whether buffers are copied from rank 0 before each step. Statistics of the whole batch are the same on all ranks."""

Norm: TypeAlias = Literal["global", "local"]


Summed: TypeAlias = "Callable[[nn.Module], Tensor]"
"""From a network to the summed loss of some items."""


class Trained(nn.Module):
    """The network and its objective as one module: all that gradients are summed of. It puts out a whole loss, not what
    the network puts out: so torch sees which parameters of both this loss has reached."""

    def __init__(self, network: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.network, self.objective = network, cast(nn.Module, objective)

    def forward(self, summed: Summed) -> Tensor:
        return summed(self.network)


class Parallel:
    """Replaces layers of `network` and `objective` on construction; see `toolkit.training.whole_batch`.

    batch_norm: whether its statistics are those of the whole batch or those of a rank's share.
    by_item: whether dropout draws for the whole batch. Code that is compiled cannot, and draws for each rank.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        ranks: Ranks = ALONE,
        *,
        batch_norm: Norm = "global",
        by_item: bool = True,
    ) -> None:
        self.ranks = ranks
        self.scale = ranks.count
        """What a rank's loss is multiplied by: torch takes the mean of gradients over ranks, not their sum."""
        self._trained = Trained(network, objective)
        self._part = drop_by_item(self._trained) if by_item else Part()
        self._local = batch_norm == "local" and ranks.together
        if ranks.together and not self._local:
            norm_over_ranks(self._trained, ranks)
        self.waits = [0.0] * ranks.count
        """Seconds that each rank has waited for its data in this epoch, as far as this process has seen."""
        self._wrapped: DistributedDataParallel | None = None
        self.drawn_by_rank: Sequence[str] = ()
        """Layers that draw on each rank by themselves in training: with another number of ranks they draw otherwise."""
        self._wanted: list[str] = []

    def shard(self, *networks: nn.Module, device: torch.device) -> None:
        """Divide the network, and others of its kind, over the ranks, in place of DistributedDataParallel."""
        for network in networks:
            shard(network, device, self.ranks)

    def begin_epoch(self) -> None:
        """Look which parameters are trained from here on: the wrapper knows no parameters that are thawed later."""
        self.waits = [0.0] * self.ranks.count
        wanted = [name for name, parameter in self._trained.named_parameters() if parameter.requires_grad]
        if wanted != self._wanted:
            self._wanted, self._wrapped = wanted, None

    def computed(self, share: Share) -> nn.Module:
        """From what sums the loss of some items to that loss, whose gradients are summed over ranks. `share` is of the
        batch that comes next."""
        if self.ranks.together and self._wrapped is None and not is_sharded(self._trained.network):
            self._wrapped = self._wrap(share)
        return self._wrapped or self._trained

    def weight(self, share: Share) -> Tensor | int:
        """What the summed loss of the whole batch is divided by."""
        weight = cast(Objective, self._trained.objective).weight(share.targets)
        if not self.ranks.together:
            return weight
        return self.ranks.sum(torch.as_tensor(weight, device=share.targets.device))

    def parts(self, share: Share, accumulate: int, position: tuple[int, int, int]) -> Iterator[Batch]:
        """At most `accumulate` parts of a share, as many on each rank, for the caller to compute one by one. `position`
        is (seed, epoch, step). Gradients are summed during the last.

        Of A parts, an item is in the one that its place in the batch modulo A names. So the ranks compute the same
        items together as one rank does, and batch norm has the same statistics."""
        count = min(accumulate, *share.counts)
        visit = cast(Visit, share.visit)
        for number in range(count):
            part = slice((number - int(visit.places[0])) % count, None, count)
            places = visit.places[part]
            self._part.begin(*position, size=visit.size, places=places)
            unsummed = self._wrapped is not None and number < count - 1
            with cast(DistributedDataParallel, self._wrapped).no_sync() if unsummed else nullcontext():
                its = Visit(visit.items[part], places, visit.size)
                yield Batch(share.pixels[part], share.targets[part], share.index[part], its)
        self._part.end()

    def _wrap(self, share: Share) -> DistributedDataParallel:
        unreached = self._rehearse(self._trained, share)
        wrapped = DistributedDataParallel(
            self._trained,
            gradient_as_bucket_view=True,
            find_unused_parameters=bool(self.ranks.most(unreached)[0]),
            **cast(dict[str, Any], {_SYNC_BUFFERS: False}),
        )
        # After its first step the wrapper reorders gradients, and several ranks then add them in another order. Without
        # a step in advance, a run that resumes here would not have the bits of one that went on.
        self._rehearse(wrapped, share)
        return wrapped

    def _rehearse(self, computed: nn.Module, share: Share) -> bool:
        """Compute the gradients of two items and forget them; whether some parameters got none. The wrapper waits for
        all, unless it looks in each step for those that will not come."""
        with buffers_kept(self._trained):
            self._loss(computed, share.pixels[:2], share.targets[:2]).backward()
        unreached = any(one.grad is None for one in self._trained.parameters() if one.requires_grad)
        self._trained.zero_grad(set_to_none=True)
        return unreached

    def _loss(self, computed: nn.Module, pixels: Tensor, targets: Tensor) -> Tensor:
        objective = cast(Objective, self._trained.objective)
        loss: Tensor = computed(lambda network: objective.loss(Asked(network), pixels, targets))
        return loss

    @torch.no_grad()
    def watch_draws(self, share: Share) -> None:
        """Compute the loss of a batch, all of which is `share`, to see `drawn_by_rank`."""
        visit, training = cast(Visit, share.visit), self._trained.training
        self._trained.train()
        self._part.begin(0, 0, 0, size=visit.size, places=visit.places)
        with buffers_kept(self._trained), drawing(self._trained, share.pixels.device) as found:
            self._loss(self._trained, share.pixels, share.targets)
        self._part.end()
        self._trained.train(training)
        self.drawn_by_rank = [name.removeprefix("network.model.") or "the loss" for name in found]

    @torch.no_grad()
    def join_statistics(self, *networks: nn.Module) -> None:
        """Where each rank has batch norm statistics of its own, replace them by their mean over ranks."""
        if not self._local:
            return
        for network in networks:
            for buffer in network.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.ranks.sum(buffer) / self.ranks.count)
