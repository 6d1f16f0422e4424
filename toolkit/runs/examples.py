"""A command that can be typed as shown: `predict` on a file of the data that a run was scored on."""

from __future__ import annotations

import csv
import itertools
import shlex
import tomllib
from contextlib import suppress
from pathlib import Path

from toolkit.runs.directory import RunDirectory

LOOKED_AT = 20
"""Predictions whose files are looked for."""


def predict_command(model: Path, scored: RunDirectory) -> str:
    """The command that answers an input with the run or bundle `model`: a file of the data that `scored` has the
    predictions of, or the word INPUT where no such file is here, as for a built-in sample."""
    example = example_input(scored)
    return f"python -m toolkit predict {shlex.quote(str(model))} {'INPUT' if example is None else shlex.quote(example)}"


def example_input(scored: RunDirectory) -> str | None:
    """A file of the data that `scored` has the predictions of; None where no such file is here."""
    with suppress(OSError, ValueError, csv.Error):
        root = tomllib.loads(scored.recipe.read_text(encoding="utf-8"))["data"].get("root")
        with scored.predictions.open(encoding="utf-8", newline="") as file:
            ids = [row["id"] for row in itertools.islice(csv.DictReader(file), LOOKED_AT) if "id" in row]
        return next((str(path) for name in ids if root and (path := Path(root, name)).is_file()), None)
    return None
