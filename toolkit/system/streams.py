"""Standard output and standard error that nobody reads, or that were closed from the start."""

from __future__ import annotations

import os
import sys
from typing import TextIO


def open_closed_streams() -> None:
    """Let standard streams that were closed from the start lead nowhere, in the order of their numbers: each new file
    takes the lowest that is free, and what is printed would land in the next one that a command writes."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115 - as long as the process lives


def lead_nowhere(stream: TextIO) -> None:
    """Let what is still written to a stream be lost, without an error."""
    target = os.open(os.devnull, os.O_WRONLY)
    os.dup2(target, stream.fileno())
    os.close(target)
