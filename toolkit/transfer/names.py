"""How the names in a weights file may be read: prefixes of wrappers removed, names of other libraries translated."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

Weights: TypeAlias = dict[str, Tensor]

PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.", "net.")
"""What DistributedDataParallel, torch.compile, Lightning modules and training frameworks put before each name."""
_DEPTH = 4  # of prefixes: module._orig_mod.model.backbone.
_PIECE = re.compile(r"(.+)@(\d)")


@dataclass(frozen=True)
class Spelling:
    """The names that another library gives to the tensors of one family of architectures."""

    source: str
    """Whose names they are, for the note: "timm's ViT"."""
    sign: str
    """A regular expression: a file in which no name matches it is not spelt so."""
    renames: Sequence[tuple[str, str]]
    """Regular expressions for whole names and what replaces them; the first that matches counts. A name that none
    matches stays. Replacements `NAME@0`, `NAME@1`, ... are the parts of one tensor, concatenated in this order."""
    dropped: str | None = None
    """A regular expression for names that this architecture does not need."""

    def translated(self, weights: Weights) -> Weights | None:
        """The weights under the names of the model; None where they are not spelt so."""
        if not any(re.fullmatch(self.sign, name) for name in weights):
            return None
        kept = [name for name in weights if not (self.dropped and re.fullmatch(self.dropped, name))]
        return _joined({self._renamed(name): weights[name] for name in kept})

    def _renamed(self, name: str) -> str:
        found = ((re.fullmatch(pattern, name), replacement) for pattern, replacement in self.renames)
        return next((match.expand(replacement) for match, replacement in found if match), name)


@dataclass(frozen=True)
class Reading:
    """One way to read the names of a file."""

    weights: Weights
    prefix: str = ""
    """Removed from the names."""
    outside: tuple[str, ...] = ()
    """Names that do not begin with it."""
    spelling: Spelling | None = None


def readings(weights: Weights, spellings: Sequence[Spelling]) -> Iterator[Reading]:
    """The names as they are, then without prefixes; each of these also translated by each spelling that applies."""
    plain = [Reading(weights)]
    for _ in range(_DEPTH + 1):
        yield from plain
        for reading in plain:
            for spelling in spellings:
                if (translated := spelling.translated(reading.weights)) is not None:
                    yield replace(reading, weights=translated, spelling=spelling)
        plain = [shorter for reading in plain for shorter in _without_prefix(reading)]


def _without_prefix(reading: Reading) -> Iterator[Reading]:
    for prefix in PREFIXES:
        outside = tuple(name for name in reading.weights if not name.startswith(prefix))
        if 2 * len(outside) < len(reading.weights):
            inside = [name for name in reading.weights if name.startswith(prefix)]
            weights = {name.removeprefix(prefix): reading.weights[name] for name in inside}
            yield Reading(weights, reading.prefix + prefix, reading.outside + outside)


def _joined(weights: Weights) -> Weights:
    """The parts of tensors concatenated, where all of them fit together."""
    whole: Weights = {}
    parts: dict[str, dict[int, Tensor]] = {}
    for name, value in weights.items():
        if piece := _PIECE.fullmatch(name):
            parts.setdefault(piece[1], {})[int(piece[2])] = value
        else:
            whole[name] = value
    for name, pieces in parts.items():
        ordered = [pieces[index] for index in sorted(pieces)]
        if all(one.ndim and one.shape[1:] == ordered[0].shape[1:] for one in ordered):
            whole[name] = torch.cat(ordered)
    return whole
