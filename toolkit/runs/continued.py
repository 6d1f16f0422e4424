"""A run goes on from its checkpoint, under its own recipe and on its own data alone."""

from __future__ import annotations

import os
from collections.abc import Sequence

from toolkit.api.errors import CheckpointError
from toolkit.build.assemble import Assembly, assemble
from toolkit.build.featuring import training_of_run
from toolkit.build.kept import Kept
from toolkit.build.plan import Plan
from toolkit.recipe.tables import Recipe
from toolkit.recipe.write import digest
from toolkit.runs.directory import RunDirectory
from toolkit.runs.loop import Prepared
from toolkit.system.ranks import ALONE, Ranks
from toolkit.training.checkpoint import LastCheckpoint


def last_checkpoint(directory: RunDirectory) -> LastCheckpoint | None:
    return LastCheckpoint.load(directory.last) if os.path.lexists(directory.last) else None


def reopened(
    directory: RunDirectory, planned: Plan, saved: LastCheckpoint | None, kept: Kept, ranks: Ranks = ALONE
) -> Prepared:
    """The run in `directory`. Raises CheckpointError where it was trained by another recipe or on other data."""
    if saved is None:
        assembly = assemble(planned, kept, ranks=ranks)
    else:
        require_same_recipe(directory, saved, planned.resolved)
        assembly = assembled_again(directory, planned, saved, kept, ranks)
    return Prepared(directory, assembly, *training_of_run(assembly), saved)


def assembled_again(
    directory: RunDirectory,
    planned: Plan,
    saved: LastCheckpoint,
    kept: Kept,
    ranks: Ranks = ALONE,
    *,
    notes: Sequence[str] = (),
) -> Assembly:
    """What the checkpoint was trained with. Training goes on in the precision that it began in, which another device
    would not choose. `notes` are added to those of the model."""
    known = [*saved.origin.notes, *notes]
    assembly = assemble(planned, kept, ranks=ranks, notes=known, precision=saved.origin.precision)
    _require_same_data(directory, saved, assembly)
    return assembly


def require_same_recipe(directory: RunDirectory, saved: LastCheckpoint, recipe: Recipe) -> None:
    if saved.origin.digest != digest(recipe):
        raise CheckpointError(
            f"{directory.last}: belongs to another recipe than {directory.recipe} with these overrides",
            next_step=f"resume without overrides: {directory.resume_command}",
        )


def _require_same_data(directory: RunDirectory, saved: LastCheckpoint, assembly: Assembly) -> None:
    now = assembly.origin()
    changed = [key for key in ("classes", "sample", "protocol") if getattr(saved.origin, key) != getattr(now, key)]
    if changed:
        raise CheckpointError(
            f"{directory.last}: was trained on other data: its {' and '.join(changed)} differ from what is found now",
            next_step=f"name the folder of the run's own data: {directory.resume_command} --set data.root=FOLDER",
        )
