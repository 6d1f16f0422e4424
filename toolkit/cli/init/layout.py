"""Which layout a folder has, and the labelled files that it names."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any

from toolkit.api.errors import DataError, counted, first_few
from toolkit.api.files import files_below
from toolkit.data.folders import Found, find_class_folders, folders, folders_with, passed_over, split_called
from toolkit.data.groups import GROUP_TABLE
from toolkit.data.kinds import items_below, wanted
from toolkit.data.labels import LabelForm
from toolkit.data.lists import Lists, find_listed
from toolkit.data.tables import PATH_COLUMNS, Table, open_table, read_header, read_lines

KAGGLE_TABLE = "Training_set.csv"
_FORMS = (LabelForm(), LabelForm("several"), LabelForm("several", ";"), LabelForm("several", ","))
_LINE = re.compile(r".+\.\w+\s+\S+")
_DEEPEST = 3
"""Folders in folders that are entered to find the data: archives often hold one or two."""


@dataclass(frozen=True)
class Layout:
    """What `init` recognises in a folder."""

    root: Path
    found: Found
    keys: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the dataset that say where the labels or numbers come from."""
    what: str = "class folders"
    notes: tuple[str, ...] = ()


def recognise(folder: Path, *, videos: bool) -> Layout:
    """The layout of the images or videos below `folder`: lists with labels, splits of class folders, or class folders.

    Raises DataError that says what was found and what is expected, where there is nothing to train on.
    """
    root = data_root(folder, videos=videos)
    entered = tuple(_above(folder, root))
    listed, unusable = _listed(root, videos=videos)
    if listed is not None:
        return Layout(root, listed.found, listed.keys, listed.what, entered)
    try:
        found = find_class_folders(root, videos=videos)
    except DataError as error:
        raise unusable or _nothing(root, error, videos=videos) from error
    ignored = (f"not used: {unusable.message}",) if unusable else ()
    what = "splits of class folders" if found.given else "class folders"
    return Layout(root, found, {}, what, (*entered, *ignored))


def data_root(folder: Path, *, videos: bool) -> Path:
    """The folder that holds the data: `folder`, or what it holds where that is one folder and nothing else."""
    for _ in range(_DEEPEST):
        inner = folders(folder)
        if len(inner) != 1 or split_called(inner[0]) or _tables(folder) or _has_files(folder, videos=videos):
            return folder
        if not folders(folder / inner[0]) and not _tables(folder / inner[0]):
            return folder  # a class folder
        folder = folder / inner[0]
    return folder


def _above(folder: Path, root: Path) -> Iterator[str]:
    """Notes on the folders from `folder` down to the data."""
    if folder != root:
        yield f"the data is in {root.relative_to(folder)}/ below it"
    for place in root.parents[: len(root.relative_to(folder).parts)]:
        yield from passed_over(place, below=False)


def _has_files(folder: Path, *, videos: bool) -> bool:
    return any(map(wanted(videos=videos), filter(Path.is_file, folder.iterdir())))


def _tables(folder: Path) -> list[Path]:
    """The files of `folder` that list items with labels, in order of name."""
    return [path for path in sorted(folder.iterdir()) if path.name != GROUP_TABLE and _lists_items(path)]


def _lists_items(path: Path) -> bool:
    if not path.is_file() or path.name.startswith("."):
        return False
    try:
        if path.suffix.lower() == ".csv":
            return len(open_table(path).header) > 1
        return path.suffix.lower() == ".txt" and bool(lines := read_lines(path)) and bool(_LINE.match(lines[0][1]))
    except DataError:
        return False


@dataclass(frozen=True)
class _Listed:
    found: Found
    keys: dict[str, Any]
    what: str


def _listed(root: Path, *, videos: bool) -> tuple[_Listed | None, DataError | None]:
    """The items that lists of `root` name, or what is wrong with the lists; (None, None) without lists."""
    tables = _tables(root)
    if not tables:
        return None, None
    files = _by_split(tables)
    if "train" not in files:
        names = first_few([path.name for path in tables])
        return None, DataError(f"no list for training among {names}", path=root, next_step=_expected(root, videos))
    first: DataError | None = None
    for form in _forms(root / files["train"]):
        try:
            found = find_listed(
                root, Lists(files["train"], files.get("valid"), files.get("test"), form=form), videos=videos
            )
        except DataError as error:
            first = first or _explained(error, root / files["train"])
            continue
        if form.several and not _shows_several(root / files["train"], found):
            break  # labels are missing, rather than several
        return _Listed(found, files | _keys(form), _described(files, form)), None
    return None, first


