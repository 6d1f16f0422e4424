"""A run that takes the place of the one in use: its export passes the gate, and it is not worse beyond chance."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.api.contracts import Registering
from toolkit.api.errors import UsageError
from toolkit.export.once import bundle_of
from toolkit.runs.compare.comparison import Comparison, compare
from toolkit.runs.compare.contender import contenders
from toolkit.runs.compare.protocols import require_like_protocols
from toolkit.runs.directory import RunDirectory, existing
from toolkit.runs.loop import Trackers
from toolkit.runs.reopen import planned_again

if TYPE_CHECKING:
    from rich.console import Console

TRACKED = """--set 'trackers=["mlflow"]'"""


@dataclass(frozen=True)
class Candidate:
    """A run that asks for an alias of a registered model. `close` ends its trackers."""

    run: RunDirectory
    trackers: Trackers
    registry: Registering
    """One of the trackers."""
    model: str
    alias: str
    metric: str
    """What it must not be worse by."""

    @classmethod
    def of(
        cls, path: Path, overrides: Sequence[str], *, model: str | None, alias: str, metric: str | None
    ) -> Candidate:
        """By the recipe's own name and metric where `model` and `metric` are not given. Raises UsageError where no
        tracker of the recipe keeps a registry."""
        run = existing(path)
        planned = planned_again(run, None, overrides)
        made = planned.trackers(run.path)
        trackers = Trackers(made, None)
        registry = next((one for one in made if isinstance(one, Registering)), None)
        if registry is None:
            trackers.close()
            raise UsageError(
                f"{run.recipe}: no tracker of this recipe keeps a registry of models",
                next_step=f"name one that does: python -m toolkit promote {shlex.quote(str(path))} {TRACKED}",
            )
        metric = metric or planned.resolved.train.metric
        return cls(run, trackers, registry, model or run.recipe_name, alias, metric)

    def close(self) -> None:
        """Close all trackers of the recipe, not only the one that keeps the registry."""
        self.trackers.close()

    def in_use(self) -> Path | None:
        """The run that has the alias now, or None. Raises UsageError where it cannot be compared with."""
        found = self.registry.promoted(self.model, self.alias)
        if found is None:
            return None
        if found and RunDirectory(Path(found)).scores.is_file():
            return Path(found)
        problem = f"run directory not found: {found}" if found else "it came from elsewhere, and names no run directory"
        command = f"python -m toolkit promote {shlex.quote(str(self.run.path))} --against RUN"
        raise UsageError(
            f"{self.model}: the version with the alias {self.alias} cannot be compared with: {problem}",
            next_step=f"name the run to compare with: {command}",
        )

    def compared_with(self, other: Path, *, anyway: str) -> Comparison:
        """Raises UsageError where their scores do not compare; `anyway` shows what differs."""
        sides = contenders([other, self.run.path], runs=Path("runs"))
        require_like_protocols(sides, anyway=anyway)
        return compare(sides)

    def bundle(self, overrides: Sequence[str], console: Console) -> Path:
        """Its bundle, which its trackers have no part in. Raises what an export raises where the gate refuses it."""
        asked = [one for one in overrides if not one.startswith("trackers")]
        return bundle_of(self.run, asked, console)

    def promote(self, bundle: Path) -> str:
        """Let the alias point to the bundle. Returns how a person finds it."""
        return self.registry.promote(self.model, self.alias, bundle)
