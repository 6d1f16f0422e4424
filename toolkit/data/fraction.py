"""A part of the training items, for curves of how a score depends on their number."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from toolkit.api.contracts import Data, Targets
from toolkit.data.selected import of_whole_items, selected
from toolkit.data.splits import classes_of
from toolkit.data.targets import FORMS

PROTOCOL_KEY = "train_fraction"


def with_fraction(data: Data, share: float, seed: int) -> Data:
    """`data` with `share` of its training items, 0 to 1: at least one of each class, sources whole. Of one `seed` the
    items of a smaller share are among those of a larger one."""
    return replace(
        data,
        train=of_whole_items(data.train, partial(_part, data=data, share=share, seed=seed)),
        protocol={**data.protocol, PROTOCOL_KEY: share},
    )


def _part(split: Any, data: Data, share: float, seed: int) -> Any:
    strata = FORMS[data.spec.targets].strata(split.targets, data.spec.classes).targets
    kept = _chosen(split.ids, strata, data.sources, share, seed)
    return selected(split, kept, tuple(split.targets[position] for position in kept))


def _chosen(ids: Sequence[str], strata: Targets, sources: Mapping[str, str], share: float, seed: int) -> list[int]:
    """Positions, ascending. Sources come class by class in an order drawn from `seed`: first one of each class, then
    each where its class has got as far as the others."""
    units: dict[str, list[int]] = defaultdict(list)
    for position, name in enumerate(ids):
        units[sources.get(name, name)].append(position)
    by_class: dict[int, list[str]] = defaultdict(list)
    for name in sorted(units, key=lambda name: _drawn(seed, name)):
        by_class[classes_of(strata[units[name][0]])[0]].append(name)
    place = {
        name: (rank / len(names) if rank else -1.0, _drawn(seed, name))
        for names in by_class.values()
        for rank, name in enumerate(names)
    }
    wanted, kept = math.ceil(share * len(ids)), list[int]()
    for name in sorted(units, key=place.__getitem__):
        if len(kept) >= wanted and place[name][0] >= 0:
            break
        kept += units[name]
    return sorted(kept)


def _drawn(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogateescape")).hexdigest()
