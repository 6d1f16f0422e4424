"""The steps of a ladder, from an answer that looks at no item to full fine-tuning, and what each changes in the recipe.
No torch is imported here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from toolkit.api.errors import UsageError
from toolkit.build.plan import Plan, plan
from toolkit.host.registry import Registry
from toolkit.recipe.tables import Recipe
from toolkit.runs.directory import LADDER, RunDirectory, nan_for_null

NO_GAIN = "no-gain"
"""In place of the name of a last step: to stop after the first step that is not better than the best one before it,
beyond chance."""

Tables: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One step."""

    name: str
    title: str
    layers: int | None
    """`train.trained_layers`: None trains all."""
    trained: bool = True
    """Whether it is a run, with epochs."""

    def recipe(self, planned: Plan, registry: Registry) -> Recipe:
        """The recipe of this step. Raises RecipeError where it is invalid."""
        tables = deepcopy(planned.resolved.tables())
        tables.pop("tune", None)
        train, model = tables["train"], tables["model"]
        for key in ("trained_layers", "thaw_every", "fixres", "feature_views"):
            train.pop(key, None)
        if "freeze" in model:  # the core freezes instead, the same way for every step
            model["freeze"] = False
            model.pop("thaw_epoch", None)
        if self.layers is not None:
            train["trained_layers"] = self.layers
        if self.layers == 0:
            train["feature_views"] = 1
            tables["augment"] = []
        return plan(planned.resolved.replace(tables), registry).resolved


ZERO_SHOT = "zero-shot"
STEPS = (
    Step("majority", "the most frequent class", 0, trained=False),
    Step(ZERO_SHOT, "no training, classes known by their names", 0, trained=False),
    Step("probe", "frozen features, logistic regression", 0, trained=False),
    Step("head", "frozen features, the head", 0),
    Step("last-block", "the head and the last block", 1),
    Step("full", "full fine-tuning", None),
)
UNTIL = (*(step.name for step in STEPS), NO_GAIN)


@dataclass(frozen=True)
class Cost:
    """What a step took; NaN where it is unknown."""

    seconds: float
    """Wall time of the step, scoring and all interrupted tries included."""
    memory: int
    """Bytes that the process had at most meanwhile, on the device where that is a GPU."""
    latency: float
    """Seconds of the answer to one item, the median of some; 0 where no network is asked."""


@dataclass(frozen=True)
class Climb:
    """What `ladder.json` holds."""

    until: str
    names: Sequence[str]
    """Of the steps, in their order: those that the model has, up to the last one."""
    costs: Mapping[str, Cost]
    """Of the steps that were begun, by name."""

    @property
    def steps(self) -> Sequence[Step]:
        return [step for step in STEPS if step.name in self.names]

    def write(self, folder: Path) -> None:
        RunDirectory(folder).write_json(folder / LADDER, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Climb:
        """Raises UsageError where the folder is not a ladder's, or its file is damaged."""
        path = folder / LADDER
        if not path.is_file():
            raise UsageError(f"{folder}: not a ladder (it has no {LADDER})", next_step="name the folder of a ladder")
        try:
            table = nan_for_null(json.loads(path.read_text(encoding="utf-8")))
            unknown = {table["until"], *table["names"]} - {*UNTIL}
            if unknown:
                raise ValueError(f'unknown step "{min(unknown)}"')
            return cls(table["until"], table["names"], {name: Cost(**cost) for name, cost in table["costs"].items()})
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise UsageError(
                f"{path}: cannot be read: {error}", next_step=f"start the ladder again, or remove {folder}"
            ) from error


def chosen(until: str) -> Sequence[Step]:
    """The steps up to this one; all where it names none."""
    names = [step.name for step in STEPS]
    return STEPS[: names.index(until) + 1] if until in names else STEPS


def recipes(planned: Plan, registry: Registry, until: str) -> list[tuple[Step, Recipe]]:
    """Each step with its recipe. Raises UsageError where items have other targets than one class each."""
    declared = getattr(planned.one("task").offer.declared, "targets", None)
    if declared not in (None, "index"):
        raise UsageError(
            f'ladder: task "{planned.resolved.task.name}" is not about one class for each item',
            next_step="use a recipe that classifies, such as: python -m toolkit ladder har_resnet50",
        )
    return [(step, step.recipe(planned, registry)) for step in chosen(until)]
