"""Images without labels, which a task that needs none is pretrained on."""

from __future__ import annotations

from pathlib import Path

from toolkit.api.contracts import Data, DataSpec, FileProblem
from toolkit.api.errors import DataError, counted, first_few
from toolkit.api.files import files_below
from toolkit.data.folders import passed_over
from toolkit.data.images import ImageFiles
from toolkit.data.kinds import IMAGES, items_below, wanted
from toolkit.data.labelled import SIZE, STORED
from toolkit.data.splits import contents, split_hash

CLASS = "unlabelled"
"""The one class that stands for no label."""


def unlabelled_images(root: Path) -> Data:
    """All images below `root`, in folders of any depth, as items to train on. Without labels there is nothing to score,
    so there is neither a validation nor a test split. Raises DataError where there is no image."""
    ids = sorted(items_below(root, wanted(videos=False)))
    if not ids:
        raise DataError("holds no image", path=root, next_step=f"Put image files ({IMAGES}) there.")
    others = sorted(set(files_below(root, None)).difference(ids))
    notes = []
    if others:
        are = "that are not images" if len(others) > 1 else "that is not an image"
        notes.append(f"skipped {counted(len(others), 'file')} {are}: {first_few(others)}")
    known = contents(paths := [root / item for item in ids])
    if known.identical:
        notes.append(f"{counted(len(known.identical), 'set')} of byte-identical files")
    images = ImageFiles(tuple(ids), (0,) * len(ids), known.keys, tuple(paths))
    return Data(
        DataSpec((CLASS,), size=SIZE, stored=STORED, labelled=False),
        train=images,
        valid=(none := images.select(())),
        test=none,
        protocol={"split": "all images are trained on", "split_hash": split_hash({"train": ids})},
        notes=(*notes, *passed_over(root)),
        files=tuple(FileProblem(item, "skipped: not an image") for item in others),
    )
