"""Which items come from one source and must stay on one side of a split."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from toolkit.api.errors import DataError, counted, first_few
from toolkit.data.folders import Listing
from toolkit.data.names import Files, Match, lenient_notes
from toolkit.data.tables import read_table
from toolkit.data.targets import FORMS

GROUP_TABLE = "groups.csv"
UNGROUPED = "none"
"""The rule where every item is a group of its own."""
_UCF101 = re.compile(r"(v_\w+_g\d{2})_c\d{2}\.\w+$")


@dataclass(frozen=True)
class Groups:
    """The group of each of N items, the rule that made them, and what a user must know."""

    names: tuple[str, ...]
    rule: str
    notes: tuple[str, ...] = ()


def compile_pattern(pattern: str | None) -> re.Pattern[str] | None:
    """The regular expression of the argument `group_pattern`. ValueError when it is invalid or has not one group."""
    if pattern is None:
        return None
    try:
        return re.compile(one_group(pattern))
    except ValueError as error:
        raise ValueError(f"group_pattern: {error}") from None


def one_group(pattern: str) -> str:
    """`pattern`, if it is a regular expression with one group in parentheses; else a ValueError that gives the reason.

    As the type of an argument, `Annotated[str, AfterValidator(one_group)]` checks it with the rest of a recipe.
    """
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"invalid regular expression: {error}") from None
    if groups != 1:
        raise ValueError(f"must have one group in parentheses, got {groups}")
    return pattern


def find_groups(listing: Listing, pattern: re.Pattern[str] | None, *, partial: bool = False) -> Groups:
    """Group by `pattern` where given; else by groups.csv where there is one; else by UCF101's names where all have
    that form (in v_Run_g01_c02.avi, the clips of g01 come from one video); else every item is a group of its own.

    partial: whether groups.csv may name files that the listing does not have.
    """
    table = listing.root / GROUP_TABLE
    if pattern is not None:
        return Groups(_matched(listing, pattern), f"pattern {pattern.pattern}")
    if table.exists():
        return _from_table(listing, table, partial=partial)
    if all(_UCF101.search(item) for item in listing.ids):
        note = (
            "file names have the form of UCF101, so clips of one group (g01, g02, ...) stay together; "
            "group_pattern = '(.+)' would put each clip in a group of its own"
        )
        return Groups(_matched(listing, _UCF101), "UCF101 names", (note,))
    return Groups(listing.ids, UNGROUPED)


def _matched(listing: Listing, pattern: re.Pattern[str]) -> tuple[str, ...]:
    names = [_captured(pattern, item) for item in listing.ids]
    without = [item for item, name in zip(listing.ids, names, strict=True) if name is None]
    if without:
        raise DataError(
            f"group_pattern {pattern.pattern} finds no group in {counted(len(without), 'path')}: {first_few(without)}",
            path=listing.root,
            next_step="Change data.group_pattern so that it fits every path relative to data.root.",
        )
    return tuple(name for name in names if name is not None)


def _captured(pattern: re.Pattern[str], item: str) -> str | None:
    found = pattern.search(item)
    return found.group(1) if found else None


def _from_table(listing: Listing, table: Path, *, partial: bool) -> Groups:
    positions = {item: position for position, item in enumerate(listing.ids)}
    files, named = Files(listing.root, listing.ids, lambda _: True), list[tuple[str, Match]]()
    grouped: dict[str, str] = {}
    unknown: list[str] = []
    form = FORMS[listing.form]
    labels, empty = ((), ()) if listing.form == "number" else (("label",), ("label",) if listing.form == "set" else ())
    for line, (written, *said, group) in read_table(table, ("path", *labels, "group"), may_be_empty=empty):
        match = files.find(written)
        if match is None:
            unknown.append(written)
            continue
        named.append((written, match))
        item = match.item
        for label in said:
            expected = form.in_words(listing.classes, listing.targets[positions[item]])
            _check_label(table, line, item, form.as_written(listing.classes, label), expected)
        if grouped.setdefault(item, group) != group:
            raise DataError(f"line {line}: {item} is in group {group}, earlier in {grouped[item]}", path=table)
    if unknown and not partial:
        raise DataError(
            f"{counted(len(unknown), 'path')} not among the files: {first_few(unknown)}",
            path=table,
            next_step=f"Write paths relative to {listing.root}, such as {listing.ids[0]}, or remove these lines.",
        )
    notes = (*lenient_notes(GROUP_TABLE, named), *_alone(listing, grouped))
    return Groups(tuple(_named(grouped, item) for item in listing.ids), GROUP_TABLE, notes)


def _check_label(table: Path, line: int, item: str, label: str, expected: str) -> None:
    if label != expected:
        raise DataError(
            f"line {line}: {item} is labelled {label or 'nothing'}, but its files say {expected or 'nothing'}",
            path=table,
            next_step="Correct the label here or where the item gets it: in a list, or by the folder of its class.",
        )


def _named(grouped: dict[str, str], item: str) -> str:
    return f"group {grouped[item]}" if item in grouped else f"item {item}"


def _alone(listing: Listing, grouped: dict[str, str]) -> tuple[str, ...]:
    alone = [item for item in listing.ids if item not in grouped]
    return (
        (f"{counted(len(alone), 'file')} not in {GROUP_TABLE}, each a group of its own: {first_few(alone)}",)
        if alone
        else ()
    )
