"""The processes that train one run together, one for each device: which one this is, and how they agree.

`torchrun` starts them, or `run --ranks N`, which uses torch's own launcher. Rank 0 leads: it alone writes and prints.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from toolkit.api.errors import RunFailed, ToolkitError, UsageError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed.distributed_c10d import Store

T = TypeVar("T")

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
"""The environment in which a launcher starts each rank."""
_PR_SET_PDEATHSIG = 1
"""Of Linux's `prctl`."""


STORE_SECONDS = 5.0
"""How long the launcher's store may take to answer."""


class RanksLost(RunFailed):
    """Another rank ended, or does not answer."""


@dataclass(frozen=True)
class Ranks:
    """One process among those that train a run. The methods are collective: all ranks call them in the same order."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    """Of the ranks on this machine."""
    local_count: int = 1
    launcher: Store | None = field(default=None, repr=False, compare=False)
    """What the launcher keeps while it starts the ranks of a job again."""

    @property
    def leads(self) -> bool:
        return self.rank == 0

    @property
    def together(self) -> bool:
        """Whether there are several."""
        return self.count > 1

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.count}"

    def share(self, count: int) -> slice:
        """The contiguous part of `count` things that is this rank's. Lengths differ by 1 at most, the first ranks
        have the longer ones."""
        each, more = divmod(count, self.count)
        first = self.rank * each + min(self.rank, more)
        return slice(first, first + each + (self.rank < more))

    @property
    def place(self) -> tuple[int | str, ...]:
        """What makes a seed another one on each rank; nothing on the first."""
        return () if self.leads else ("rank", self.rank)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all ranks, on its device: the same bits on each."""
        if not self.together:
            return tensor
        import torch.distributed as dist

        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total

    def each(self, *numbers: float) -> list[list[float]]:
        """The numbers that each rank has, in their order."""
        if not self.together:
            return [list(numbers)]
        import torch
        import torch.distributed as dist

        own = torch.tensor(numbers, dtype=torch.float64)
        found = [torch.empty_like(own) for _ in range(self.count)]
        dist.all_gather(found, own)
        return [one.tolist() for one in found]

    def most(self, *numbers: float) -> list[float]:
        """The largest of each number over all ranks."""
        if not self.together:
            return list(numbers)
        import torch
        import torch.distributed as dist

        largest = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return largest.tolist()

    def least(self, number: float) -> float:
        """The smallest number over all ranks."""
        return -self.most(-number)[0]

    def gather(self, thing: T) -> list[T]:
        """What each rank has, in their order."""
        if not self.together:
            return [thing]
        import torch.distributed as dist

        things: list[Any] = [None] * self.count
        dist.all_gather_object(things, thing)
        return things

    def spread(self, make: Callable[[], T]) -> T:
        """What `make` returns on rank 0, which alone calls it."""
        things: list[Any] = [make()] if self.leads else [None]
        if self.together:
            import torch.distributed as dist

            dist.broadcast_object_list(things, src=0)
        return cast("T", things[0])

    def leave(self, name: str, text: str) -> None:
        """Leave a text for the ranks that the launcher starts in place of these, should these fail."""
        if self.launcher is not None:
            self.launcher.set(name, text)

    def left(self, name: str) -> str | None:
        """What earlier ranks of this job have left under this name."""
        if self.launcher is None or not self.launcher.check([name]):
            return None
        return str(self.launcher.get(name).decode())


ALONE = Ranks()


def launched() -> Ranks:
    """The rank that a launcher has given this process; `ALONE` without one. Raises UsageError for half of the
    variables."""
    found = {name: os.environ[name] for name in VARIABLES if os.environ.get(name, "").isdecimal()}
    if int(found.get("WORLD_SIZE", 1)) == 1:
        return ALONE
    if missing := [name for name in VARIABLES if name not in found]:
        raise UsageError(
            f"the environment has WORLD_SIZE but not {', '.join(missing)}",
            next_step="start ranks with torchrun or with --ranks N; for one process: unset WORLD_SIZE",
        )
    rank, count, local_rank, local_count = (int(found[name]) for name in VARIABLES)
    return Ranks(rank, count, local_rank, local_count)


