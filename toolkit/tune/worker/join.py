"""Taking part in a study: the same for the process that is given the command and for those that it starts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from toolkit.host.registry import Registry
from toolkit.recipe.tables import Recipe
from toolkit.tune.checked import Checked
from toolkit.tune.folder import mark_of
from toolkit.tune.scoring import Scoring
from toolkit.tune.storage import opened_storage
from toolkit.tune.study import open_study
from toolkit.tune.worker.trial import Worker


@dataclass(frozen=True)
class Job:
    """Where a study lies."""

    runs: Path
    """The folder that holds the study's own, `runs/<recipe>`."""
    storage: str | None
    """The URL of the database that holds the study; None: a journal file in its folder."""
    again: str
    """The command that goes on with it."""


@contextmanager
def joined(
    job: Job, recipe: Recipe, source: str, found: Checked, registry: Registry, *, threads: int | None = None
) -> Iterator[Worker]:
    """A worker of the recipe's study, which is begun where there is none; the storage is closed after the block.
    `source` is the recipe's file, `threads` what a trial computes with on the CPU where its recipe does not say. Raises
    UsageError where the storage cannot be used or holds another study of this name."""
    folder = job.runs / recipe.name
    tune, space, aim, search = found
    with opened_storage(folder, job.storage) as storage:
        study = open_study(recipe, tune, space, aim, search, storage)
        scoring = Scoring(study, space, aim, tune, source, folder, threads, registry)
        yield Worker(scoring, search, job.again, mark_of(folder), shared=job.storage is not None)
