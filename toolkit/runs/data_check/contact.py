"""A page with pictures of each class, `contact.html`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from toolkit.api.files import as_utf8, write_atomically
from toolkit.build.plan import Plan
from toolkit.data.splits import NO_CLASS, classes_of
from toolkit.runs.data_check.items import Items
from toolkit.runs.data_check.pictures import Shown, picture
from toolkit.runs.report.page import render
from toolkit.runs.report.pictures import evenly_spaced

CONTACT = "contact.html"
MOST = 3000
"""Pictures of a page: where there are too many classes, fewer of each are shown."""


@dataclass(frozen=True)
class Portrait:
    """An item of a contact sheet."""

    name: str
    split: str
    label: str
    picture: Shown | None
    """None: it cannot be decoded."""


@dataclass(frozen=True)
class Sheet:
    """Some items of one class."""

    name: str
    count: int
    portraits: tuple[Portrait, ...]


def write_contact_sheet(planned: Plan, folder: Path, each: int) -> Path:
    """Write `folder/contact.html` with `each` items of each class, evenly spread over all of its items; its path."""
    items = Items.of(planned.data())
    members = _members(items)
    each = max(1, min(each, MOST // max(len(members), 1)))
    sheets = tuple(_sheets(items, members, each))
    template = Path(__file__).parent / "contact.html.j2"
    page = render(template, {}, name=planned.resolved.name, items=items, sheets=sheets, each=each, splits=items.counts)
    file = folder / CONTACT
    write_atomically(file, as_utf8(page))
    return file


def _members(items: Items) -> dict[str, list[int]]:
    """The items of each class, in the order of classes; of targets that are numbers all items together."""
    if items.spec.targets == "number":
        return {"all items": list(range(len(items)))}
    found = defaultdict[int, list[int]](list)
    for item, target in enumerate(items.targets):
        for number in classes_of(target):
            found[number].append(item)
    names = {NO_CLASS: "(no class)", **dict(enumerate(items.spec.classes))}
    return {names[number]: found[number] for number in sorted(found)}


def _sheets(items: Items, members: dict[str, list[int]], each: int) -> Iterator[Sheet]:
    for name, held in members.items():
        portraits = tuple(
            Portrait(items.ids[item], items.split_name(item), items.labels[item], picture(items, item))
            for item in evenly_spaced(held, each)
        )
        yield Sheet(name, len(held), portraits)
