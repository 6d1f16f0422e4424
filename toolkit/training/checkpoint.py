"""Checkpoints: everything a run needs to go on or to be used, each in one file that is whole or absent."""

from __future__ import annotations

import io
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self, get_type_hints, is_typeddict

import torch
from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError
from torch import Tensor, nn

from toolkit.api.contracts import Objective
from toolkit.api.errors import CheckpointError, RunFailed, first_few
from toolkit.api.files import special_kind, write_atomically
from toolkit.data.store.corrupt import Met, Skipped
from toolkit.system.checkpoints import FORMAT, is_current, is_whole, seal
from toolkit.system.choices import Precision
from toolkit.training.sharded import load
from toolkit.training.state import SavedState, State
from toolkit.transfer.files import load_plainly, unusable_tensors

_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True)
_MISFITS = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
"""What `load_state_dict` of plugins and of torch raises for a state that does not fit."""
_NAME_ANOTHER = "name another run, or train again"


def _is_recipe(text: str) -> str:
    try:
        epochs = tomllib.loads(text)["train"]["epochs"]
    except (KeyError, TypeError) as error:
        raise ValueError("expected a recipe") from error
    if not isinstance(epochs, int):
        raise ValueError("expected a number of epochs")
    return text


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What was trained, on what: stands in every checkpoint of a run."""

    recipe: Annotated[str, AfterValidator(_is_recipe)]
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
    answers: bool = True
    """Whether the head was trained, and not the backbone alone."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One file. Tensors and plain values only, so that reading it runs no code."""

    origin: Origin

    def save(self, path: Path) -> None:
        """Write atomically, with a checksum; a failure leaves the file before it untouched. Raises RunFailed where the
        file system refuses."""
        run = shlex.quote(str(path.parent))
        archive = io.BytesIO()
        torch.save({"format": FORMAT, **vars(self), "origin": vars(self.origin)}, archive)
        seal(archive)
        try:
            write_atomically(path, archive.getvalue())
        except OSError as error:
            raise RunFailed(
                f"{path}: cannot be written: {error.strerror or error}; what was there before is untouched",
                next_step=f"free disk space or fix the folder, then: python -m toolkit run --resume {run}",
            ) from error

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read onto the CPU. Raises CheckpointError for a file that is missing, damaged, of another version or of
        another kind, and for weights that are not finite."""
        found, whole = _read(path)
        if not isinstance(found, dict) or not is_current(found.get("format")):
            raise CheckpointError(
                f"{path}: not a checkpoint of this version (format {FORMAT})",
                next_step="train again with this version",
            )
        if not whole:
            raise _unusable(path, "it has no checksum, so another program wrote it")
        del found["format"]
        origin = found.get("origin")
        if not _fits(cls, found) or not isinstance(origin, dict) or not _fits(Origin, origin):
            raise CheckpointError(
                f"{path}: not what this version saves here (expected {', '.join(sorted(_names(cls)))})",
                next_step=_NAME_ANOTHER,
            )
        if wrong := [*_wrong(Origin, origin), *_wrong(cls, found)]:
            raise _unusable(path, f"unexpected values of {', '.join(wrong)}")
        checkpoint = cls(**{**found, "origin": Origin(**origin)})
        checkpoint._require_finite(path)
        return checkpoint

    def networks(self) -> Iterator[Mapping[str, Tensor]]:
        """The weights that may be evaluated."""
        yield from ()

    def _require_finite(self, path: Path) -> None:
        for weights in self.networks():
            if unusable := unusable_tensors(weights):
                raise _unusable(path, f"expected plain tensors, got {first_few(unusable)}")
            if broken := [name for name, value in weights.items() if not bool(torch.isfinite(value).all())]:
                raise _unusable(path, f"weights that are not finite (NaN or infinite): {first_few(broken)}")


@dataclass(frozen=True, kw_only=True)
class LastCheckpoint(Checkpoint):
    """Where training stands: `last.pt`."""

    state: SavedState
    met: dict[str, Met]
    """Items that could not be read so far, or are damaged, by split."""

    def networks(self) -> Iterator[Mapping[str, Tensor]]:
        yield self.state["network"]
        if self.state["average"] is not None:
            yield self.state["average"]

    def restore(self, state: State, skipped: Mapping[str, Skipped], path: Path) -> None:
        """Bring `state`, and what is known of each split's items, to where training stands. Raises CheckpointError
        where they do not fit, and names `path`."""
        groups = [dict(group) for group in state.optimizer.param_groups]
        try:
            state.load_state_dict(self.state)
            for before, after in zip(groups, state.optimizer.param_groups, strict=True):
                _require_same_kinds(before, after)
            for name, one in skipped.items():
                one.merge(self.met[name])
        except _MISFITS as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise _unusable(path, f"its state does not fit the run ({reason})") from error


@dataclass(frozen=True, kw_only=True)
class BestCheckpoint(Checkpoint):
    """The weights of the best epoch: `best.pt`."""

    network: dict[str, Tensor]
    objective: dict[str, Tensor]
    epoch: int
    valid: dict[str, float]
    """Scalar scores of that epoch on the validation split."""

    def networks(self) -> Iterator[Mapping[str, Tensor]]:
        yield self.network

    def restore(self, network: nn.Module, objective: Objective, path: Path) -> None:
        """Put the weights into `network` and `objective`. Raises CheckpointError where they do not fit, and names
        `path`."""
        self.restore_network(network, path)
        with _fitting(path):
            objective.load_state_dict(self.objective)

    def restore_network(self, network: nn.Module, path: Path) -> None:
        """As `restore`, where no objective is needed."""
        with _fitting(path):
            load(network, self.network)


@contextmanager
def _fitting(path: Path) -> Iterator[None]:
    try:
        yield
    except _MISFITS as error:
        raise CheckpointError(
            f"{path}: does not fit the model of this recipe with these overrides",
            next_step="run the same command without the overrides of the model",
        ) from error


def _read(path: Path) -> tuple[Any, bool | None]:
    """The content of a checkpoint, and whether its bytes match its checksum."""
    try:
        if special := special_kind(path.stat()):
            raise CheckpointError(f"{path}: expected a regular file, got {special}", next_step=_NAME_ANOTHER)
        with path.open("rb") as file:
            whole = is_whole(file)
            content = None if whole is False else load_plainly(file)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: checkpoint not found", next_step="name a run that has one, or train again"
        ) from error
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file makes the reader raise almost anything
        raise CheckpointError(
            f"{path}: not a readable checkpoint ({type(error).__name__})", next_step=_NAME_ANOTHER
        ) from error
    if whole is False:
        raise _unusable(path, "its bytes do not match its checksum")
    return content, whole


def _unusable(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path}: damaged checkpoint: {reason}", next_step=_NAME_ANOTHER)


def _require_same_kinds(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Raise ValueError where a group of an optimizer has other settings than before, or settings of other types."""
    if before.keys() != after.keys():
        raise ValueError("a parameter group has other settings")
    for name, value in before.items():
        number = isinstance(value, int | float) and isinstance(after[name], int | float)
        if value is not None and not number and type(value) is not type(after[name]):
            raise ValueError(f"unexpected value of {name} in a parameter group")


def _wrong(kind: type[Any], found: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The fields whose values are of another type than `kind` says."""
    wrong: list[str] = []
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if hint is Origin:
            continue
        value = found[name]
        if is_typeddict(hint):
            fitting = isinstance(value, dict) and _fits(hint, value)
            wrong += _wrong(hint, value, f"{name}.") if fitting else [name]
            continue
        try:
            TypeAdapter(hint, config=_STRICT).validate_python(value)
        except ValidationError:
            wrong.append(prefix + name)
    return wrong


def _names(kind: type[Any]) -> set[str]:
    return {*get_type_hints(kind)}


def _fits(kind: type[Any], found: Mapping[str, Any]) -> bool:
    return _names(kind) == {*found}
