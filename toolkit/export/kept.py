"""The bundles that a run keeps in its own directory: where one lies, and whether it is whole. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from toolkit import __version__
from toolkit.api.errors import BundleError
from toolkit.runs.directory import RunDirectory
from toolkit.serving.bundle import read_manifest
from toolkit.serving.bundle.integrity import verify_files
from toolkit.serving.bundle.manifest import SCHEMA
from toolkit.system.notices import warn

DIGITS = 8
"""Hexadecimal digits of each digest in the name of a kept bundle."""


def place_of(run: RunDirectory, overrides: Sequence[str]) -> Path:
    """The folder of the bundle of this checkpoint, this recipe and these overrides, by this version of the toolkit."""
    settings = [run.recipe.read_bytes().hex(), list(overrides), SCHEMA, __version__]
    asked = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
    return run.bundles / f"{digest_of(run)}-{asked[:DIGITS]}"


def digest_of(run: RunDirectory) -> str:
    """The first digits of the best checkpoint's SHA-256."""
    with run.best.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]


def is_whole(place: Path) -> bool:
    """Whether a bundle lies there whose files are those of its manifest. Warns of one that is damaged."""
    if not place.is_dir():
        return False
    try:
        manifest = read_manifest(place)
        for precision in manifest.models:
            verify_files(manifest, place, precision=precision)
    except BundleError as error:
        warn(f"{error.message}; exporting again")
        return False
    return True
