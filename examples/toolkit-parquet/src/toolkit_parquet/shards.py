"""Which Parquet files make up a dataset, and which split each belongs to, by their names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.api.errors import DataError

SUFFIX = ".parquet"
WORDS = {
    "train": ("train", "training"),
    "valid": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""What the Hugging Face Hub lets the name of a file or of its folder begin with, by split."""
WHERE = (
    "Give a folder of train-*.parquet, validation-*.parquet and test-*.parquet. To get one from the Hugging Face Hub: "
    "hf download OWNER/NAME --repo-type dataset --local-dir FOLDER"
)
_BEGINNING = re.compile(r"([a-z]+)(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Shard:
    """One file of a dataset."""

    path: Path
    name: str
    """Relative to the dataset's root, with forward slashes."""
    split: str | None
    """train, valid or test; None where no name says so."""


def find_shards(root: Path) -> list[Shard]:
    """The Parquet files at `root` (one of them, or a folder), in order of name; hidden ones are passed over.

    Raises DataError without any file, or with files of more than one dataset.
    """
    if root.is_file():
        return [Shard(root, root.name, None)]
    if not root.is_dir():
        raise DataError("does not exist", path=root, next_step=WHERE)
    paths = sorted(_below(root))
    if not paths:
        raise DataError(f"holds no {SUFFIX} file, only {_summary(root)}", path=root, next_step=WHERE)
    names = [path.relative_to(root) for path in paths]
    _check_one_dataset(root, names)
    return [Shard(root / name, name.as_posix(), _split(name)) for name in names]


def _below(root: Path) -> Iterator[Path]:
    for path in root.rglob(f"*{SUFFIX}"):
        if not any(part.startswith(".") for part in path.relative_to(root).parts):
            yield path


def _split(name: Path) -> str | None:
    return _told(name.stem) or _told(name.parent.name, whole=True)


def _told(name: str, *, whole: bool = False) -> str | None:
    found = _BEGINNING.match(name)
    if found is None or (whole and found.end() < len(name)):
        return None
    word = found[1].lower()
    return next((split for split, words in WORDS.items() if word in words), None)


def _check_one_dataset(root: Path, names: Sequence[Path]) -> None:
    """The Hub keeps each configuration of a dataset in a folder of its own."""
    folders = {name.parent.parent if _told(name.parent.name, whole=True) else name.parent for name in names}
    if len(folders) > 1:
        listed = sorted(folder.as_posix() for folder in folders)
        raise DataError(
            f"holds files of several datasets, in {', '.join(listed[:5])}",
            path=root,
            next_step=f"give one of these folders: --set data.root={root / listed[-1]}",
        )


def _summary(folder: Path) -> str:
    names = sorted(os.listdir(folder))
    return f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}" if names else "nothing"
