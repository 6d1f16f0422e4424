"""Folders that an export leaves for other programs: what may be replaced, what all of them hold, and that one whose
answers were not proved does not leave."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.api.errors import ParityError, UsageError
from toolkit.api.files import as_utf8, replaced_folder
from toolkit.runs.directory import FIX_AND_REPEAT, explained

if TYPE_CHECKING:
    from toolkit.export.gate import Verdict
    from toolkit.serving.bundle import Bundle, Manifest

LABELS = "labels.txt"
"""The classes, one a line, in the order of the output."""
ANOTHER_NAME = "give another name with --name NAME, or remove it"


def require_replaceable(place: Path, *, kind: str, mark: str, next_step: str = ANOTHER_NAME) -> None:
    """Raise UsageError unless `place` is free, empty, or a folder of this `kind`, which has a file called `mark`."""
    if place.exists() and not (place / mark).is_file() and not (place.is_dir() and not any(place.iterdir())):
        raise UsageError(f"{place}: exists and is not {kind} (it has no {mark})", next_step=next_step)


@contextmanager
def placed(place: Path) -> Iterator[Path]:
    """`replaced_folder`, but raises RunFailed when the file system refuses."""
    with explained(place, next_step=FIX_AND_REPEAT), replaced_folder(place) as folder:
        yield folder


def write_proved(
    place: Path, bundle: Path, runtime: str, write: Callable[[Path], Bundle], gate: Callable[[Bundle], Verdict]
) -> Path:
    """Let `write` fill a folder, which takes the place of `place` if `gate` finds that the bundle it returns answers as
    the trained model does. `bundle` is what the files were made of, and `runtime`, with its version, computes them.

    Raises ParityError where the answers differ, RunFailed when the file system refuses."""
    with placed(place) as folder:
        verdict = gate(write(folder))
        if verdict.problems:
            predict = f"python -m toolkit predict {shlex.quote(str(bundle))} INPUT"
            raise ParityError(
                f"{place}: not written: {runtime} answers otherwise than the trained model",
                details=verdict.findings(),
                next_step=f"use the bundle, which ONNX Runtime computes: {predict}",
            )
    return place


def write_labels(folder: Path, manifest: Manifest) -> None:
    """Write labels.txt. A name with line breaks stays on one line."""
    (folder / LABELS).write_bytes(as_utf8("".join(" ".join(name.split()) + "\n" for name in manifest.classes)))


def meaning(manifest: Manifest) -> dict[str, Any]:
    """What the numbers mean: classes, thresholds, fit, and the recipe that the weights were trained by."""
    return {
        "classes": list(manifest.classes),
        "thresholds": None if manifest.thresholds is None else list(manifest.thresholds),
        "fit": manifest.input.fit,
        "recipe_digest": manifest.digest,
    }
