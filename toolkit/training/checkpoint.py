"""Checkpoints: everything a run needs to go on or to be used, each in one file that is whole or absent."""

from __future__ import annotations

import io
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from toolkit.api.errors import CheckpointError, RunFailed
from toolkit.api.files import write_atomically
from toolkit.system.checkpoints import FORMAT
from toolkit.system.choices import Precision


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What was trained, on what: stands in every checkpoint of a run."""

    recipe: str
    """The resolved recipe, as TOML."""
    digest: str
    """Of that recipe: training goes on only under the same one."""
    classes: list[str]
    sample: bool
    protocol: dict[str, Any]
    """How the splits were made."""
    notes: list[str]
    """What the model had to say when it was built."""
    precision: Precision


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One file. Tensors and plain values only, so that reading it runs no code."""

    origin: Origin

    def save(self, path: Path) -> None:
        """Write atomically; a failure leaves the file before it untouched. Raises RunFailed where the file system
        refuses."""
        run = shlex.quote(str(path.parent))
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, **vars(self), "origin": vars(self.origin)}, buffer)
        try:
            write_atomically(path, buffer.getvalue())
        except OSError as error:
            raise RunFailed(
                f"{path}: cannot be written: {error.strerror or error}; what was there before is untouched",
                next_step=f"free disk space or fix the folder, then: python -m toolkit run --resume {run}",
            ) from error

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read onto the CPU. Raises CheckpointError."""
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError as error:
            raise CheckpointError(
                f"{path}: no checkpoint here", next_step="name a run that has one, or train anew"
            ) from error
        except Exception as error:
            raise CheckpointError(
                f"{path}: not a readable checkpoint ({type(error).__name__})",
                next_step="name another run, or start anew",
            ) from error
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise CheckpointError(
                f"{path}: not a checkpoint of this version (format {FORMAT})", next_step="train anew with this version"
            )
        del found["format"]
        origin = found.get("origin")
        if not _fits(cls, found) or not isinstance(origin, dict) or not _fits(Origin, origin):
            raise CheckpointError(
                f"{path}: not what this version saves here (expected {', '.join(sorted(_names(cls)))})",
                next_step="name another run, or start anew",
            )
        return cls(**{**found, "origin": Origin(**origin)})


@dataclass(frozen=True, kw_only=True)
class LastCheckpoint(Checkpoint):
    """Where training stands: `last.pt`."""

    state: dict[str, Any]
    """`State.state_dict()`."""
    skipped: dict[str, dict[int, str]]
    """Items that could not be read so far, by split: index to reason."""


@dataclass(frozen=True, kw_only=True)
class BestCheckpoint(Checkpoint):
    """The weights of the best epoch: `best.pt`."""

    network: dict[str, Tensor]
    objective: dict[str, Tensor]
    epoch: int
    valid: dict[str, float]
    """Scalar scores of that epoch on the validation split."""


def _names(kind: type[Any]) -> set[str]:
    return {field.name for field in fields(kind)}


def _fits(kind: type[Any], found: Mapping[str, Any]) -> bool:
    return _names(kind) == {*found}
