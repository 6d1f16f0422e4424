"""How labelled files are split: as folders and lists say, in shares that fit, by the groups that their names show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from toolkit.api.contracts import Data, Split, VideoSplit
from toolkit.api.errors import counted, first_few
from toolkit.cli.init.choices import Choice, counted_targets, counts_of
from toolkit.cli.init.layout import Layout
from toolkit.data.division import Division
from toolkit.data.folders import Found
from toolkit.data.groups import UNGROUPED, find_groups
from toolkit.data.labelled import labelled
from toolkit.data.sources import Source, suggest_source

FEW = 20
"""Items of a class below which larger shares are set aside."""
VERY_FEW = 10
"""Items of a class below which a score says little of it."""
MANY = 50_000
"""Items from which small shares are enough."""
EACH_ALONE = "(.+)"
"""A pattern that puts every item into a group of its own."""


@dataclass(frozen=True)
class Divided:
    """The splits of the files, the keys that make them, and what to be careful of."""

    data: Data
    choices: tuple[Choice, ...]
    warnings: tuple[str, ...]


def divide(layout: Layout) -> Divided:
    """Split the files of a layout as its recipe will. Raises DataError where they cannot be used."""
    found = layout.found
    shares = {key: share for key, share in _shares(found).items() if not _given(found, key)}
    source = _source(found) if shares else None
    group = Choice("group_pattern", source.pattern, _why_grouped(source)) if source else None
    pattern = source.pattern if source else None
    data, why, warnings = _labelled(found, shares, pattern), _why(found, shares), list(_few(found))
    undone = ""
    if shares.get("test_share") and _lacking(data, shares):
        without = shares | {"test_share": 0.0}
        fewer = _labelled(found, without, pattern)
        if _lacking(fewer, without) < _lacking(data, shares):
            undone = f" and test_share = {shares['test_share']}"
            shares, data, why = without, fewer, "there are too few groups for a test as well"
    if _empty(data, shares):
        shares = {key: share for key, share in _shares(found).items() if key in shares}
        group = Choice("group_pattern", EACH_ALONE, "each item alone: there are too few groups to split by them")
        data, why = _labelled(found, shares, EACH_ALONE), _why(found, shares)
        warnings.append(
            "items of one source are in several splits (there are too few sources to keep them apart), so scores can "
            "show the source instead of the class"
        )
    elif source:
        warnings.append(_how_ungrouped(source, undone))
    choices = [Choice(key, share, why if number == 0 else "") for number, (key, share) in enumerate(shares.items())]
    return Divided(data, (*choices, *([group] if group else [])), tuple(warnings))


def _splits(data: Data, shares: dict[str, float]) -> list[Split | VideoSplit]:
    """Those that are set aside."""
    return [getattr(data, key.removesuffix("_share")) for key, share in shares.items() if share]


def _empty(data: Data, shares: dict[str, float]) -> bool:
    return not all(len(split) for split in _splits(data, shares))


def _lacking(data: Data, shares: dict[str, float]) -> int:
    """How many classes the splits lack, summed."""
    if data.spec.targets == "number":
        return 0
    return sum(len(data.spec.classes) - len(counted_targets(split.targets)) for split in _splits(data, shares))


def _labelled(found: Found, shares: dict[str, float], pattern: str | None) -> Data:
    division = Division(shares.get("valid_share", 0.0), shares.get("test_share", 0.0), 0)
    compiled = re.compile(pattern) if pattern else None
    return labelled(found, division, group_pattern=compiled, clips=found.videos)


def _given(found: Found, key: str) -> bool:
    return found.given is not None and key.removesuffix("_share") in found.given.splits


def _smallest(found: Found) -> tuple[int, str]:
    """The number of items of the rarest class, and its name; of all items where they have numbers."""
    if found.listing.form == "number":
        return len(found.listing.ids), "all"
    counts = counts_of(found.listing)
    number = min(counts, key=lambda one: counts[one], default=0)
    return counts[number], found.listing.classes[number]


def _shares(found: Found) -> dict[str, float]:
    """Shares of the items for validation and test."""
    fewest, _ = _smallest(found)
    if fewest < 3:
        valid, test = 0.3, 0.0
    elif fewest < FEW:
        valid, test = 0.2, 0.2
    elif len(found.listing.ids) > MANY:
        valid, test = 0.05, 0.05
    else:
        valid, test = 0.15, 0.15
    return {"valid_share": valid, "test_share": test}


def _why(found: Found, shares: dict[str, float]) -> str:
    fewest, name = _smallest(found)
    if found.listing.form == "number":
        return f"of {counted(fewest, 'item')}, from every range of their numbers"
    if not all(shares.values()):
        return f"{counted(fewest, 'item')} of {name}: too few for a test as well"
    return f"of each class; the smallest, {name}, has {counted(fewest, 'item')}"


def _why_grouped(source: Source) -> str:
    return f"names show {len(set(source.names))} sources ({source.words}), each kept in one split"


def _how_ungrouped(source: Source, also: str) -> str:
    """The sources, and the keys to write where names do not mean any."""
    some = first_few(sorted(set(source.names)))
    return f'{_why_grouped(source)}: {some}; if these are not sources, write group_pattern = "{EACH_ALONE}"{also}'


def _source(found: Found) -> Source | None:
    """The source of each item that file names suggest, where nothing else gives groups."""
    listing = found.listing
    if find_groups(listing, None, partial=found.given is not None).rule != UNGROUPED:
        return None
    splits = found.given.splits if found.given else ("train",) * len(listing.ids)
    return suggest_source(listing, [position for position, split in enumerate(splits) if split == "train"])


def _few(found: Found) -> Iterator[str]:
    fewest, name = _smallest(found)
    if fewest < VERY_FEW and found.listing.form == "number":
        yield f"{counted(fewest, 'item')} in all: expect scores to vary by much from run to run; add items"
    elif fewest < VERY_FEW:
        yield f"{counted(fewest, 'item')} of class {name}: expect scores to vary by much from run to run; add items"