def _shows_several(table: Path, found: Found) -> bool:
    """Whether an item has several labels, or the column is called as one that may hold several."""
    named = "labels" in map(str.lower, read_header(table))
    return named or any(isinstance(target, tuple) and len(target) > 1 for target in found.listing.targets)


def _by_split(tables: list[Path]) -> dict[str, str]:
    """The list of each split, by words in the files' names; a list alone is for training."""
    named = {
        split: path.name for path in tables for word in re.split(r"[\W_]+", path.stem) if (split := split_called(word))
    }
    others = [path.name for path in tables if path.name not in named.values()]
    return named | ({"train": others[0]} if "train" not in named and len(others) == 1 else {})


def _forms(table: Path) -> Iterator[LabelForm]:
    """What the table may say of its items, the likeliest first."""
    numbers = tuple(_columns_of_numbers(open_table(table))) if table.suffix.lower() == ".csv" else ()
    measured = [name for name in numbers if name.lower() in {"label", "labels"}]
    yield from (LabelForm(numbers=(name,)) for name in measured)
    yield from _FORMS
    if numbers and not measured:
        yield LabelForm(numbers=numbers)


def _keys(form: LabelForm) -> dict[str, Any]:
    if form.numbers:
        return {"numbers": form.numbers[0] if len(form.numbers) == 1 else list(form.numbers)}
    return {"labels": form.labels} | ({"separator": form.separator} if form.separator else {}) if form.several else {}


def _described(files: Mapping[str, str], form: LabelForm) -> str:
    labels = "several labels" if form.several else "one label"
    said = f"numbers ({', '.join(form.numbers)})" if form.numbers else f"{labels} per item"
    return f"{first_few(sorted(files.values()))} with {said}"


def _explained(error: DataError, table: Path) -> DataError:
    """The error of a list, with what is expected where its columns are what is wrong."""
    if table.suffix.lower() != ".csv":
        return error
    opened = open_table(table)
    names = {name.lower() for name in opened.header}
    if opened.header and not names & {*PATH_COLUMNS, "youtube_id"}:
        return DataError(
            f"expected the columns path,label (or filename,label), got {opened.said}",
            path=table,
            next_step="Rename the columns in the first line of the file, then run the same command again.",
        )
    return error


def _columns_of_numbers(table: Table) -> Iterator[str]:
    """The columns that measure something: all their cells are numbers. Neither those that count the rows do, nor a
    column label of whole numbers, which are classes."""
    for place, name in enumerate(table.header):
        values = [_number(row[place]) for _, row in table.rows]
        if not values or not all(map(math.isfinite, values)):
            continue
        steps = {after - before for before, after in pairwise(values)}
        is_classes = name.lower() in {"label", "labels"} and all(map(float.is_integer, values))
        if steps != {1.0} and not is_classes:
            yield name


def _number(text: str) -> float:
    """NaN where the text is not a number."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _nothing(root: Path, error: DataError, *, videos: bool) -> DataError:
    """What is wrong where neither lists nor folders give labels; the reason of `find_class_folders` where it knows."""
    noun, other = ("video", "image") if videos else ("image", "video")
    matching, opposite = (sum(1 for _ in items_below(root, wanted(videos=one))) for one in (videos, not videos))
    expected = _expected(root, videos)
    if not matching and opposite:
        step = f"python -m toolkit init {other}s {root}"
        return DataError(f"no {noun}s, but {counted(opposite, other)}", path=root, next_step=step)
    if not matching:
        suffixes = Counter(PurePath(item).suffix.lower() for item in files_below(root, None))
        seen = ", ".join(f"{count:,} {suffix or 'without a suffix'}" for suffix, count in suffixes.most_common(4))
        return DataError(f"no {noun}s found ({seen or 'no files'})", path=root, next_step=expected)
    if not folders_with(root, wanted(videos=videos)):
        return DataError(f"{counted(matching, noun)} without labels: no class folders", path=root, next_step=expected)
    error.next_step = f"{error.next_step} {expected}" if error.next_step else expected
    return error


def _expected(root: Path, videos: bool) -> str:
    item = "video.mp4" if videos else "image.jpg"
    return (
        f"Expected one of these below {root}: CLASS/{item}; or train/CLASS/{item} with val/ and test/; or a table "
        f"train.csv with the columns path,label, or path and columns of numbers."
    )
