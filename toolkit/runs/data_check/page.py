"""One self-contained page, `check.html`, of what a check found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from toolkit.api.files import as_utf8, write_atomically
from toolkit.recipe.places import without_places
from toolkit.runs.data_check.check import ISSUES, LABELS, REPORT, Checked
from toolkit.runs.data_check.findings import KINDS, Finding
from toolkit.runs.data_check.pictures import Shown, picture
from toolkit.runs.report.page import render

SHOWN = 24
"""Findings of each kind that the page shows."""
CLASSES = 200
"""Rows of the table of classes."""


@dataclass(frozen=True)
class Row:
    """A finding, with a picture where its items can be decoded."""

    finding: Finding
    picture: Shown | None


@dataclass(frozen=True)
class Section:
    """The findings of one kind."""

    kind: str
    meaning: str
    count: int
    pictured: tuple[Row, ...]
    listed: tuple[Row, ...]
    """Those without a picture."""

    @property
    def anchor(self) -> str:
        return self.kind.replace(" ", "-")


def write_page(checked: Checked, folder: Path) -> Path:
    """Write `folder/check.html`; its path."""
    template = Path(__file__).parent / "check.html.j2"
    sections = tuple(_sections(checked))
    counts = checked.items.counts
    page = render(
        template, {}, checked=checked, sections=sections, counts=counts, issues=ISSUES, labels=LABELS, most=CLASSES
    )
    file = folder / REPORT
    write_atomically(file, as_utf8(without_places(page)))
    return file


def _sections(checked: Checked) -> Iterator[Section]:
    positions = {(checked.items.split_name(item), name): item for item, name in enumerate(checked.items.ids)}
    for kind, count in checked.counts.items():
        rows = [_row(checked, finding, positions) for finding in checked.of_kind(kind)[:SHOWN]]
        pictured = tuple(row for row in rows if row.picture)
        yield Section(kind, KINDS[kind], count, pictured, tuple(row for row in rows if not row.picture))


def _row(checked: Checked, finding: Finding, positions: dict[tuple[str, str], int]) -> Row:
    named = ((finding.split, finding.item), (finding.other_split, finding.other))
    shown = [positions[name] for name in named if name in positions]
    readable = shown and not any(item in checked.seen.errors for item in shown)
    return Row(finding, picture(checked.items, *shown) if readable else None)
