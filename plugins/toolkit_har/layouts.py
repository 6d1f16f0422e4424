"""Which files there are and what they show: the Kaggle layout and class folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from toolkit.errors import DataError
from toolkit.images import IMAGE_SUFFIXES, Listing, has_files, list_class_folders
from toolkit_har.tables import read_table

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"})
KAGGLE_TABLE = "Training_set.csv"
KAGGLE_FOLDER = "train"
WHERE = (
    "Get the Human Action Recognition set from https://www.kaggle.com/datasets/meetnagadia/"
    "human-action-recognition-har-dataset and give the folder that holds train/ and Training_set.csv; or give a folder "
    "of <class>/<image or video>. Leave data.root out to use the built-in sample."
)


@dataclass(frozen=True)
class Found:
    """The labelled files below a root, whether they are videos, and what a user must know of them."""

    listing: Listing
    videos: bool
    notes: tuple[str, ...] = ()


def find_files(root: Path) -> Found:
    """Recognise the layout of `root` and list its files; DataError saying what was found when it has neither layout."""
    if not root.is_dir():
        raise DataError("is no folder" if root.exists() else "does not exist", path=root, next_step=WHERE)
    names = sorted(path.name for path in root.iterdir())
    if not names:
        raise DataError("is empty", path=root, next_step=WHERE)
    if KAGGLE_TABLE in names:
        return _kaggle(root)
    images, videos = has_files(root, IMAGE_SUFFIXES), has_files(root, VIDEO_SUFFIXES)
    if images and videos:
        raise DataError("holds both images and videos", path=root, next_step="Keep them in two folders; give one.")
    if not images and not videos:
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        raise DataError(
            f"has neither {KAGGLE_TABLE} nor class folders with files, only {shown}", path=root, next_step=WHERE
        )
    return _class_folders(root, videos=videos)


def _class_folders(root: Path, *, videos: bool) -> Found:
    kind, suffixes = ("video", VIDEO_SUFFIXES) if videos else ("image", IMAGE_SUFFIXES)
    listing = list_class_folders(root, suffixes, kind=kind)
    if len(listing.classes) < 2:
        raise DataError(
            f"has one class folder only, {listing.classes[0]}",
            path=root,
            next_step=f"Give the folder that holds the class folders, or put {KAGGLE_TABLE} beside {KAGGLE_FOLDER}/.",
        )
    return Found(listing, videos)


def _kaggle(root: Path) -> Found:
    table, folder = root / KAGGLE_TABLE, root / KAGGLE_FOLDER
    if not folder.is_dir():
        raise DataError(f"there is no folder {KAGGLE_FOLDER} beside {KAGGLE_TABLE}", path=root, next_step=WHERE)
    labels, notes = _labels(table)
    present = {path.name for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES}
    missing = [name for name in labels if name not in present]
    if missing:
        raise DataError(
            f"{some(len(missing), 'file')} named in it {'is' if len(missing) == 1 else 'are'} not in {KAGGLE_FOLDER}/: "
            f"{first_few(missing)}",
            path=table,
            next_step="Unpack the archive again, or remove these lines.",
        )
    unlabelled = sorted(present - labels.keys())
    if unlabelled:
        notes.append(f"{some(len(unlabelled), 'image')} without a label left out: {first_few(unlabelled)}")
    return Found(_listing(root, labels), videos=False, notes=tuple(notes))


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


def some(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def first_few(names: Sequence[str], limit: int = 3) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
