"""What a person has decided about the items of a dataset, in two files: which to exclude, and the labels of others.

`python -m toolkit data check` writes both files; a recipe takes them back as `data.exclude` and `data.relabel`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from toolkit.api.answers import names_in
from toolkit.api.contracts import Data, DataSpec, Target
from toolkit.api.errors import DataError, counted, first_few, unknown_name
from toolkit.data.selected import of_whole_items, selected
from toolkit.data.splits import SPLITS
from toolkit.data.tables import Table, open_table
from toolkit.data.videos import FramesOf

ITEM, DECISION, LABEL = "item", "decision", "label"
"""Columns of the files."""
EXCLUDE, KEEP = "exclude", "keep"
"""Decisions; an empty one keeps the item too."""


def reviewed(data: Data, exclude: Path | None, relabel: Path | None) -> Data:
    """`data` without the items that `exclude` names, and with the labels that `relabel` gives. The protocol gets a hash
    of each file, so that scores on other items or labels do not compare.

    exclude: a CSV with a column `item`; where it has a column `decision`, the rows whose decision is "exclude" count
    relabel: a CSV with the columns `item` and `label`; rows without a label change nothing

    Raises DataError naming the file where it cannot be read, names an item or a class that the data does not have, or
    changes nothing.
    """
    if exclude is None and relabel is None:
        return data
    known = {name for split in SPLITS for name in _whole(getattr(data, split)).ids}
    excluded = _excluded(exclude, known) if exclude else frozenset[str]()
    labels = _labels(relabel, known, data.spec) if relabel else {}
    given = {"exclude": exclude, "relabel": relabel}
    files = {name: _digest(file) for name, file in given.items() if file}
    review = partial(_reviewed, excluded=excluded, labels=labels)
    splits: dict[str, Any] = {split: of_whole_items(getattr(data, split), review) for split in SPLITS}
    notes = [f"excluded {counted(len(excluded), 'item')} by {exclude}"] if exclude else []
    notes += [f"changed {counted(len(labels), 'label')} by {relabel}"] if relabel else []
    return replace(data, **splits, protocol={**data.protocol, **files}, notes=(*data.notes, *notes))


def _whole(split: Any) -> Any:
    """The videos, where the items are single frames of them: files name these."""
    return split.videos if isinstance(split, FramesOf) else split


def _reviewed(split: Any, excluded: frozenset[str], labels: Mapping[str, Target]) -> Any:
    kept = [position for position, name in enumerate(split.ids) if name not in excluded]
    if len(kept) == len(split) and labels.keys().isdisjoint(split.ids):
        return split
    targets = tuple(labels.get(split.ids[position], split.targets[position]) for position in kept)
    return selected(split, kept, targets)


def _excluded(file: Path, known: set[str]) -> frozenset[str]:
    table = open_table(file)
    decides = DECISION in {name.lower() for name in table.header}
    rows = table.select((ITEM, DECISION) if decides else (ITEM,), may_be_empty=(DECISION,))
    for line, (_, *decision) in rows:
        if decision and decision[0] not in ("", EXCLUDE, KEEP):
            message = f"line {line}: {unknown_name(f'invalid decision {decision[0]!r}', decision[0], (EXCLUDE, KEEP))}"
            raise DataError(message, path=file, next_step=f"Write {EXCLUDE}, {KEEP} or nothing.")
    chosen = [(line, item) for line, (item, *decision) in rows if decision in ([], [EXCLUDE])]
    check_known(table, chosen, known)
    if not chosen:
        step = f"Write {EXCLUDE} into the column {DECISION} of a row, or remove data.exclude from the recipe."
        raise DataError("excludes no item", path=file, next_step=step)
    return frozenset(item for _, item in chosen)


def _labels(file: Path, known: set[str], spec: DataSpec) -> dict[str, Target]:
    if spec.targets == "number":
        step = "Correct the numbers in the list of the data, and remove data.relabel from the recipe."
        raise DataError("gives labels, but this data has numbers", path=file, next_step=step)
    table = open_table(file)
    rows = [(line, values) for line, values in table.select((ITEM, LABEL), may_be_empty=(LABEL,)) if values[1]]
    check_known(table, [(line, item) for line, (item, _) in rows], known)
    if not rows:
        step = f"Write the right class into the column {LABEL} of a row, or remove data.relabel from the recipe."
        raise DataError("changes no label", path=file, next_step=step)
    read = _one_class if spec.targets == "index" else _set_of_classes
    labels: dict[str, Target] = {}
    for line, (item, text) in rows:
        try:
            target = read(text, spec.classes)
        except KeyError as error:
            name = str(error.args[0])
            message = f"line {line}: " + unknown_name(f'no class "{name}"', name, spec.classes)
            raise DataError(message, path=file, next_step=f"The classes are {first_few(spec.classes, 10)}.") from error
        if labels.setdefault(item, target) != target:
            message = f"line {line}: {item} has another label than in an earlier line"
            raise DataError(message, path=file, next_step="Keep one of the lines.")
    return labels


def _one_class(text: str, classes: Sequence[str]) -> Target:
    return {name: number for number, name in enumerate(classes)}[text]


def _set_of_classes(text: str, classes: Sequence[str]) -> Target:
    return tuple(sorted({int(_one_class(name, classes)) for name in names_in(text)}))  # type: ignore[arg-type]


def check_known(table: Table, rows: Sequence[tuple[int, str]], known: Collection[str]) -> None:
    """Raise DataError where the rows, each with the number of its line, name items that are not `known`."""
    unknown = [(line, item) for line, item in rows if item not in known]
    if unknown:
        line = unknown[0][0]
        message = f"line {line}: names {counted(len(unknown), 'item')} that the data does not have: "
        listed = first_few([name for _, name in unknown])
        step = f"Names are those of the data, such as {min(known)}." if known else None
        raise DataError(f"{message}{listed}", path=table.path, next_step=step)


def _digest(file: Path) -> str:
    """12 hexadecimal digits of the content."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]
