"""Several ranks in a test: forked processes that are connected as a launcher's would be."""

from __future__ import annotations

import io
import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

import torch

from toolkit.api.errors import ToolkitError
from toolkit.system.ranks import VARIABLES, Ranks, joined


def together(work: Callable[[Ranks], Any], count: int) -> list[Any]:
    """What `work` returns, or the error it raises, on each of so many ranks that are connected."""

    def connected() -> Any:
        try:
            with joined(on_gpus=False, seconds=30) as ranks:
                return work(ranks)
        except ToolkitError as error:
            return type(error).__name__, error.message, error.shown

    return launched(connected, count)


def launched(work: Callable[[], Any], count: int) -> list[Any]:
    """What `work` returns in each of so many processes in the environment of a launcher; None where it died."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    ends = [context.Pipe() for _ in range(count)]
    processes = [
        context.Process(target=_be, args=(number, count, port, work, ends[number][1])) for number in range(count)
    ]
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


def _be(number: int, count: int, port: int, work: Callable[[], Any], end: Any) -> None:
    torch.set_num_threads(1)
    os.environ.update(dict(zip(VARIABLES, map(str, (number, count, number, count)), strict=True)))
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port))
    content = io.BytesIO()
    torch.save(work(), content)  # the pipe's own way to send tensors needs a living sender
    end.send_bytes(content.getvalue())
