"""What a check finds about single items: each kind has one function that finds it."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolkit.api.contracts import FileProblem
from toolkit.data.folders import Listing
from toolkit.data.groups import GROUP_TABLE, UNGROUPED, find_groups
from toolkit.data.quality.alike import Close
from toolkit.data.quality.outliers import outliers
from toolkit.data.quality.similar import Pair
from toolkit.data.review import EXCLUDE
from toolkit.data.sources import suggest_source
from toolkit.data.splits import SPLITS, contents
from toolkit.runs.data_check.items import Items
from toolkit.runs.data_check.looking import Seen

KINDS: Mapping[str, str] = {
    "unreadable": "files that cannot be decoded",
    "skipped": "files that the dataset does not use",
    "damaged": "videos of which some frames cannot be decoded",
    "label conflict": "copies with unlike labels",
    "leak": "copies of one picture, or nearly one, in several splits",
    "source in several splits": "items of one source in several splits",
    "duplicate": "copies with the same pixels in one split",
    "near duplicate": "resized, re-compressed, mirrored, cropped or otherwise changed copies in one split",
    "likely label error": "labels that a model contradicts with confidence",
    "feature outlier": "items unlike all others in the features of a model",
    "size outlier": "much larger or smaller than others",
    "shape outlier": "much wider or taller than others",
    "brightness outlier": "much darker or brighter than others",
    "blur outlier": "much more blurred than others",
    "flat": "pictures that show almost nothing",
    "frame rate outlier": "videos of an unusual frame rate",
    "length outlier": "videos of an unusual length",
    "uneven frames": "videos whose frames last unequally long",
    "odd file": "stored in a way that reading changes",
}
"""The kinds of findings, the most serious first."""
COMMON = 0.5
"""Share of the files above which a way of storing is not odd: a line of the report names it instead."""
NAMED_ITEMS = 3
"""Items of a source that its finding names, of each split."""


@dataclass(frozen=True)
class Finding:
    """One row of issues.csv."""

    kind: str
    item: str
    split: str = ""
    label: str = ""
    other: str = ""
    """The item that this one is a copy of, or the first of its source."""
    other_split: str = ""
    other_label: str = ""
    score: float | None = None
    """How sure the finding is, or how far out; a higher one is worse."""
    method: str = ""
    """What shows that an item is a copy: its `bytes`, its `pixels`, its `thumbnail`, or its `features`."""
    detail: str = ""
    decision: str = ""
    """`exclude` where that is safe; a person decides the others."""

    @property
    def pair(self) -> bool:
        return bool(self.other)


def about(items: Items, kind: str, item: int, other: int | None = None, **more: object) -> Finding:
    """A finding about an item, and the other item that it concerns."""
    own = (items.ids[item], items.split_name(item), items.labels[item])
    its = ("", "", "") if other is None else (items.ids[other], items.split_name(other), items.labels[other])
    return Finding(kind, *own, *its, **more)  # type: ignore[arg-type]


def unreadable(items: Items, seen: Seen) -> Iterator[Finding]:
    for item, reason in sorted(seen.errors.items()):
        yield about(items, "unreadable", item, detail=reason, decision=EXCLUDE)
    for item, damage in sorted(seen.damage.items()):
        yield about(items, "damaged", item, score=damage.share, detail=str(damage))


def skipped(problems: Iterable[FileProblem]) -> Iterator[Finding]:
    """What the dataset itself has noted: files that are not items. Its duplicates are found here by content."""
    for problem in problems:
        if problem.problem.startswith("skipped"):
            yield Finding("skipped", problem.path, other=problem.other, detail=problem.problem)


def identical(items: Items, seen: Seen) -> tuple[list[Finding], list[tuple[int, int]]]:
    """Copies with the same bytes or the same pixels, each with the first of them; and their positions as pairs."""
    of_bytes = _identical_files(items)
    sets: dict[bytes, list[int]] = defaultdict(list)
    for item in np.flatnonzero(seen.usable):
        sets[seen.digests[item].tobytes()].append(int(item))
    found, pairs = [], []
    for copies in sets.values():
        first, *others = _preferred(items, copies)
        for other in others:
            pairs.append((first, other))
            same = of_bytes.get(other) is not None and of_bytes.get(other) == of_bytes.get(first)
            method = "bytes" if same else "pixels"
            found.append(_copy(items, first, other, method, f"the same {method}", decision=EXCLUDE))
    return found, pairs


def similar(items: Items, pairs: Iterable[Pair]) -> Iterator[Finding]:
    """Near duplicates by their thumbnails, each pair with the item first that is to go."""
    for pair in pairs:
        how = "mirrored" if pair.mirrored else "nearly the same picture"
        first, other = _preferred(items, pair[:2])
        yield _copy(items, first, other, "thumbnail", how, score=round(pair.likeness, 4))


def alike(items: Items, pairs: Iterable[Close]) -> Iterator[Finding]:
    """The same by their features."""
    for pair in pairs:
        first, other = _preferred(items, pair[:2])
        how = "nearly the same to a model"
        yield _copy(items, first, other, "features", how, score=round(pair.closeness, 4))


def _copy(
    items: Items, first: int, other: int, method: str, how: str, *, score: float = 1.0, decision: str = ""
) -> Finding:
    """What a copy is called: by the worst that it does. `decision` is for copies that agree with the first."""
    conflict = items.targets[first] != items.targets[other]
    apart = items.splits[first] != items.splits[other]
    alone = "duplicate" if method in ("bytes", "pixels") else "near duplicate"
    kind = "label conflict" if conflict else "leak" if apart else alone
    also = f"{how}, in another split" if apart else how
    decided = "" if conflict else decision
    return about(items, kind, other, first, score=score, method=method, detail=also, decision=decided)


def _preferred(items: Items, copies: Sequence[int]) -> list[int]:
    """The copies in the order in which they should be kept: those to test and to validate on before those to train on,
    so that scores stay those of the same items."""
    rank = {"test": 0, "valid": 1, "train": 2}
    return sorted(copies, key=lambda item: (rank[items.split_name(item)], item))


def _identical_files(items: Items) -> dict[int, int]:
    """The number of the set of byte-identical files that an item is in."""
    known = [(item, path) for item, path in enumerate(items.paths) if path is not None]
    if not known:
        return {}
    sets = contents([path for _, path in known]).identical
    return {known[place][0]: number for number, places in enumerate(sets) for place in places}


def spanning_sources(items: Items) -> Iterator[Finding]:
    """Items whose source is in several splits, by groups.csv where there is one, else as file names suggest."""
    for rule, names in _sources(items):
        members: dict[str, list[int]] = defaultdict(list)
        for item, name in enumerate(names):
            members[name].append(item)
        for name, held in members.items():
            splits = {int(items.splits[item]) for item in held}
            if len(splits) > 1:
                yield from _of_source(items, name.removeprefix("group "), rule, held, splits)


def _of_source(items: Items, name: str, rule: str, held: Sequence[int], splits: set[int]) -> Iterator[Finding]:
    """One finding for each item outside the split that has most of the source."""
    counts = Counter(items.split_name(item) for item in held)
    home = max(splits, key=lambda split: counts[SPLITS[split]])
    first = next(item for item in held if items.splits[item] == home)
    spread = ", ".join(f"{split} {count:,}" for split, count in sorted(counts.items()))
    for item in held:
        if items.splits[item] != home:
            detail = f"source {name} ({rule}): {spread}"
            yield about(items, "source in several splits", item, first, score=len(held), detail=detail)


def _sources(items: Items) -> Iterator[tuple[str, Sequence[str]]]:
    """A rule and the source of each item by it: groups.csv, even if the recipe has a pattern in its place; else as the
    dataset groups items; else as file names suggest. Nothing where no rule fits."""
    root = _root(items)
    if (root is None or not (root / GROUP_TABLE).is_file()) and (grouped := _grouped(items)):
        yield str(items.data.protocol.get("grouping", "as the dataset groups items")), grouped
        return
    if root is None:
        return
    listing = Listing(root, tuple(items.ids), tuple(items.targets), items.spec.classes, items.spec.targets)
    if (root / GROUP_TABLE).is_file():
        yield GROUP_TABLE, find_groups(listing, None, partial=True).names
    elif items.spec.targets == "index" and (
        source := suggest_source(listing, [*np.flatnonzero(items.splits == 0).tolist()])
    ):
        yield f"by {source.words} of the name", source.names


def _grouped(items: Items) -> Sequence[str]:
    """The source of each item as the dataset has it; empty where it groups none."""
    known = items.data.sources
    if not known or items.data.protocol.get("grouping") == UNGROUPED:
        return ()
    named = (known.get(name, known.get(f"{name}#0")) for name in items.ids)
    return [source or f"item {number}" for number, source in enumerate(named)]


def _root(items: Items) -> Path | None:
    """The folder that ids are relative to; None where the dataset has no files of these names."""
    path = next((path for path in items.paths if path is not None), None)
    if path is None:
        return None
    tail = Path(items.ids[items.paths.index(path)]).parts
    return Path(*path.parts[: -len(tail)]) if path.parts[-len(tail) :] == tail else None


def odd_measures(items: Items, seen: Seen, flat: NDArray[np.bool_]) -> Iterator[Finding]:
    """Outliers of size and shape (by a factor of 2 at least), brightness (40 of 255) and sharpness (a third); pictures
    that show nothing."""
    heights, widths = seen.sizes[:, 0].astype(float), seen.sizes[:, 1].astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        area, shape = np.log(np.sqrt(heights * widths)), np.log(widths / heights)
        # what is measured of reduced pictures: contrast is in both, and cancels
        sharpness = np.log(seen.sharpness.astype(float) / np.maximum(seen.contrast.astype(float), 1))
    area[~seen.usable] = shape[~seen.usable] = np.nan
    sharpness[flat] = np.nan
    sizes = [f"{int(width):,} x {int(height):,} px" for height, width in seen.sizes]
    light = [f"mean {value:.0f} of 255" for value in seen.brightness]
    for kind, values, least, text in (
        ("size outlier", area, math.log(2), sizes.__getitem__),
        ("shape outlier", shape, math.log(2), sizes.__getitem__),
        ("brightness outlier", seen.brightness.astype(float), 40.0, light.__getitem__),
        ("blur outlier", -sharpness, math.log(3), lambda item: f"sharpness {math.exp(sharpness[item]):.3f}"),
    ):
        scores = outliers(values, least)
        for item in np.flatnonzero(scores > 0 if kind == "blur outlier" else scores):
            yield about(items, kind, int(item), score=_far(scores[item]), detail=text(int(item)))
    for item in np.flatnonzero(flat):
        yield about(items, "flat", int(item), detail=f"contrast {seen.contrast[item]:.1f} of 255")


def odd_times(items: Items, seen: Seen) -> Iterator[Finding]:
    """Outliers of frame rate and length, and videos whose frames last unequally long."""
    order = sorted(seen.moving)
    rates = outliers(np.log([max(seen.moving[item].rate, 1e-3) for item in order]), math.log(1.2))
    lengths = outliers(np.log([max(seen.moving[item].seconds, 1e-3) for item in order]), math.log(2))
    for place, item in enumerate(order):
        one = seen.moving[item]
        if rates[place]:
            detail = f"{one.rate:.2f} frames a second"
            yield about(items, "frame rate outlier", item, score=_far(rates[place]), detail=detail)
        if lengths[place]:
            detail = f"{one.seconds:.2f} s, {one.frames:,} frames"
            yield about(items, "length outlier", item, score=_far(lengths[place]), detail=detail)
        if one.uneven:
            yield about(items, "uneven frames", item, detail=f"{one.rate:.2f} frames a second on average")


def _far(score: float) -> float | None:
    """A modified z-score without its sign; None where most items are equal, so that there is no unit."""
    return round(abs(float(score)), 2) if math.isfinite(score) else None


def odd_files(items: Items, seen: Seen) -> tuple[list[Finding], list[str]]:
    """Odd files, and in words what most files have in common."""
    counts = Counter(text for texts in seen.odd.values() for text in texts)
    common = {text for text, count in counts.items() if count > COMMON * len(items)}
    found = []
    for item, texts in sorted(seen.odd.items()):
        if odd := [text for text in texts if text not in common]:
            found.append(about(items, "odd file", item, detail="; ".join(odd)))
    return found, [f"{counts[text]:,} of {len(items):,} files: {text}" for text in sorted(common)]
