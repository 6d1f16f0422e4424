"""Weights put into a module: every tensor under its name and in its shape, or an error that lists what does not fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from toolkit.api.errors import WeightsError, first_few
from toolkit.transfer.files import read_weights
from toolkit.transfer.names import Reading, Spelling, Weights, readings
from toolkit.transfer.positions import Positions

__all__ = ["Known", "Positions", "Spelling", "Weights", "fits", "load_weights", "read_weights"]

_COUNTER = "num_batches_tracked"  # absent from files older than PyTorch 0.4.1; no default batch norm reads it
_ORDINARY = (torch.float32, torch.float16, torch.bfloat16)


INTERPOLATED = "positions "
"""What a note on tables that were interpolated begins with."""

Advice: TypeAlias = Callable[[Mapping[str, Tensor], WeightsError], str | None]


@dataclass(frozen=True)
class Known:
    """What a plugin knows of the weights files that users have for its models."""

    spellings: Sequence[Spelling] = ()
    """Names of other libraries for the same architectures."""
    advice: Advice | None = None
    """Returns the next step for weights that do not fit, from the weights and the error; None: the usual one."""
    positions: Sequence[Positions] = ()
    """Tables that are interpolated for inputs of another size than that of a file."""


NOTHING = Known()


@dataclass(frozen=True)
class Fit:
    """How well one reading of a file fits a module."""

    reading: Reading
    given: Weights
    """What is copied, under the module's names."""
    ignored: Weights
    """Tensors of the file that belong to what the module's user replaces."""
    missing: Sequence[str]
    unexpected: Sequence[str]
    mis_shaped: Sequence[str]
    interpolated: Sequence[str] = ()
    """What was done to tables of positions."""

    @property
    def misfits(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.mis_shaped)

    @property
    def distance(self) -> int:
        """0 where it fits. Names outside a prefix may be dropped where the others fit, but make no reading better."""
        return self.misfits + len(self.reading.outside) if self.misfits else 0

    def changes(self) -> list[str]:
        """What was removed, translated, dropped and interpolated to make the file fit."""
        found = [f'prefix "{self.reading.prefix}" removed'] if self.reading.prefix else []
        if self.reading.spelling:
            found.append(f"names of {self.reading.spelling.source} translated")
        dropped = [f"{name} ({_shape(value)})" for name, value in self.ignored.items()]
        if dropped or self.reading.outside:
            found.append(f"dropped {first_few([*dropped, *self.reading.outside])}")
        return [*found, *self.interpolated]


def load_weights(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    ignore: Sequence[str] = (),
    source: str,
    known: Known = NOTHING,
) -> list[str]:
    """Copy `weights` into `module`, all or nothing, cast to the dtypes and devices the module has.

    Prefixes that frameworks put before names (`module.`, `model.`, `backbone.`, ...) are removed and names of other
    libraries translated where the weights then fit. Positions of another size are interpolated where `known` says how.
    Returns what was removed, translated, dropped, interpolated and cast.

    ignore: prefixes of names left alone, both in `weights` and in `module`.
    source: where the weights come from, for the message.
    known: other names of the tensors, and what to do with weights that do not fit.

    Raises:
        WeightsError: lists every missing, unexpected and mis-shaped name, or tensors whose values cannot be used; the
            module is then unchanged.
    """
    fit = _best_fit(module, weights, ignore, known)
    if fit.misfits:
        error = WeightsError(
            f"{source}: the weights do not fit the model",
            missing=fit.missing,
            unexpected=fit.unexpected,
            mis_shaped=fit.mis_shaped,
            next_step="name the model these weights belong to (--set model.name=NAME), or other weights",
        )
        error.next_step = (known.advice and known.advice(weights, error)) or error.next_step
        raise error
    wanted = module.state_dict()
    values, unusual = _cast(fit.given, wanted, source)
    with torch.no_grad():
        for name, value in values.items():
            wanted[name].copy_(value)
    return [*fit.changes(), *unusual]


def fits(module: nn.Module, weights: Mapping[str, Tensor], *, ignore: Sequence[str], known: Known = NOTHING) -> bool:
    """Whether `load_weights` finds each name in each shape; `module` may be on the meta device."""
    return not _best_fit(module, weights, ignore, known).misfits


