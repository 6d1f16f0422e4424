"""Which files there are and what they show, as their places tell: the Kaggle layout and class folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PureWindowsPath

from toolkit.clips import VIDEO_SUFFIXES
from toolkit.errors import DataError
from toolkit.images import IMAGE_SUFFIXES, Listing, has_files, list_class_folders
from toolkit_har.division import Given
from toolkit_har.tables import read_table
from toolkit_har.wording import first_few, some

KAGGLE_TABLE = "Training_set.csv"
KAGGLE_FOLDER = "train"
WHERE = (
    "Get the Human Action Recognition set from https://www.kaggle.com/datasets/meetnagadia/"
    "human-action-recognition-har-dataset and give the folder that holds train/ and Training_set.csv; or give a folder "
    "of <class>/<image or video>. Leave data.root out to use the built-in sample."
)
_SPLIT_FOLDERS = frozenset({"train", "training", "valid", "val", "validation", "test", "testing"})
VIDEO_SETS = (
    "Arrange videos as <class>/<video>, or set data.train to a list of them. UCF101 is at "
    "https://www.crcv.ucf.edu/data/UCF101.php, KTH at https://www.csc.kth.se/cvap/actions/."
)


@dataclass(frozen=True)
class Found:
    """The labelled files below a root, whether they are videos or images, and what a user must know of them."""

    listing: Listing
    videos: bool
    notes: tuple[str, ...] = ()
    given: Given | None = None
    """The splits that lists give; None where there are no lists."""


def check_root(root: Path, where: str = WHERE) -> None:
    """Raise DataError unless `root` is a folder with something in it; `where` says where data can be had."""
    if not root.is_dir():
        raise DataError("is no folder" if root.exists() else "does not exist", path=root, next_step=where)
    if not any(root.iterdir()):
        raise DataError("is empty", path=root, next_step=where)


def find_files(root: Path) -> Found:
    """Recognise the layout of `root` and list its files; DataError saying what was found when it has neither layout."""
    names = sorted(path.name for path in root.iterdir())
    if KAGGLE_TABLE in names:
        return _kaggle(root)
    images, videos = has_files(root, IMAGE_SUFFIXES), has_files(root, VIDEO_SUFFIXES)
    if images and videos:
        raise DataError("holds both images and videos", path=root, next_step="Keep them in two folders; give one.")
    if not images and not videos:
        raise DataError(
            f"has neither {KAGGLE_TABLE} nor class folders with files, only {first_few(names, 5)}",
            path=root,
            next_step=WHERE,
        )
    return class_folders(root, videos=videos)


def class_folders(root: Path, *, videos: bool) -> Found:
    """The files of `<root>/<class>/**`; DataError when there are no two class folders, or one has no such file."""
    kind, suffixes = ("video", VIDEO_SUFFIXES) if videos else ("image", IMAGE_SUFFIXES)
    listing = list_class_folders(root, suffixes, kind=kind)
    if len(listing.classes) > 1 and all(name.lower() in _SPLIT_FOLDERS for name in listing.classes):
        raise _splits_for_classes(root, listing.classes, videos=videos)
    if len(listing.classes) < 2:
        raise DataError(
            f"has one class folder only, {listing.classes[0]}",
            path=root,
            next_step="Give the folder that holds the class folders"
            + ("." if videos else f", or put {KAGGLE_TABLE} beside {KAGGLE_FOLDER}/."),
        )
    return Found(listing, videos)


def _splits_for_classes(root: Path, names: Sequence[str], *, videos: bool) -> DataError:
    train = next((name for name in names if name.lower().startswith("train")), names[0])
    other = "set data.train, data.valid and data.test to lists" if videos else f"put {KAGGLE_TABLE} beside them"
    return DataError(
        f"has splits in place of class folders: {', '.join(names)}",
        path=root,
        next_step=f"Give one of them, which is divided anew: --set data.root={root / train}; or {other}.",
    )


def _kaggle(root: Path) -> Found:
    table, folder = root / KAGGLE_TABLE, root / KAGGLE_FOLDER
    if not folder.is_dir():
        raise DataError(f"there is no folder {KAGGLE_FOLDER} beside {KAGGLE_TABLE}", path=root, next_step=WHERE)
    labels, notes = _labels(table)
    files = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    _check_files(table, labels, files)
    unlabelled = sorted(name for name in files - labels.keys() if _is_image(name))
    if unlabelled:
        notes.append(f"{some(len(unlabelled), 'image')} without a label left out: {first_few(unlabelled)}")
    return Found(_listing(root, labels), videos=False, notes=tuple(notes))


def _check_files(table: Path, labels: Mapping[str, str], files: Collection[str]) -> None:
    missing = [name for name in labels if name not in files]
    foreign = [name for name in labels if name in files and not _is_image(name)]
    for names, what, next_step in (
        (missing, f"not in {KAGGLE_FOLDER}/", "Unpack the archive again, or remove these lines."),
        (foreign, "no JPEG, PNG or WebP", "Convert them, or remove these lines."),
    ):
        if names:
            verb = "is" if len(names) == 1 else "are"
            message = f"{some(len(names), 'file')} named in it {verb} {what}: {first_few(names)}"
            raise DataError(message, path=table, next_step=next_step)


def _is_image(name: str) -> bool:
    return PurePath(name).suffix.lower() in IMAGE_SUFFIXES


def _labels(table: Path) -> tuple[dict[str, str], list[str]]:
    labels: dict[str, str] = {}
    repeated: Counter[str] = Counter()
    for line, (written, label) in read_table(table, ("filename", "label")):
        name = PureWindowsPath(written).name
        if labels.setdefault(name, label) != label:
            raise DataError(
                f"line {line}: {name} is labelled {label}, earlier {labels[name]}",
                path=table,
                next_step="Keep the line with the right label.",
            )
        repeated[name] += 1
    if not labels:
        raise DataError("has no rows", path=table, next_step=WHERE)
    if len(named := set(labels.values())) < 2:
        raise DataError(f"has one label only, {', '.join(named)}", path=table, next_step="Add lines of another label.")
    twice = sorted(name for name, count in repeated.items() if count > 1)
    return labels, [
        f"{some(len(twice), 'file')} named more than once in {table.name}: {first_few(twice)}"
    ] if twice else []


def _listing(root: Path, labels: Mapping[str, str]) -> Listing:
    classes = tuple(sorted(set(labels.values())))
    numbers = {label: number for number, label in enumerate(classes)}
    names = sorted(labels)
    ids = tuple(f"{KAGGLE_FOLDER}/{name}" for name in names)
    return Listing(root, ids, tuple(numbers[labels[name]] for name in names), classes)
