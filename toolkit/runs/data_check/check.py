"""The check as a whole: decode, compare, judge, and write what was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np

from toolkit.api.answers import percent
from toolkit.api.files import as_utf8, csv_text, write_atomically
from toolkit.build.plan import Plan
from toolkit.data.quality.alike import near_in_features
from toolkit.data.quality.similar import groups_of, near_duplicates
from toolkit.data.splits import NO_CLASS, SPLITS, classes_of
from toolkit.runs.data_check import findings as find
from toolkit.runs.data_check.features import Features, extractor, features
from toolkit.runs.data_check.findings import KINDS, Finding
from toolkit.runs.data_check.items import Items
from toolkit.runs.data_check.judging import Judged, judge, suggestions
from toolkit.runs.data_check.looking import Seen, look

ISSUES, LABELS, REPORT = "issues.csv", "labels.csv", "check.html"
"""Files of a check."""

Progress: TypeAlias = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Shows that a step of this name, of so many items, is under way; what it gives takes the number of items done."""


@dataclass(frozen=True, eq=False)
class Checked:
    """What a check has found."""

    name: str
    items: Items
    seen: Seen
    findings: tuple[Finding, ...]
    """By kind, in the order of `KINDS`, the worst of each kind first."""
    common: tuple[str, ...]
    """How most files are stored, where that is not the usual way."""
    features: Features | None
    judged: Judged | None

    @cached_property
    def counts(self) -> dict[str, int]:
        """Findings of each kind that was found, in the order of `KINDS`."""
        found = Counter(finding.kind for finding in self.findings)
        return {kind: found[kind] for kind in KINDS if found[kind]}

    def of_kind(self, kind: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.kind == kind]

    @cached_property
    def classes(self) -> list[tuple[str, tuple[int, ...]]]:
        """Each class with its items in each split; of items that show no class the name is empty."""
        if self.items.spec.targets == "number":
            return []
        counts = {split: Counter[int]() for split in SPLITS}
        for item, target in enumerate(self.items.targets):
            counts[self.items.split_name(item)].update(classes_of(target))
        names = [*enumerate(self.items.spec.classes), (NO_CLASS, "")]
        rows = [(name, tuple(counts[split][number] for split in SPLITS)) for number, name in names]
        return [(name, row) for name, row in rows if name or any(row)]


def check_data(planned: Plan, *, model: str | None, weights: str | None, workers: int, progress: Progress) -> Checked:
    """Check all items of a plan's data. Without `model` and `weights` no features are computed.

    Raises DataError where the data cannot be listed, and the errors of `extractor`.
    """
    data = planned.data()
    made = None if model is None and weights is None else extractor(planned, model, weights)
    items = Items.of(data)
    with progress("decode", len(items)) as done:
        seen = look(items, workers=workers, progress=done)
    copies, pairs = find.identical(items, seen)
    unique = seen.usable.copy()
    unique[[other for _, other in pairs]] = False
    near, flat = near_duplicates(seen.thumbs, items.splits, unique)
    odd, common = find.odd_files(items, seen)
    found = [
        *find.unreadable(items, seen),
        *find.skipped(data.files),
        *copies,
        *find.similar(items, near),
        *find.spanning_sources(items),
        *find.odd_measures(items, seen, flat),
        *find.odd_times(items, seen),
        *odd,
    ]
    of_model = judged = None
    if made is not None:
        with progress("features", len(items)) as done:
            of_model = features(made, progress=done)
        seen_alike = {pair[:2] for pair in near}
        compared = unique & ~flat & of_model.known
        close = [pair for pair in near_in_features(of_model.values, compared) if pair[:2] not in seen_alike]
        found += find.alike(items, close)
        groups = groups_of(len(items), [*pairs, *seen_alike, *(pair[:2] for pair in close)])
        judged, more = judge(items, of_model, groups)
        found += more
    return Checked(planned.resolved.name, items, seen, tuple(_sorted(found)), tuple(common), of_model, judged)


def _sorted(found: Sequence[Finding]) -> list[Finding]:
    rank = {kind: place for place, kind in enumerate(KINDS)}
    return sorted(found, key=lambda one: (rank[one.kind], -(np.inf if one.score is None else one.score), one.item))


def write_tables(checked: Checked, folder: Path) -> None:
    """Write issues.csv, and labels.csv where labels were judged, into `folder`."""
    header = [field.name for field in fields(Finding)]
    rows = ([_cell(getattr(finding, name)) for name in header] for finding in checked.findings)
    _write(folder / ISSUES, [header, *rows])
    if checked.judged is not None:
        header = ["item", "label", "given", "suggested", "score"]
        _write(folder / LABELS, [header, *suggestions(checked.items, checked.judged)])


def _write(file: Path, rows: Sequence[Sequence[object]]) -> None:
    write_atomically(file, as_utf8(csv_text(rows)))


def _cell(value: object) -> object:
    return "" if value is None else value


def lines(checked: Checked) -> Iterator[str]:
    """What a terminal shows: a row for each kind of finding, with the first item of it."""
    items = checked.items
    counts = ", ".join(f"{split} {count:,}" for split, count in items.counts.items())
    yield f"checked  {len(items):,} {'videos' if items.videos else 'images'}: {counts}"
    if not checked.counts:
        yield "issues   nothing was found"
    for kind, count in checked.counts.items():
        yield f"{count:>8,} {kind}: {_example(checked.of_kind(kind)[0])}"
    yield from (f"note     {text}" for text in checked.common)
    if checked.features is not None:
        yield f"features {checked.features.source}"
        yield from (f"note     {text}" for text in checked.features.notes)
    if checked.judged is not None:
        yield f"labels   {percent(checked.judged.accuracy)} agree with a model that has not seen them"
        for overlap in checked.judged.overlaps[:3]:
            yield f"overlap  {overlap.one} and {overlap.other}: {percent(overlap.share)} of their items"


def _example(finding: Finding) -> str:
    where = f" ({finding.split})" if finding.split else ""
    other = f" and {finding.other} ({finding.other_split})" if finding.other_split else ""
    return f"{finding.item}{where}{other}" + (f", {finding.detail}" if finding.detail else "")
