"""The models of a server: bundles in use, each with its batches, replaced when their files are."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from toolkit.api.errors import BundleError, ToolkitError, UsageError, printable
from toolkit.serving.bundle import MANIFEST, Bundle
from toolkit.serving.bundle.providers import usual_batch
from toolkit.serving.predict.rows import Layout, layout_of
from toolkit.serving.server.batching import Batcher
from toolkit.serving.server.metrics import Metrics
from toolkit.serving.server.refusals import NOT_FOUND, Refused
from toolkit.serving.server.settings import Settings
from toolkit.system.machine import physical_cores
from toolkit.system.notices import note, warn

if TYPE_CHECKING:
    from numpy.typing import NDArray

VERSION = "1"
"""Of every model: a bundle that is replaced takes its place under the same version."""
Stamp: TypeAlias = tuple[int, int, int]
"""What changes when a file is replaced: its number, its time and its size."""


@dataclass(frozen=True)
class Opening:
    """How bundles are opened."""

    device: str = "auto"
    precision: str | None = None
    signed_by: Path | None = None
    """The public key whose owner must have signed them."""
    runtime: str = "onnxruntime"
    sessions: int = 1
    """How often each is opened: so many batches are computed at a time, each on its share of the cores."""

    def load(self, path: Path) -> Sequence[Bundle]:
        """The sessions of the bundle at `path`, which have answered once, so that no request waits for what is made at
        the first call. Raises BundleError and UsageError."""
        threads = max(physical_cores() // self.sessions, 1)
        bundles = [
            Bundle.load(
                path,
                device=self.device,
                precision=self.precision,
                signed_by=self.signed_by,
                runtime=self.runtime,
                threads=threads,
            )
            for _ in range(self.sessions)
        ]
        for bundle in bundles:
            bundle.session.run(np.zeros((1, *bundle.manifest.input.square_shape), np.uint8))
        return bundles


@dataclass(frozen=True)
class Served:
    """One bundle that answers requests."""

    bundle: Bundle
    batcher: Batcher
    stamp: Stamp

    @property
    def name(self) -> str:
        return self.bundle.manifest.name

    @cached_property
    def layout(self) -> Layout:
        """What checks answers of the model."""
        return layout_of(self.bundle.manifest, 1)

    async def ask(self, inputs: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """What the model puts out, `[N, C]`, for N inputs that fit it. Raises Refused where it is busy."""
        with self.batcher.admit(len(inputs)):
            return await self.batcher.ask(inputs)


class Models:
    """All models of a server, by name."""

    def __init__(self, settings: Settings, opening: Opening, metrics: Metrics, pool: Executor) -> None:
        self._settings, self._opening, self._metrics, self._pool = settings, opening, metrics, pool
        self._served: dict[str, Served] = {}
        self._refused: dict[Path, Stamp] = {}
        """Bundles that replaced others and cannot be used."""
        self._retired: set[asyncio.Task[None]] = set()

    def __iter__(self) -> Iterator[Served]:
        return iter(self._served.values())

    def __getitem__(self, name: str) -> Served:
        """Raises Refused for a name that no model has."""
        if name not in self._served:
            raise Refused(NOT_FOUND, f'no model is called "{printable(name)}"; there are {", ".join(self._served)}')
        return self._served[name]

    def versioned(self, name: str, version: str | None) -> Served:
        """The model of this name. Raises Refused for another version than the one that there is."""
        served = self[name]
        if version not in (None, "", VERSION):
            raise Refused(NOT_FOUND, f'{name}: has no version "{printable(version or "")}", only {VERSION}')
        return served

    def load(self, paths: Sequence[Path]) -> None:
        """Open all bundles. Raises BundleError and UsageError, also for two of one name."""
        for path in paths:
            stamp = stamp_or_none(path)  # before it is read: what replaces it meanwhile is then seen
            bundles = self._opening.load(path)
            name = bundles[0].manifest.name
            if name in self._served:
                raise UsageError(
                    f'{path}: is called "{name}" as {self._served[name].bundle.path} is',
                    next_step="export one of them under another name with: --name NAME",
                )
            self._served[name] = self._batched(bundles, stamp)

    async def refresh(self) -> list[str]:
        """Open the bundles whose files were replaced; their names. One that cannot be used is reported once, and the
        model goes on answering as before. What was asked before is answered by the old bundle."""
        changed: list[str] = []
        for name, served in [*self._served.items()]:
            path = served.bundle.path
            try:
                stamp = stamp_of(path)
                if stamp in (served.stamp, self._refused.get(path)):
                    continue
                bundles = await asyncio.get_running_loop().run_in_executor(self._pool, self._opening.load, path)
                found = bundles[0].manifest
                if found.name != name:
                    raise BundleError(f'{path}: is called "{found.name}", expected "{name}"')
            except FileNotFoundError:  # it is being replaced, or was removed and goes on in memory
                continue
            except (ToolkitError, OSError) as error:
                self._refused[path] = stamp_or_none(path)
                warn(f"{name}: goes on with the bundle of {served.bundle.manifest.created}: {error}")
                continue
            self._served[name] = self._batched(bundles, stamp)
            task = asyncio.create_task(served.batcher.close())
            self._retired.add(task)
            task.add_done_callback(self._retired.discard)
            self._metrics.reloads.labels(name).inc()
            note(f"{name}: reloaded, exported {found.created}")
            changed.append(name)
        return changed

    async def close(self) -> None:
        """Return once all that was asked is answered."""
        await asyncio.gather(*self._retired, *(served.batcher.close() for served in self))

    def _batched(self, bundles: Sequence[Bundle], stamp: Stamp) -> Served:
        bundle = bundles[0]
        served = Served(
            bundle,
            Batcher(
                [one.session.run for one in bundles],
                self._settings.batch or usual_batch(bundle.device, bundle.manifest.input.frames),
                self._settings.delay,
                self._settings.limits.waiting,
                self._pool,
                self._metrics.of(bundle.manifest.name, lambda: served.batcher.admitted),
            ),
            stamp,
        )
        return served


def stamp_of(bundle: Path) -> Stamp:
    """That of the manifest, which is replaced with every other file. Raises OSError where it is not found."""
    found = os.stat(bundle / MANIFEST)  # noqa: PTH116 (a moment in which the folder is gone must raise)
    return found.st_ino, found.st_mtime_ns, found.st_size


def stamp_or_none(bundle: Path) -> Stamp:
    try:
        return stamp_of(bundle)
    except OSError:
        return 0, 0, 0
