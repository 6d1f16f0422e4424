"""Which files there are and what they show, by their folders: classes, or splits that hold classes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from toolkit.api.contracts import FileProblem, TargetForm, Targets
from toolkit.api.errors import DataError, counted, first_few, setting, unknown_name
from toolkit.api.files import files_below, is_folder, is_junk
from toolkit.data.division import Given
from toolkit.data.kinds import IMAGES, VIDEOS, items_below, wanted
from toolkit.data.names import normal

_NAMES = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation"),
    "test": ("test", "testing"),
}
"""What the folder of a split may be called, in any case."""
_ENTERED = 20
"""Folders of a folder that are looked into for data that lies deeper."""


_OUTSIDE = "skipped: outside the class folders"
_NO_IMAGE = "skipped: not an image"
_NO_VIDEO = "skipped: not a video"
_REASONS = {
    _OUTSIDE: ("outside the class folders", "outside the class folders"),
    _NO_IMAGE: ("that is not an image", "that are not images"),
    _NO_VIDEO: ("that is not a video", "that are not videos"),
}
"""Why a file is skipped, with what a note says of one such file and of several."""


@dataclass(frozen=True)
class Listing:
    """N labelled files below `root`; ids are their paths relative to it, with forward slashes."""

    root: Path
    ids: tuple[str, ...]
    targets: Targets
    classes: tuple[str, ...]
    form: TargetForm = "index"

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(self.root / item for item in self.ids)


@dataclass(frozen=True)
class Found:
    """The labelled files below a root, whether they are videos or images, and what a user must know of them."""

    listing: Listing
    videos: bool
    notes: tuple[str, ...] = ()
    given: Given | None = None
    """The splits that lists or folders give; None where neither does."""
    files: tuple[FileProblem, ...] = ()
    """Every file that the notes are about."""


def check_root(root: Path, where: str) -> None:
    """Raise DataError unless `root` is a folder with something in it; `where` says where data can be had."""
    _check_folder(root, where)
    if not any(root.iterdir()):
        raise DataError("is empty", path=root, next_step=where)


def _check_folder(root: Path, where: str) -> None:
    """Raise DataError unless `root` is a folder, with the folder next to it that is called nearly so."""
    if not root.exists():
        near = [path.name for path in root.parent.iterdir() if path.is_dir()] if root.parent.is_dir() else []
        raise DataError(unknown_name("does not exist", root.name, near), path=root, next_step=where)
    if not root.is_dir():
        raise DataError("is not a folder", path=root, next_step=where)


def find_class_folders(root: Path, *, videos: bool) -> Found:
    """The files of `<root>/<class>/**`, or of `<root>/<split>/<class>/**` where all folders that hold files are called
    as splits are. DataError where `root` is not a folder, there are no two class folders, or one has no such file."""
    holding = folders_with(root, wanted(videos=videos)) if root.is_dir() else []
    if holding and all(map(split_called, holding)):
        return _split_folders(root, videos=videos)
    listing = list_class_folders(root, videos=videos)
    _check_classes(root, listing, videos=videos)
    skipped = _skipped(listing, videos=videos)
    notes = (*_called_as_splits(listing), *_notes(skipped), *passed_over(root))
    return Found(listing, videos, notes, files=skipped)


def list_class_folders(root: Path, *, videos: bool = False) -> Listing:
    """The images, or the videos, of `<root>/<class>/**`, by `toolkit.data.kinds`; classes in order of name, in
    Unicode's normal form C.

    Hidden files and folders are passed over. Raises DataError when there is no such folder, it has no class folders, or
    a class has no such file.
    """
    _check_folder(root, _layout(root, videos=videos))
    names = folders(root)
    if not names:
        next_step = _layout(root, videos=videos)
        raise DataError(f"no class folders found, only {_summary(root)}", path=root, next_step=next_step)
    ids: list[str] = []
    targets: list[int] = []
    classes = sorted({*map(normal, names)})  # two folders may have one name in two forms of Unicode
    numbers = {name: number for number, name in enumerate(classes)}
    for name in names:
        found = sorted(f"{name}/{item}" for item in items_below(root / name, wanted(videos=videos)))
        if not found:
            raise DataError(
                f"the class folder has no {_noun(videos)} file, only {_summary(root / name)}",
                path=root / name,
                next_step=f"Put {_noun(videos)} files ({VIDEOS if videos else IMAGES}) there, or remove the folder.",
            )
        ids += found
        targets += [numbers[normal(name)]] * len(found)
    return Listing(root, tuple(ids), tuple(targets), tuple(classes))


def folders_with(root: Path, is_item: Callable[[str], bool]) -> list[str]:
    """The folders of `root` that hold a file for whose path `is_item` is true, in order of name."""
    return [name for name in folders(root) if any(True for _ in items_below(root / name, is_item))]


def folders(root: Path) -> list[str]:
    """The names of the folders of `root`, in order, without hidden ones and what systems add."""
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if is_folder(entry) and not is_junk(entry.name))


def folder_below(root: Path, holds: Callable[[Path], bool]) -> Path | None:
    """The nearest folder below `root`, two levels down at most, of which `holds` is true: archives are often unpacked
    into a folder of their own."""
    level = [root]
    for _ in range(2):
        level = [folder / name for folder in level for name in folders(folder)[:_ENTERED]]
        if found := next(filter(holds, level), None):
            return found
    return None


def split_called(folder: str) -> str | None:
    """The split that a folder of this name holds."""
    return next((split for split, names in _NAMES.items() if folder.lower() in names), None)


def _called_as_splits(listing: Listing) -> Iterator[str]:
    """Whether classes look like splits: they are called so, and hold folders."""
    splits = [name for name in listing.classes if split_called(name) and folders(listing.root / name)]
    if splits:
        others = [name for name in listing.classes if not split_called(name)]
        yield (
            f"folders named like splits are used as classes: {first_few(splits)}; if they are splits, move the other "
            f"folders away: {first_few(others)}"
        )


def _split_folders(root: Path, *, videos: bool) -> Found:
    names = _folders_of_splits(root)
    listed = {split: _listed(root / name, split, videos=videos) for split, name in names.items()}
    learnt = listed["train"].classes
    numbers = {name: number for number, name in enumerate(learnt)}
    _check_classes(root / names["train"], listed["train"], videos=videos)
    for split, listing in listed.items():
        if unlearnt := sorted(set(listing.classes) - set(learnt)):
            raise DataError(
                f"{counted(len(unlearnt), 'class folder')} not among those of {names['train']}: {first_few(unlearnt)}",
                path=root / names[split],
                next_step=f"Rename them as in {names['train']}, or move them away.",
            )
    rows = sorted(
        (f"{names[split]}/{item}", numbers[listing.classes[cast(int, target)]], split)
        for split, listing in listed.items()
        for item, target in zip(listing.ids, listing.targets, strict=True)
    )
    ids, targets, splits = zip(*rows, strict=True)
    others = sorted(set(folders(root)) - set(names.values()))
    without = f"without {_noun(videos)} files"
    notes = [f"skipped {counted(len(others), 'folder')} {without}: {first_few(others)}"] if others else []
    skipped = tuple(
        replace(problem, path=f"{names[split]}/{problem.path}")
        for split, listing in listed.items()
        for problem in _skipped(listing, videos=videos)
    )
    notes += [*_notes(skipped), *passed_over(root)]
    return Found(Listing(root, ids, targets, learnt), videos, tuple(notes), Given(splits, "folders"), skipped)


def _listed(folder: Path, split: str, *, videos: bool) -> Listing:
    try:
        return list_class_folders(folder, videos=videos)
    except DataError as error:
        if split != "train" and not folders(folder):
            error.next_step = f"{error.next_step} Or move the folder away: the split is then taken from train/."
        raise


def _folders_of_splits(root: Path) -> dict[str, str]:
    """The folder of each split that there is one for, train among them."""
    called = {split: [name for name in folders(root) if split_called(name) == split] for split in _NAMES}
    for split, names in called.items():
        if len(names) > 1:
            raise DataError(
                f"has several folders for {split}: {first_few(names)}", path=root, next_step="Keep one of them."
            )
    if not called["train"]:
        others = [name for names in called.values() for name in names]
        raise DataError(
            f"has no folder train, only {first_few(others)}",
            path=root,
            next_step="Give the folder that holds train/; or, if these are classes, rename their folders.",
        )
    return {split: name for split, names in called.items() for name in names}


def _skipped(listing: Listing, *, videos: bool) -> tuple[FileProblem, ...]:
    """The files in the class folders that are not items, and those next to the folders that would be."""
    is_item = wanted(videos=videos)
    others = sorted(set(files_below(listing.root, None)).difference(listing.ids))
    foreign = _NO_VIDEO if videos else _NO_IMAGE
    return tuple(
        FileProblem(item, foreign if "/" in item else _OUTSIDE)
        for item in others
        if "/" in item or is_item(listing.root / item)
    )


def _notes(skipped: Sequence[FileProblem]) -> Iterator[str]:
    for reason, words in _REASONS.items():
        if items := [problem.path for problem in skipped if problem.problem == reason]:
            yield f"skipped {counted(len(items), 'file')} {words[len(items) > 1]}: {first_few(items)}"


def passed_over(root: Path, *, below: bool = True) -> Iterator[str]:
    """Notes on what is hidden or added by systems in `root`, and in all folders `below` it, with the number of files in
    hidden folders."""
    found = [*_junk(root, below=below)]
    hidden, inside = (
        [path for path, is_folder in found if is_folder],
        [path for path, is_folder in found if not is_folder],
    )
    if hidden:
        files = sum(len(names) for folder in hidden for _, _, names in os.walk(root / folder))
        yield f"skipped {counted(len(hidden), 'hidden folder')} with {counted(files, 'file')}: {first_few(hidden)}"
    if inside:
        yield f"skipped {counted(len(inside), 'hidden file')}: {first_few(inside)}"


def _junk(root: Path, place: str = "", *, below: bool) -> Iterator[tuple[str, bool]]:
    """The path of each file and folder that `is_junk`, and whether it is a folder; links are not followed."""
    with os.scandir(root / place) as entries:
        for entry in sorted(entries, key=lambda one: one.name):
            is_folder = entry.is_dir(follow_symlinks=False)
            if is_junk(entry.name):
                yield f"{place}{entry.name}", is_folder
            elif is_folder and below:
                yield from _junk(root, f"{place}{entry.name}/", below=below)


def _check_classes(root: Path, listing: Listing, *, videos: bool) -> None:
    if len(listing.classes) > 1:
        return
    inner = folder_below(root, lambda folder: len(folders_with(folder, wanted(videos=videos))) > 1)
    if inner is not None:
        raise DataError(
            f"has only one class folder, {listing.classes[0]}, but {counted(len(folders(inner)), 'folder')} in {inner}",
            path=root,
            next_step=f"use the folder that holds the class folders: {setting('data.root', inner)}",
        )
    raise DataError(
        f"has only one class folder, {listing.classes[0]}",
        path=root,
        next_step="Give the folder that holds the class folders, or add one of another class.",
    )


def _summary(folder: Path) -> str:
    names = sorted(os.listdir(folder))  # noqa: PTH208 (names are all that is needed)
    return first_few(names) if names else "an empty folder"


def _layout(root: Path, *, videos: bool) -> str:
    return f"Arrange the {_noun(videos)} files as {root}/<class>/<file>."


def _noun(videos: bool) -> str:
    return "video" if videos else "image"
