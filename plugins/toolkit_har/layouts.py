"""Which files there are and what they show: the Kaggle layout, or folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path, PureWindowsPath

from toolkit.api.answers import SEPARATOR
from toolkit.api.errors import DataError, counted, first_few
from toolkit.data.folders import Found, Listing, find_class_folders, folders, folders_with
from toolkit.data.kinds import is_image, is_video, listed_kind
from toolkit.data.labels import SEVERAL, LabelForm, number_labels
from toolkit.data.lists import needs_list

KAGGLE_TABLE = "Training_set.csv"
KAGGLE_FOLDER = "train"
WHERE = (
    "--set data.root=FOLDER with a folder of <class>/<image or video>, of whatever they show; or with train/ and "
    "Training_set.csv of https://www.kaggle.com/datasets/meetnagadia/human-action-recognition-har-dataset. "
    "Without data.root the recipe trains on the built-in sample."
)


def find_files(root: Path, form: LabelForm) -> Found:
    """Recognise the layout of `root` and list its files; DataError saying what was found when it has neither layout."""
    names = sorted(path.name for path in root.iterdir())
    if KAGGLE_TABLE in names:
        return _kaggle(root, form)
    if form.several:
        raise needs_list(root, form)
    images, videos = folders_with(root, lambda path: listed_kind(path) == "image"), folders_with(root, is_video)
    if images and videos:
        raise DataError("holds both images and videos", path=root, next_step="Keep them in two folders; give one.")
    if not images and not videos:
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


def _kaggle(root: Path, form: LabelForm) -> Found:
    table, folder = root / KAGGLE_TABLE, root / KAGGLE_FOLDER
    if not folder.is_dir():
        raise DataError(f"folder {KAGGLE_FOLDER} not found next to {KAGGLE_TABLE}", path=root, next_step=WHERE)
    labels, columns, notes = _labels(table, form)
    files = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    _check_files(table, labels, files)
    unlabelled = sorted(name for name in files - labels.keys() if is_image(folder / name))
    if unlabelled:
        notes.append(f"skipped {counted(len(unlabelled), 'image')} without a label: {first_few(unlabelled)}")
    names = sorted(labels)
    classes, targets = number_labels([labels[name] for name in names], form, columns)
    listing = Listing(root, tuple(f"{KAGGLE_FOLDER}/{name}" for name in names), targets, classes, form.form)
    return Found(listing, videos=False, notes=tuple(notes))


def _check_files(table: Path, labels: Collection[str], files: Collection[str]) -> None:
    missing = [name for name in labels if name not in files]
    foreign = [name for name in labels if name in files and not is_image(table.parent / KAGGLE_FOLDER / name)]
    for names, what, next_step in (
        (missing, f"not in {KAGGLE_FOLDER}/", "Unpack the archive again, or remove these lines."),
        (foreign, "not an image" if len(foreign) == 1 else "not images", "Convert them, or remove these lines."),
    ):
        if names:
            verb = "is" if len(names) == 1 else "are"
            message = f"{counted(len(names), 'file')} named in it {verb} {what}: {first_few(names)}"
            raise DataError(message, path=table, next_step=next_step)


def _labels(table: Path, form: LabelForm) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...], list[str]]:
    """The labels of each image, the classes that have a column of their own, and notes."""
    labels: dict[str, tuple[str, ...]] = {}
    repeated: Counter[str] = Counter()
    read = form.read(table, ("filename",))
    for row in read.rows:
        name = PureWindowsPath(row.item).name
        if labels.setdefault(name, row.labels) != row.labels:
            this, earlier = (SEPARATOR.join(found) or "nothing" for found in (row.labels, labels[name]))
            raise DataError(
                f"line {row.line}: {name} is labelled {this}, earlier {earlier}",
                path=table,
                next_step=f"Keep the line with the right label. {'' if form.several else SEVERAL}".rstrip(),
            )
        repeated[name] += 1
    if not labels:
        raise DataError("has no rows", path=table, next_step=WHERE)
    if not form.several and len(named := set(labels.values())) < 2:
        raise DataError(f"has only one label, {named.pop()[0]}", path=table, next_step="Add lines of another label.")
    twice = sorted(name for name, count in repeated.items() if count > 1)
    notes = [f"{counted(len(twice), 'file')} named more than once in {table.name}: {first_few(twice)}"] if twice else []
    return labels, read.columns, notes
