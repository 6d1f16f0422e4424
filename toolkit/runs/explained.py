"""Maps added to a run that has ended."""

from __future__ import annotations

import shlex
from pathlib import Path

from toolkit.api.errors import DataError, UsageError
from toolkit.runs.directory import RunDirectory, existing
from toolkit.runs.embedding import draw_embedding
from toolkit.runs.files import read_run
from toolkit.runs.reopen import open_trained
from toolkit.runs.sheets import draw_examples
from toolkit.system import device as devices


@devices.enough_memory()
def add_maps(path: Path) -> RunDirectory:
    """Draw the items of a run's report again, with maps of where its answers come from, and note in facts.json how they
    are made; and a map of the items of the split. Raises UsageError if the run has no scored items, DataError if the
    data lacks one of them, and the errors of `open_trained`."""
    found = read_run(existing(path).path)
    directory, rows = found.directory, found.rows
    if not rows:
        raise UsageError(
            f"{directory.path}: no answer to explain: the run has no {directory.predictions.name}",
            next_step=f"python -m toolkit evaluate {shlex.quote(str(path))}"
            if directory.best.exists()
            else directory.resume_command,
        )
    assembly = open_trained(path, ()).assembly
    shown = assembly.loaders()[found.split]
    places = {name: place for place, name in enumerate(shown.store.split.ids)}
    if gone := [row.id for row in rows if row.id not in places]:
        raise DataError(
            f"{directory.predictions}: the {found.split} split no longer has {gone[0]}",
            next_step=f"evaluate the run on the data as it is: python -m toolkit evaluate {shlex.quote(str(path))}",
        )
    with directory.explained():
        where = [places[row.id] for row in rows]
        drawn = draw_examples(directory, assembly, shown, rows, where)
        draw_embedding(directory, assembly, shown, [row.id for row in rows], where)
    directory.write_json(directory.facts, {**found.facts, **drawn})
    return directory