def _best_fit(module: nn.Module, weights: Mapping[str, Tensor], ignore: Sequence[str], known: Known) -> Fit:
    wanted = module.state_dict()
    best: Fit | None = None
    for reading in readings(dict(weights), known.spellings):
        fit = _fit(reading, wanted, tuple(ignore), known.positions)
        if best is None or fit.distance < best.distance:
            best = fit
        if not best.misfits:
            break
    assert best is not None  # noqa: S101 - the first reading is the names as they are
    return best


def _fit(
    reading: Reading, wanted: Mapping[str, Tensor], ignore: tuple[str, ...], positions: Sequence[Positions]
) -> Fit:
    ignored = {name: value for name, value in reading.weights.items() if name.startswith(ignore)}
    needed = {name: value for name, value in wanted.items() if not name.startswith(ignore)}
    given = {name: value for name, value in reading.weights.items() if name not in ignored}
    if reading.spelling:
        given = {name: _reshaped(value, needed.get(name)) for name, value in given.items()}
    given, interpolated = fit_positions(given, {name: value.shape for name, value in needed.items()}, positions)
    shared = [name for name in needed if name in given]
    return Fit(
        reading,
        {name: given[name] for name in shared},
        ignored,
        [name for name in needed if name not in given and not name.endswith(_COUNTER)],
        [name for name in given if name not in needed],
        [
            f"{name} ({_shape(given[name])} given, {_shape(needed[name])} wanted)"
            for name in shared
            if given[name].shape != needed[name].shape
        ],
        interpolated,
    )


def fit_positions(
    weights: Weights, wanted: Mapping[str, torch.Size], positions: Sequence[Positions]
) -> tuple[Weights, list[str]]:
    """The weights with each table of positions in the wanted shape, where its rows show how, and a note on these."""
    found, grids = dict(weights), dict[str, list[str]]()
    for name, value in weights.items():
        for table in positions if value.shape != wanted.get(name, value.shape) else ():
            if table.has(name) and (fitted := table.fitted(value, wanted[name])):
                found[name] = fitted.value
                grids.setdefault(f"{fitted.given} to {fitted.wanted}", []).append(name)
    notes = [f"{first_few(names, 1)} interpolated from {change}" for change, names in grids.items()]
    return found, [f"{INTERPOLATED}{'; '.join(notes)}"] if notes else []


def _reshaped(value: Tensor, wanted: Tensor | None) -> Tensor:
    """Libraries write the same numbers as a 1x1 convolution and as a linear layer, as `[C]` and as `[C, 1, 1]`."""
    if wanted is None or value.shape == wanted.shape or value.numel() != wanted.numel():
        return value
    return value.reshape(wanted.shape) if value.shape[:1] == wanted.shape[:1] else value


def _cast(given: Weights, wanted: Mapping[str, Tensor], source: str) -> tuple[Weights, list[str]]:
    """The values in the dtypes of the module, and a note on dtypes that weights seldom have."""
    if strange := [f"{name} ({_dtype(value)})" for name, value in given.items() if not _castable(name, value, wanted)]:
        raise WeightsError(
            f"{source}: expected floating-point weights, got {first_few(strange)}",
            next_step="write the weights as floating-point tensors, before any quantization",
        )
    values = {name: value.to(wanted[name].dtype) for name, value in given.items()}
    if broken := [name for name, value in values.items() if not bool(torch.isfinite(value).all())]:
        raise WeightsError(
            f"{source}: the weights have values that are not finite (NaN or infinite) in {first_few(broken)}",
            next_step="name weights of a training that did not diverge",
        )
    unusual = {_dtype(value) for name, value in given.items() if _is_unusual(value, wanted[name])}
    return values, [f"cast from {' and '.join(sorted(unusual))}"] if unusual else []


def _castable(name: str, value: Tensor, wanted: Mapping[str, Tensor]) -> bool:
    if wanted[name].is_floating_point():
        return value.is_floating_point()
    return (
        value.dtype == wanted[name].dtype
        or (not value.is_floating_point() and not value.is_complex())
        or (name.endswith(_COUNTER) and value.is_floating_point())
    )


def _is_unusual(value: Tensor, wanted: Tensor) -> bool:
    return value.is_floating_point() and value.dtype not in (wanted.dtype, *_ORDINARY)


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
