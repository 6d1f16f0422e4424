"""A run that is exported once and kept in its own directory, for the commands that use a bundle.

Finding a bundle that is there imports no torch.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.api.errors import RunFailed
from toolkit.api.files import exclusive
from toolkit.export.kept import digest_of, is_whole, place_of
from toolkit.runs.directory import RunDirectory, existing, explained
from toolkit.serving.bundle import MANIFEST
from toolkit.system.notices import note

if TYPE_CHECKING:
    from rich.console import Console


def run_at(path: Path) -> RunDirectory | None:
    """The run whose directory, or whose best checkpoint, `path` is; None where it is neither."""
    directory = RunDirectory(path.parent if path.is_file() and path == RunDirectory(path.parent).best else path)
    return directory if directory.recipe.is_file() and not (directory.path / MANIFEST).is_file() else None


def bundle_of(run: RunDirectory, overrides: Sequence[str], console: Console) -> Path:
    """The kept bundle of this run's best checkpoint, exported now unless one fits the checkpoint, the recipe
    and `overrides`. Processes that ask at the same time export it once.

    Raises what `export_run` raises, and then keeps nothing.
    """
    if not run.best.is_file():
        _refuse_untrained(run)
    place = place_of(run, overrides)
    if is_whole(place):
        return place
    with _alone(run, console):
        if not is_whole(place):
            note(f"exporting the run once; later calls reuse {place}", console)
            _export(run, overrides, place, console)
            _remove_stale(run, place)
    return place


@contextmanager
def _alone(run: RunDirectory, console: Console) -> Iterator[None]:
    def waiting() -> None:
        note(f"another process is exporting {run.path}; waiting for it", console)

    elsewhere = f"python -m toolkit export {shlex.quote(str(run.path))} --exports DIR"
    with explained(run.path, next_step=f"export it to another folder: {elsewhere}"):
        run.bundles.mkdir(exist_ok=True)
        (run.bundles / ".lock").touch()
    with exclusive(run.bundles / ".lock", waiting=waiting):
        yield


def _export(run: RunDirectory, overrides: Sequence[str], place: Path, console: Console) -> None:
    from toolkit.export.write import write_bundle
    from toolkit.runs.reopen import open_answering

    trained = open_answering(run.path, overrides)
    write_bundle(trained, place, overrides, name=run.recipe_name, console=console, say=lambda _: None)
    if not place.name.startswith(digest_of(run)):  # training went on meanwhile
        shutil.rmtree(place)
        raise RunFailed(f"{run.best}: changed during the export", next_step="run the same command again")


def _remove_stale(run: RunDirectory, place: Path) -> None:
    """Bundles of other checkpoints are of no more use."""
    checkpoint = place.name.partition("-")[0]
    for folder in run.bundles.iterdir():
        if folder.is_dir() and not folder.name.startswith((".", checkpoint)):
            shutil.rmtree(folder, ignore_errors=True)


def _refuse_untrained(run: RunDirectory) -> None:
    from toolkit.runs.reopen import open_trained

    existing(run.path)
    open_trained(run.path, ())
    raise AssertionError("a run without a checkpoint cannot be opened")
