"""Which files there are and what they show: the Kaggle layout, or folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

from toolkit.api.answers import SEPARATOR
from toolkit.api.errors import DataError, counted, first_few, setting
from toolkit.api.files import files_below
from toolkit.data.folders import Found, Listing, find_class_folders, folder_below, folders, folders_with, passed_over
from toolkit.data.kinds import is_image, is_video, listed_kind
from toolkit.data.labels import SEVERAL, LabelForm, number_labels
from toolkit.data.lists import needs_list
from toolkit.data.names import Files, Match, lenient_notes

KAGGLE_TABLE = "Training_set.csv"
KAGGLE_FOLDER = "train"
WHERE = (
    "--set data.root=FOLDER with a folder of <class>/<image or video>, of whatever they show; or with train/ and "
    "Training_set.csv of https://www.kaggle.com/datasets/meetnagadia/human-action-recognition-har-dataset. "
    "Without data.root the recipe trains on the built-in sample."
)


def find_files(root: Path, form: LabelForm) -> Found:
    """Recognise the layout of `root` and list its files; DataError saying what was found when it has neither layout."""
    if (table := _table_of(root)) is not None:
        return _kaggle(root, table, form)
    if (inner := folder_below(root, lambda folder: _table_of(folder) is not None)) is not None:
        raise DataError(
            f"has no {KAGGLE_TABLE}, but {inner.relative_to(root)}/ in it has",
            path=root,
            next_step=setting("data.root", inner),
        )
    if form.several:
        raise needs_list(root, form)
    images, videos = folders_with(root, lambda path: listed_kind(path) == "image"), folders_with(root, is_video)
    if images and videos:
        raise DataError("holds both images and videos", path=root, next_step="Keep them in two folders; give one.")
    if not images and not videos:
        names = sorted(path.name for path in root.iterdir())
        raise DataError(
            f"has neither {KAGGLE_TABLE} nor class folders with files, only {first_few(names, 5)}",
            path=root,
            next_step=WHERE,
        )
    if KAGGLE_FOLDER in images and not folders(root / KAGGLE_FOLDER):
        raise DataError(
            f"has no {KAGGLE_TABLE} with labels of the images in {KAGGLE_FOLDER}/", path=root, next_step=WHERE
        )
    return find_class_folders(root, videos=bool(videos))


def _table_of(root: Path) -> Path | None:
    """The table of labels in the Kaggle layout, whatever the case of its name."""
    return next((path for path in sorted(root.iterdir()) if path.name.lower() == KAGGLE_TABLE.lower()), None)


def _kaggle(root: Path, table: Path, form: LabelForm) -> Found:
    folder = next((root / name for name in folders(root) if name.lower() == KAGGLE_FOLDER), None)
    if folder is None:
        raise DataError(f"folder {KAGGLE_FOLDER} not found next to {table.name}", path=root, next_step=WHERE)
    files = sorted(files_below(folder, None))
    labels, columns, notes = _labels(table, form, Files(folder, files, lambda name: is_image(folder / name)))
    foreign = [name for name in labels if not is_image(folder / name)]
    if foreign:
        what = "is not an image" if len(foreign) == 1 else "are not images"
        message = f"{counted(len(foreign), 'file')} named in it {what}: {first_few(foreign)}"
        raise DataError(message, path=table, next_step="Convert them, or remove these lines.")
    unlabelled = [name for name in files if name not in labels and is_image(folder / name)]
    if unlabelled:
        notes.append(f"skipped {counted(len(unlabelled), 'image')} without a label: {first_few(unlabelled)}")
    names = sorted(labels)
    classes, targets = number_labels([labels[name] for name in names], form, columns)
    listing = Listing(root, tuple(f"{folder.name}/{name}" for name in names), targets, classes, form.form)
    return Found(listing, videos=False, notes=(*notes, *passed_over(folder)))


def _labels(
    table: Path, form: LabelForm, files: Files
) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...], list[str]]:
    """The labels of each image by its path in the folder, the classes that have a column of their own, and notes."""
    labels: dict[str, tuple[str, ...]] = {}
    repeated: Counter[str] = Counter()
    missing, matched = list[str](), list[tuple[str, Match]]()
    read = form.read(table, ("filename",))
    for row in read.rows:
        written = PureWindowsPath(row.item).name
        match = files.find(written)
        if match is None:
            missing.append(written)
            continue
        matched.append((written, match))
        name = match.item
        if labels.setdefault(name, row.labels) != row.labels:
            this, earlier = (SEPARATOR.join(found) or "nothing" for found in (row.labels, labels[name]))
            raise DataError(
                f"line {row.line}: {name} is labelled {this}, earlier {earlier}",
                path=table,
                next_step=f"Keep the line with the right label. {'' if form.several else SEVERAL}".rstrip(),
            )
        repeated[name] += 1
    if not read.rows:
        raise DataError("has no rows", path=table, next_step=WHERE)
    if missing:
        raise _missing(table, missing, files)
    if not form.several and len(named := set(labels.values())) < 2:
        raise DataError(f"has only one label, {named.pop()[0]}", path=table, next_step="Add lines of another label.")
    twice = sorted(name for name, count in repeated.items() if count > 1)
    notes = [f"{counted(len(twice), 'file')} named more than once in {table.name}: {first_few(twice)}"] if twice else []
    return labels, read.columns, [*notes, *lenient_notes(table.name, matched)]


def _missing(table: Path, names: Sequence[str], files: Files) -> DataError:
    verb = "is" if len(names) == 1 else "are"
    held = f"it holds {first_few(files.items)}" if files.items else "it holds no file"
    message = f"{counted(len(names), 'file')} named in it {verb} not in {KAGGLE_FOLDER}/: {first_few(names)}; {held}"
    return DataError(message, path=table, next_step="Unpack the archive again, or remove these lines.")
