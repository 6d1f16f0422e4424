"""Several ranks in a test: processes that are connected as a launcher's would be.

They are forked from a server that has imported torch and computed nothing: a process whose autograd has threads cannot
be forked. They paint no figures.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tests.blank import blank
from tests.late import LATE
from toolkit.api.errors import ToolkitError
from toolkit.runs.report import figures
from toolkit.system.ranks import VARIABLES, Ranks, joined

# What a rank would import for seconds: for a step among others, and for a test of scores.
PRELOADED = ["tests.small", "torch.distributed.fsdp", "scipy.stats", *LATE]


def together(work: Callable[[Ranks], Any], count: int) -> list[Any]:
    """What `work`, which can be pickled, returns or raises on each of so many ranks that are connected."""
    return launched(partial(_connected, work), count)


def _connected(work: Callable[[Ranks], Any]) -> Any:
    try:
        with joined(on_gpus=False, seconds=30) as ranks:
            return work(ranks)
    except ToolkitError as error:
        return type(error).__name__, error.message, error.shown


def launched(work: Callable[[], Any], count: int, output: Path | None = None) -> list[Any]:
    """What `work` returns in each of so many processes in the environment of a launcher; None where it died. They print
    to `output`."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    ends = [context.Pipe() for _ in range(count)]
    processes = []
    for number, (_, end) in enumerate(ends):
        ranks = dict(zip(VARIABLES, map(str, (number, count, number, count)), strict=True))
        environment = {**os.environ, **ranks, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
        processes.append(context.Process(target=_be, args=(environment, Path.cwd(), output, work, end)))
    for process in processes:
        process.start()
    for _, end in ends:
        end.close()  # so that a rank that dies is the end of what it sends
    answers = [_received(end) for end, _ in ends]
    for process in processes:
        process.join(300)
        process.kill()
    return answers


def _received(end: Any) -> Any:
    """None from a rank that died."""
    try:
        return torch.load(io.BytesIO(end.recv_bytes()), weights_only=False) if end.poll(300) else None
    except EOFError:
        return None


def _be(environment: dict[str, str], folder: Path, output: Path | None, work: Callable[[], Any], end: Any) -> None:
    torch.set_num_threads(1)
    figures._png = blank
    os.environ.update(environment)
    os.chdir(folder)
    if output:
        sys.stdout = sys.stderr = output.open("a", buffering=1)
    content = io.BytesIO()
    torch.save(work(), content)  # the pipe's own way to send tensors needs a living sender
    end.send_bytes(content.getvalue())
