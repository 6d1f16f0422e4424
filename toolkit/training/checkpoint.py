"""Checkpoints: everything a run needs to go on, in one file that is whole or absent."""

from __future__ import annotations

import io
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from toolkit.api.errors import CheckpointError, RunFailed
from toolkit.api.files import write_atomically

FORMAT = 1


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state` (tensors and plain values) atomically; a failure leaves the file before it untouched.

    Raises RunFailed when the file system refuses.
    """
    run = shlex.quote(str(path.parent))
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    try:
        write_atomically(path, buffer.getvalue())
    except OSError as error:
        raise RunFailed(
            f"{path}: cannot be written: {error.strerror or error}; what was there before is untouched",
            next_step=f"make room or mend the folder, then: python -m toolkit run --resume {run}",
        ) from error


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU without running code from it. Raises CheckpointError."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: no checkpoint here", next_step="name a run that has one, or train anew"
        ) from error
    except Exception as error:
        raise CheckpointError(
            f"{path}: not a readable checkpoint ({type(error).__name__})",
            next_step="name another run, or start anew",
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: not a checkpoint of this version (format {FORMAT})", next_step="train anew with this version"
        )
    return state
