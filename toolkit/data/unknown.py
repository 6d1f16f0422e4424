"""Classes that a model never learns, whose test items show what it does with what it does not know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from toolkit.api.contracts import Data
from toolkit.api.errors import unknown_name
from toolkit.data.selected import of_whole_items, selected
from toolkit.data.splits import NO_CLASS, SPLITS
from toolkit.data.videos import FramesOf

FEWEST_KNOWN = 2
"""Classes that have to stay: a model of one class can only say yes."""


def objections(data: Data, names: Sequence[str]) -> Iterator[str]:
    """Why the classes with these names cannot be held out."""
    if data.spec.targets != "index":
        yield "requires items with one class each"
        return
    known = data.spec.classes
    missing = [name for name in names if name not in known]
    for name in missing:
        yield unknown_name(f'the data has no class "{name}"', name, known)
    if len({*known} - {*names}) < FEWEST_KNOWN:
        yield f"must leave at least {FEWEST_KNOWN} of the {len(known)} classes"
    held = {known.index(name) for name in names if name in known}
    if not missing and held.isdisjoint(_whole(data.test).targets):
        yield "the test split has no item of these classes"


def with_unknown(data: Data, names: Sequence[str]) -> Data:
    """`data` without the items of the classes with these names; those of the test split become `Data.unknown`. There
    must be no `objections`."""
    held = {number for number, name in enumerate(data.spec.classes) if name in names}
    learnt = [number for number in range(len(data.spec.classes)) if number not in held]
    numbers = {before: now for now, before in enumerate(learnt)}
    known: dict[str, Any] = {
        split: of_whole_items(getattr(data, split), partial(_known, numbers=numbers)) for split in SPLITS
    }
    return replace(
        data,
        **known,
        unknown=of_whole_items(data.test, partial(_unknown, held=held)),
        spec=replace(data.spec, classes=tuple(data.spec.classes[number] for number in learnt)),
        protocol={**data.protocol, "unknown": ", ".join(sorted(names))},
    )


def _whole(split: Any) -> Any:
    """The videos, where the items are single frames of them."""
    return split.videos if isinstance(split, FramesOf) else split


def _known(split: Any, numbers: dict[int, int]) -> Any:
    kept = [place for place, target in enumerate(split.targets) if target in numbers]
    return selected(split, kept, tuple(numbers[split.targets[place]] for place in kept))


def _unknown(split: Any, held: set[int]) -> Any:
    kept = [place for place, target in enumerate(split.targets) if target in held]
    return selected(split, kept, (NO_CLASS,) * len(kept))