def restarts() -> int:
    """How often the launcher has started the ranks of this job again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


@contextmanager
def joined(*, on_gpus: bool, seconds: float, resume: str | None = None) -> Iterator[Ranks]:
    """This process as one of its launcher's ranks, connected to the others within the block.

    Tensors on the CPU are exchanged by gloo, those on GPUs by NCCL. A collective that takes longer than `seconds`
    fails. Raises RanksLost where another rank is gone; `resume` is its next step. An error that several ranks raise is
    marked as `shown` on all but one.
    """
    ranks = launched()
    if not ranks.together:
        yield ranks
        return
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    _end_with_launcher()
    with connected(resume):
        launcher, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=seconds)))
        # ranks that are started again would take what failed ones have left for each other's
        store = dist.PrefixStore(f"attempt {restarts()}", launcher)  # type: ignore[attr-defined]  # it is public
        backend = "cpu:gloo,cuda:nccl" if on_gpus else "gloo"
        timeout = timedelta(seconds=seconds)
        dist.init_process_group(backend, store=store, rank=ranks.rank, world_size=ranks.count, timeout=timeout)
    try:
        with connected(resume):
            yield replace(ranks, launcher=launcher)
    except ToolkitError as error:
        if threading.current_thread() is threading.main_thread():
            # A launcher sends it to all ranks when one has ended, and this one is about to say why it ends.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        error.shown = not _is_first(store, error)
        raise
    finally:
        dist.destroy_process_group()


def _end_with_launcher() -> None:
    """Let Linux send SIGTERM to this rank when torch's launcher dies: a launcher that is killed cannot."""
    if "TORCHELASTIC_RUN_ID" in os.environ and sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def connected(next_step: str | None = None) -> Iterator[None]:
    """Turn a broken connection between ranks into RanksLost."""
    try:
        yield
    except RuntimeError as error:
        if not _is_lost(error):
            raise
        raise RanksLost(f"{launched()} lost the others: {_reason(error)}", next_step=next_step) from error


def _is_lost(error: RuntimeError) -> bool:
    """Whether an error says that another rank is gone. Gloo's are plain RuntimeErrors, known by their text alone."""
    import torch.distributed as dist

    words = ("gloo", "nccl", "connection reset", "connection closed", "connection refused", "timed out waiting")
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in words)


def _reason(error: RuntimeError) -> str:
    """An error's first sentence, without the place in the library's sources that it begins with."""
    first = next(iter(str(error).strip().splitlines()), type(error).__name__).partition(". ")[0]
    return re.sub(r"^\[[^\]]*\] *", "", first)


def _is_first(store: Store, error: ToolkitError) -> bool:
    """Whether no other rank has shown this error, as far as the machine that has the store can be reached."""
    answers: list[bool] = []
    # on a link that is cut, a question to the store may wait for its answer without end
    asking = threading.Thread(target=lambda: answers.append(_said_first(store, error)), daemon=True)
    asking.start()
    asking.join(STORE_SECONDS)
    return answers[0] if answers else True


def _said_first(store: Store, error: ToolkitError) -> bool:
    """Leave this error for the other ranks; whether none of them has shown it. That ranks are lost is worth showing if
    no rank has shown why."""
    key = "lost" if isinstance(error, RanksLost) else hashlib.sha256(error.message.encode()).hexdigest()
    try:
        if key == "lost" and store.check(["cause"]):
            return False
        if key != "lost":
            store.set("cause", error.message)
        return bool(store.add(key, 1) == 1)
    except RuntimeError:  # the machine that has the store is gone
        return True


def leave_for_launcher(lines: Sequence[str]) -> None:
    """Write what this rank ends with to where torch's launcher looks for it, if one started this process."""
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        message = {"message": "\n".join(lines), "extraInfo": {"timestamp": str(int(time.time())), "py_callstack": ""}}
        Path(file).write_text(json.dumps({"message": message}), encoding="utf-8")
