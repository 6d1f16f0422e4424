"""Items named in lists: which file each line means, what it shows, and which split it belongs to."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from toolkit.api.contracts import FileProblem
from toolkit.api.errors import DataError, counted, first_few
from toolkit.api.files import files_below
from toolkit.data.division import Given
from toolkit.data.folders import Found, Listing, find_class_folders
from toolkit.data.kinds import is_image, listed_kind
from toolkit.data.labels import ONE_LABEL, SEVERAL, LabelForm, number_labels
from toolkit.data.names import Files, lenient_notes
from toolkit.data.tables import PATH_COLUMNS, read_header, read_lines, read_table
from toolkit.data.targets import FORMS

KINETICS = ("label", "youtube_id", "time_start", "time_end")
_OFFICIAL = (
    "Unpack the split files there: UCF101TrainTestSplits-RecognitionTask.zip of UCF101, or test_train_splits.rar of "
    "HMDB51; or remove data.official_split."
)
_OF_FRAMES = re.compile(r"[^\s.]+( \d+)*")
_WITH_NUMBERS = re.compile(r".+\.\w+( \d+)+")
_WITH_NAME = re.compile(r".+\.\w+ \S+")


@dataclass(frozen=True)
class Lists:
    """Which lists a recipe asks for."""

    train: str | None = None
    valid: str | None = None
    test: str | None = None
    official_split: int | None = None
    form: LabelForm = ONE_LABEL

    def __post_init__(self) -> None:
        if self.official_split and self.form.several:
            raise ValueError('labels: an official split has one label an item, got "several"')
        if self.official_split and self.form.numbers:
            raise ValueError("numbers: an official split has one label an item, no numbers")
        if self.official_split and self.files:
            raise ValueError(f"official_split: cannot be combined with {next(iter(self.files))}")
        if self.files and not self.train:
            raise ValueError(f"train: required with {next(iter(self.files))}")

    @property
    def given(self) -> bool:
        return bool(self.official_split or self.files)

    @property
    def files(self) -> dict[str, str]:
        """The lists that are named, by split."""
        named = {"train": self.train, "valid": self.valid, "test": self.test}
        return {split: file for split, file in named.items() if file is not None}


class Named(NamedTuple):
    """An item as a list names it."""

    path: str
    labels: tuple[str, ...]
    split: str


class NamedItems(NamedTuple):
    """What a list, or a set of official files, names."""

    place: Path
    items: list[Named]
    partial: bool = False
    """Whether it was published for videos that may be gone by now."""
    columns: tuple[str, ...] = ()
    """The classes that it has a column for, where it has one a class."""


def find_items(root: Path, lists: Lists, *, videos: bool) -> Found:
    """The items below `root` that lists name, or without lists those in its class folders, as `find_listed` and
    `find_class_folders` find them. Raises DataError where class folders are to give several labels an item."""
    if lists.given:
        return find_listed(root, lists, videos=videos)
    if lists.form.form != "index":
        raise needs_list(root, lists.form)
    return find_class_folders(root, videos=videos)


def needs_list(root: Path, form: LabelForm) -> DataError:
    """What is wrong where several labels or numbers an item are asked for and no list gives them."""
    if form.numbers:
        return DataError(
            "class folders give labels, but data.numbers needs numbers",
            path=root,
            next_step=f"Write them into a CSV (path,{','.join(form.numbers)}) and set data.train to it.",
        )
    return DataError(
        'class folders give each item one label, but data.labels is "several"',
        path=root,
        next_step='Write them into a CSV (path,labels) and set data.train to it, or set data.labels = "one".',
    )


def find_listed(root: Path, lists: Lists, *, videos: bool | None = None) -> Found:
    """The items below `root` that lists name, with their splits. Raises DataError when a list cannot be read, names
    what is not there, or contradicts another; the message names all problems of one kind.

    videos: what is listed; None: images if all files are, else videos
    """
    number, form = lists.official_split, lists.form
    named = lists.files.items()
    read = [_official(root, number)] if number else [read_list(root / file, split, form) for split, file in named]
    start = os.path.join(root, "")  # noqa: PTH118 (a Path a file costs seconds at 60k)
    files = Files(root, files_below(root, None), lambda item: listed_kind(start + item) is not None)
    located = [_locate(files, one) for one in read]
    items = [item for one in located for item in one.items]
    if videos is None:
        paths_named = [item.path for item in items] or [path for one in located for path in one.missing]
        videos = not all(is_image(start + path) for path in paths_named)
    noun = "video" if videos else "image"
    problems = [
        *(_Wrong(one.message(noun), _PATHS.format(root)) for one in located if not one.usable),
        *_unlike_columns(read),
    ] or list(_contradictions(items, form, noun))
    if problems:
        messages, steps = zip(*problems, strict=True)
        step = _hint(located, form) or " ".join(dict.fromkeys(steps))
        raise DataError("; ".join(messages), path=root, next_step=step)
    if foreign := [] if videos else sorted(item.path for item in items if listed_kind(root / item.path) == "video"):
        raise DataError(
            f"lists name {counted(len(foreign), 'video')}, expected images: {first_few(foreign)}",
            path=root,
            next_step='For videos set data.name = "video_folder"; or remove these lines.',
        )
    paths, labels, splits = zip(*sorted(set(items)), strict=True)
    classes, targets = number_labels(labels, form, (name for one in read for name in one.columns))
    given = Given(splits, f"official split {number}" if number else "lists")
    notes, problems_of_files = tuple(_notes(located, items, noun)), tuple(_file_problems(located, items))
    listing = Listing(root, paths, targets, classes, form.form)
    return Found(listing, videos=videos, notes=notes, given=given, files=problems_of_files)


def _hint(located: Sequence[_Located], form: LabelForm) -> str | None:
    """What to do where the lists are of another form."""
    missing = [path for one in located for path in one.missing]

    def all_missing_are(pattern: re.Pattern[str]) -> bool:
        return bool(missing) and all(pattern.fullmatch(path) for path in missing)

    # Of a frame folder's line the folder is left where several numbers at its end are labels.
    if all_missing_are(_OF_FRAMES) and (form.several or " " in missing[0]):
        return (
            "Lines of a folder, its number of frames and a label are MMAction2's lists of extracted frames: list the "
            "videos themselves, as lines of a path and a label."
        )
    if form.several and all_missing_are(_WITH_NAME):
        return "In lines labels are numbers: write names into a CSV with the columns path,labels."
    if all_missing_are(_WITH_NUMBERS):
        return f"Lines of a path and several numbers name several labels. {SEVERAL}"
    return None


def read_list(file: Path, split: str, form: LabelForm = ONE_LABEL) -> NamedItems:
    """The items that a list names: a CSV file with paths and labels as `form` says, or the columns of Kinetics; or
    lines of a path and, after the last blank, a label. Where items have several labels, these are the numbers at the
    end of the line, if any. Where items have numbers, the list is a CSV file with their columns."""
    read = _read_list(file, split, form)
    if not read.items:
        raise DataError("names no items", path=file, next_step="Write a line of a path and a label for each item.")
    return read


def _read_list(file: Path, split: str, form: LabelForm) -> NamedItems:
    if form.numbers:
        return _with_numbers(file, form, split)
    header = [name.lower() for name in read_header(file)]
    if "youtube_id" in header:
        if form.several:
            step = 'Set data.labels = "one", or write a CSV with the columns path,labels.'
            raise DataError("a table of Kinetics has one label a video", path=file, next_step=step)
        return NamedItems(
            file, [_of_kinetics(file, line, row, split) for line, row in read_table(file, KINETICS)], True
        )
    if set(header) & set(PATH_COLUMNS) or (file.suffix.lower() in (".csv", ".tsv") and len(header) > 1):
        table = form.read(file, PATH_COLUMNS)
        return NamedItems(file, [Named(row.item, row.labels, split) for row in table.rows], columns=table.columns)
    of_line = _of_numbers if form.several else _of_line
    return NamedItems(file, [of_line(file, line, text, split) for line, text in read_lines(file)])


def _with_numbers(file: Path, form: LabelForm, split: str) -> NamedItems:
    rows = form.read(file, PATH_COLUMNS).rows
    return NamedItems(file, [Named(row.item, row.labels, split) for row in rows])


def _of_numbers(_: Path, __: int, text: str, split: str) -> Named:
    """`path 3 7 12`, as of MMAction2; `path` alone has no label."""
    path, *numbers = re.split(r"((?:\s+\d+)+)$", text)
    return Named(path, tuple(sorted(set(numbers[0].split()))) if numbers else (), split)


def _of_line(file: Path, line: int, text: str, split: str) -> Named:
    path, *label = text.rsplit(maxsplit=1)
    if not label:
        raise DataError(
            f"line {line}: has no label, only {text}",
            path=file,
            next_step="Write a path, a blank and a label; for official lists set data.official_split instead.",
        )
    return Named(path, (label[0],), split)


def _of_kinetics(file: Path, line: int, row: Sequence[str], split: str) -> Named:
    label, name, *times = row
    try:
        start, end = (round(float(time)) for time in times)
    except (ValueError, OverflowError):
        raise DataError(
            f"line {line}: time_start and time_end must be seconds, got {','.join(times)}", path=file
        ) from None
    return Named(f"{name}_{start:06d}_{end:06d}.mp4", (label,), split)


def _official(root: Path, number: int) -> NamedItems:
    """An official split, its files in `root` or a folder of it."""
    of_ucf = [_beside(root, f"{split}list{number:02d}.txt") for split in ("train", "test")]
    if all(of_ucf):
        named = zip(("train", "test"), of_ucf, strict=True)
        return NamedItems(
            root, [_of_ucf(file, *line, split) for split, (file, *_) in named for line in read_lines(file)]
        )
    if of_hmdb := _beside(root, f"*_test_split{number}.txt"):
        return NamedItems(root, [one for file in of_hmdb for one in _of_hmdb(file)])
    raise DataError(
        f"has no official split {number}: neither trainlist{number:02d}.txt and testlist{number:02d}.txt of UCF101 nor "
        f"<class>_test_split{number}.txt of HMDB51",
        path=root,
        next_step=_OFFICIAL,
    )


def _beside(root: Path, name: str) -> list[Path]:
    places = ([place for place in root.glob(form) if not place.name.startswith(".")] for form in (name, f"*/{name}"))
    return sorted(next(filter(None, places), []))


def _of_ucf(file: Path, line: int, text: str, split: str) -> Named:
    """`Class/video.avi`, in the list for training with the number of the class."""
    path = PurePosixPath(text.split(maxsplit=1)[0])
    if not path.parent.name:
        raise DataError(f"line {line}: must name a class folder and a video, got {text}", path=file)
    return Named(str(path), (path.parent.name,), split)


def _of_hmdb(file: Path) -> Iterator[Named]:
    """`video.avi N`: N is 1 for training, 2 for the test and 0 for neither."""
    label = file.name.rpartition("_test_split")[0]
    for line, text in read_lines(file):
        name, _, number = text.rpartition(" ")
        if not name or number not in ("0", "1", "2"):
            raise DataError(f"line {line}: must name a video and 0, 1 or 2, got {text}", path=file)
        if number != "0":
            yield Named(f"{label}/{name.strip()}", (label,), "train" if number == "1" else "test")


class _Located(NamedTuple):
    """A list, each item of it with its path relative to the root, and those that are not there."""

    of: NamedItems
    items: list[Named]
    missing: list[str]
    notes: tuple[str, ...]
    """On names that are not those of the files."""

    def message(self, noun: str) -> str:
        missing = counted(len(self.missing), noun)
        return f"{self.of.place.name}: {missing} named there not found: {first_few(self.missing)}"

    @property
    def usable(self) -> bool:
        return not self.missing or (self.of.partial and bool(self.items))


def _locate(files: Files, of: NamedItems) -> _Located:
    found = [(item, files.find(item.path)) for item in of.items]
    matched = [(item, match) for item, match in found if match is not None]
    return _Located(
        of,
        [item._replace(path=match.item) for item, match in matched],
        [item.path for item, match in found if match is None],
        tuple(lenient_notes(of.place.name, ((item.path, match) for item, match in matched))),
    )


class _Wrong(NamedTuple):
    """What is wrong with lists, and what to do."""

    message: str
    step: str


_PATHS = "Correct the paths: they are relative to {}, or the end of one path below it."


def _contradictions(items: Sequence[Named], form: LabelForm, noun: str) -> Iterator[_Wrong]:
    """What is said of one item in one place and otherwise in another; classes that cannot be learnt."""
    once = f"Keep one line of each {noun}{', with all its labels' if form.several else ''}."
    for what, said, step in (
        ("split", ((item.path, item.split) for item in items), f"Keep each {noun} in one list only."),
        (
            FORMS[form.form].noun,
            ((item.path, item.labels) for item in items),
            f"{once} {SEVERAL}" if form.form == "index" else once,
        ),
    ):
        if several := _with_several(said):
            yield _Wrong(f"{counted(len(several), noun)} in more than one {what}: {first_few(several)}", step)
    if form.numbers:
        return
    learnt = {label for item in items if item.split == "train" for label in item.labels}
    if unlearnt := sorted({label for item in items for label in item.labels} - learnt):
        yield _Wrong(
            f"{counted(len(unlearnt), 'label')} not among those to train on: {first_few(unlearnt)}",
            f"Correct these labels, or add {noun}s with them to those to train on.",
        )
    if not form.several and len(learnt) < 2:
        yield _Wrong(
            f"{counted(len(learnt), 'label')} to train on, expected at least 2", f"Add {noun}s of another class."
        )


def _unlike_columns(read: Sequence[NamedItems]) -> Iterator[_Wrong]:
    """Lists that lack a class for which another has a column."""
    with_columns = [one for one in read if one.columns]
    for one in with_columns:
        for other in with_columns:
            if lacking := sorted(set(other.columns) - set(one.columns)):
                message = f"{one.place.name} has no column {first_few(lacking)}, which {other.place.name} has"
                yield _Wrong(message, f"Give {one.place.name} the columns of {other.place.name}.")
                return


def _with_several(said: Iterable[tuple[str, object]]) -> list[str]:
    """The items of which different things are said."""
    values: dict[str, set[object]] = defaultdict(set)
    for item, value in said:
        values[item].add(value)
    return sorted(item for item, found in values.items() if len(found) > 1)


def _notes(located: Sequence[_Located], items: Sequence[Named], noun: str) -> Iterator[str]:
    for one in located:
        yield from one.notes
        if one.missing:
            yield f"{one.message(noun)}; skipped"
    if twice := _named_twice(items):
        yield f"{counted(len(twice), noun)} named more than once: {first_few(twice)}"


def _file_problems(located: Sequence[_Located], items: Sequence[Named]) -> Iterator[FileProblem]:
    for one in located:
        for path in one.missing:
            yield FileProblem(path, "skipped: not found", one.of.place.name)
    for path in _named_twice(items):
        yield FileProblem(path, "named more than once")


def _named_twice(items: Sequence[Named]) -> list[str]:
    return sorted(path for path, count in Counter(item.path for item in items).items() if count > 1)
