"""From names in a recipe to built components: every name and argument is checked before anything slow happens."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.api.answers import SEPARATOR
from toolkit.api.clips import Clip
from toolkit.api.contract_checks import blamed_augmentation, blamed_metric
from toolkit.api.contracts import (
    Augmentation,
    Data,
    DataSpec,
    Examples,
    InputDesign,
    Metric,
    Model,
    NetworkOf,
    Objective,
    TargetForm,
    Targets,
    Task,
    Tracker,
)
from toolkit.api.errors import DataError, PluginError, Problem, RecipeError, ToolkitError, first_few
from toolkit.api.files import as_utf8
from toolkit.host.offers import Offer
from toolkit.host.registry import Registry
from toolkit.recipe.checking import as_written, check
from toolkit.recipe.draft import Draft, Used, used
from toolkit.recipe.kinds import KINDS
from toolkit.recipe.read import invalid
from toolkit.recipe.signature import Signature
from toolkit.recipe.tables import ClipTable, InputTable, Recipe

if TYPE_CHECKING:
    import torch
    from torch import nn

FORMS: Mapping[TargetForm, str] = {
    "index": "one class an item",
    "set": "a set of classes an item",
    "number": "numbers an item",
}


@dataclass(frozen=True)
class Chosen:
    """A component a recipe uses, with its checked arguments."""

    key: str
    kind: str
    name: str
    signature: Signature
    args: Mapping[str, Any]
    written: Mapping[str, Any]
    """The arguments as TOML has them."""
    offer: Offer
    source: str
    registry: Registry

    @cached_property
    def factory(self) -> Callable[..., Any]:
        """Imported now, if it is not yet. Raises PluginError where that fails."""
        return self.offer.load()

    def build(self, *first: Any, **given: Any) -> Any:
        """Call the factory. Its ValueError `argument: what is wrong`, or with its own name before the colon, is the
        recipe's fault, the rest the plugin's."""
        built = self._called(self.factory, "cannot be built", *first, **given)
        lacking = [name for name in KINDS[self.kind].has if not hasattr(built, name)]
        if lacking:
            raise self.offer.failed(f"made {type(built).__name__}, which has no {lacking[0]}")
        return built

    @cached_property
    def takes(self) -> InputDesign | None:
        """What a model was designed for; None for one that does not say. Raises as `build` does."""
        declared = self.offer.declared
        if not isinstance(declared, Model):
            return None
        takes = declared.takes
        if not isinstance(takes, str):
            return takes

        def ask() -> InputDesign | None:
            designer = self.offer.designer(takes)
            design: InputDesign | None = self._called(designer, "does not say what it takes")
            return design

        return self.registry.design(self.offer, self.written, ask) if declared.settled else ask()

    def _called(self, function: Callable[..., Any], otherwise: str, *first: Any, **given: Any) -> Any:
        try:
            return function(*first, **self.args, **given)
        except (KeyboardInterrupt, ToolkitError):
            raise
        except BaseException as error:
            argument, colon, message = str(error).partition(": ")
            if isinstance(error, ValueError) and colon and re.fullmatch(r"\w+", argument):
                key = self.key if argument == self.offer.name else f"{self.key}.{argument}"
                raise invalid(self.source, [Problem(key, message)]) from error
            raise self.offer.failed(otherwise, error) from error


@dataclass(frozen=True)
class Plan:
    """A recipe whose components all exist and accept their arguments."""

    source: str
    """What problems found later are reported under: the recipe's file."""
    resolved: Recipe
    """The recipe with every component's defaults filled in."""
    chosen: tuple[Chosen, ...]
    changed: Mapping[str, str] = field(default_factory=dict)
    """Keys that overrides gave another value than the recipe's file, with that value."""
    tasks: Mapping[str, TargetForm] = field(default_factory=dict)
    """Every task that declares the form of its targets: what a recipe may ask for instead."""
    without_labels: Sequence[str] = ()
    """Every task that declares that it needs no labels."""

    def one(self, kind: str) -> Chosen:
        return next(chosen for chosen in self.chosen if chosen.kind == kind)

    def all(self, kind: str) -> list[Chosen]:
        return [chosen for chosen in self.chosen if chosen.kind == kind]

    @property
    def definition_of_data(self) -> tuple[Any, ...]:
        """What decides `data` and the form in which its items are kept."""
        recipe = self.resolved
        drawn = None if recipe.data.fraction is None else recipe.seed
        said = recipe.data.model_dump(), recipe.input, recipe.clip, drawn
        return self.one("dataset").offer, *said, self.one("model").takes

    def data(self) -> Data:
        """The dataset, with what the model takes and the recipe's `[input]` and `[clip]` put into its spec. Raises
        DataError where no data can be used, RecipeError where the task takes other targets or the model would see more
        than is stored."""
        # Imported here, with the decoder of videos that they need: a plan is made where no data is read.
        from toolkit.data.fraction import with_fraction
        from toolkit.data.metadata import with_metadata
        from toolkit.data.review import reviewed

        clip = clip_of(self.resolved)
        table = self.resolved.data
        whole = _read_data(self.one("dataset"), self.resolved, clips=clip is not None)
        data = reviewed(with_metadata(whole, table.metadata), table.exclude, table.relabel)
        if table.unknown:
            data = self._with_unknown(data, table.unknown)
        if table.fraction is not None:
            data = with_fraction(data, table.fraction, self.resolved.seed)
        spec, design = data.spec, self.one("model").takes
        declared = self.one("task").offer.declared
        if isinstance(declared, Task) and declared.targets not in (None, spec.targets):
            raise self._other_targets(declared.targets, spec.targets)
        if not spec.labelled and not (isinstance(declared, Task) and not declared.labels):
            raise self._unlabelled()
        if design is not None:
            spec = replace(spec, mean=design.mean, std=design.std)
            if not spec.sample:  # which keeps the size in which it is drawn
                spec = replace(spec, size=design.size, stored=design.stored)
        spec = with_input(spec, self.resolved.input)
        if spec.stored_size < spec.size:
            message = f"must be at least the {spec.size} px that the model sees, got {spec.stored_size}"
            raise invalid(self.source, [Problem("input.stored", message)])
        # A class may have the name of a folder, which need not be text; what reports, cards and graphs show must be.
        classes = tuple(as_utf8(name).decode() for name in spec.classes)
        if spec.targets == "set" and (joined := [name for name in classes if SEPARATOR in name]):
            raise DataError(
                f'invalid class name "{joined[0]}": "{SEPARATOR}" separates the classes of a set',
                next_step="rename the class",
            )
        return replace(data, spec=replace(spec, classes=classes, clip=clip))

    def _with_unknown(self, data: Data, names: Sequence[str]) -> Data:
        from toolkit.data.unknown import objections, with_unknown

        if wrong := [Problem("data.unknown", message) for message in objections(data, names)]:
            raise invalid(self.source, wrong)
        return with_unknown(data, names)

    def model(self, spec: DataSpec, *, initial_weights: bool = True, examples: Examples | None = None) -> nn.Module:
        """The model, which may look at `examples` if it asks for them. Without `initial_weights` an argument called
        `weights` becomes "none": a checkpoint's will be loaded, and fetching others first could fail. On a sample the
        word of published weights stays, since a model may ignore it there and say so."""
        chosen = self.one("model")
        published = str(chosen.args.get("weights", "none")).isidentifier()  # any other is a path
        if "weights" in chosen.args and not initial_weights and not (spec.sample and published):
            chosen = replace(chosen, args={**chosen.args, "weights": "none"})
        given = {"examples": examples} if "examples" in chosen.signature.given else {}
        model: nn.Module = chosen.build(spec, **given)
        return model

    def objective(
        self,
        spec: DataSpec,
        targets: Targets,
        device: torch.device,
        *,
        network_of: NetworkOf | None = None,
        feature_size: Callable[[], int] | None = None,
    ) -> Objective:
        """The task's objective on `device`, of a training split with these targets. `feature_size` is called where the
        task asks for it. Raises RecipeError where it takes targets of another form."""
        chosen = self.one("task")
        known: dict[str, Any] = {"targets": targets, "network_of": network_of}
        if feature_size and "feature_size" in chosen.signature.given:
            known["feature_size"] = feature_size()
        given = {name: value for name, value in known.items() if name in chosen.signature.given}
        objective: Objective = chosen.build(spec, **given).to(device)
        if objective.targets != spec.targets:
            raise self._other_targets(objective.targets, spec.targets)
        return objective

    def _other_targets(self, taken: TargetForm, given: TargetForm) -> RecipeError:
        task, dataset = self.one("task").name, self.one("dataset").name
        message = f'"{task}" takes {FORMS[taken]}, dataset "{dataset}" has {FORMS[given]}'
        suitable = [name for name, form in self.tasks.items() if form == given]
        return invalid(self.source, [Problem("task.name", message, next(iter(suitable), None))])

    def _unlabelled(self) -> RecipeError:
        message = f'"{self.one("task").name}" learns from labels, and this data has none'
        return invalid(self.source, [Problem("task.name", message, next(iter(self.without_labels), None))])

    def augmentations(self, spec: DataSpec) -> list[Augmentation]:
        return [blamed_augmentation(chosen.build(spec), chosen.offer.failed) for chosen in self.all("augmentation")]

    def metrics(self, spec: DataSpec) -> list[Metric]:
        """Fresh ones: each pass over a split needs its own. None of data without labels."""
        if not spec.labelled:
            return []
        return [blamed_metric(chosen.build(spec), chosen.offer.failed) for chosen in self.all("metric")]

    def trackers(self, run: Path) -> list[Tracker]:
        return [chosen.build(run) for chosen in self.all("tracker")]


def with_input(spec: DataSpec, asked: InputTable) -> DataSpec:
    """`spec` with what the recipe asks for. `stored` belongs to `size`: a new size alone is stored as it is."""
    given = {key: getattr(asked, key) for key in ("size", "stored", "fit", "mean", "std")}
    given = {key: value for key, value in given.items() if value is not None}
    if "size" in given:
        given.setdefault("stored", None)
    return replace(spec, **given)


def clip_of(resolved: Recipe) -> Clip | None:
    """How videos become clips by a resolved recipe; None where its model sees images."""
    return None if resolved.clip is None else Clip(**resolved.clip.model_dump(exclude_none=True))


def plan(asked: Recipe | Draft, registry: Registry) -> Plan:
    """Find every component and check its arguments.

    Raises RecipeError with every problem of the draft and of its components, or PluginError if the recipe needs
    something that is broken or that several plugins offer.
    """
    draft = with_usual(Draft.of(asked) if isinstance(asked, Recipe) else asked, registry)
    problems, broken, chosen = _choices(draft, registry)
    if draft.recipe is not None and not broken:
        try:
            problems += _clip_problems(draft.recipe, chosen)
        except RecipeError as error:
            problems += error.problems
    if broken:
        # The plugins' faults first, for they decide the exit code; the recipe's own below.
        first, *others = (line for error in broken for line in (f"{draft.source}: {error.message}", *error.details))
        own = invalid(draft.source, problems).lines()
        raise PluginError(first, details=[*others, *own], next_step=broken[0].next_step)
    if problems or draft.recipe is None:
        raise invalid(draft.source, problems)
    declared = {one.name: one.declared for one in registry.offers("task") if isinstance(one.declared, Task)}
    tasks = {name: task.targets for name, task in declared.items() if task.targets is not None and task.labels}
    unlabelled = [name for name, task in declared.items() if not task.labels]
    return Plan(draft.source, _resolved(draft.recipe, chosen), tuple(chosen), draft.changed, tasks, unlabelled)


def _choices(draft: Draft, registry: Registry) -> tuple[list[Problem], list[PluginError], list[Chosen]]:
    """All that is wrong with the draft, plugins at fault, and the components that are in order.

    Where something is wrong already, no component is imported to look for more: that may take seconds."""
    problems, broken, offers = list(draft.problems), list[PluginError](), list[tuple[Used, Offer]]()
    for use in used(draft):
        try:
            found = registry.find(use.kind, use.name, f"{use.key}.name")
        except PluginError as error:
            broken.append(error)
        else:
            if isinstance(found, Problem):
                problems.append(found)
            else:
                offers.append((use, found))
    known = [(use, offer) for use, offer in offers if not (problems or broken) or registry.knows(offer)]
    chosen = []
    for use, offer in known:
        try:
            signature = registry.signature(offer)
        except PluginError as error:
            broken.append(error)
            continue
        try:
            args, wrong = check(signature, use.args, use.key)
            written = as_written(signature, use.args, args)
        except Exception as error:  # of a check or a class of the plugin
            broken.append(offer.failed("cannot check its arguments", error))
            continue
        problems += wrong
        if not wrong:
            chosen.append(Chosen(use.key, use.kind, use.name, signature, args, written, offer, draft.source, registry))
    registry.save()
    unread = [f'{use.kind} "{use.name}"' for use, offer in offers if (use, offer) not in known]
    if unread:
        message = f"the arguments of {first_few(unread)} are not checked until this is correct"
        problems.append(Problem("", message, fault="unread"))
    return problems, broken, chosen


def with_usual(draft: Draft, registry: Registry) -> Draft:
    """`draft` with the metrics that are usual for its task, where it names none."""
    name = next((use.name for use in used(draft) if use.kind == "task"), "")
    offers = registry.named("task", name)
    declared = offers[0].declared if len(offers) == 1 else None
    if draft.recipe is None or not isinstance(declared, Task):
        return draft
    tables, train = draft.recipe.tables(), draft.tables.get("train", {})
    if "metrics" not in draft.tables and declared.metrics:
        tables["metrics"] = list(declared.metrics)
    if "metric" not in train:
        tables["train"]["metric"] = declared.metric
        tables["train"]["direction"] = train.get("direction", declared.direction)
    return replace(draft, tables=tables, recipe=draft.recipe.replace(tables))


def _clip_problems(recipe: Recipe, chosen: Sequence[Chosen]) -> Iterator[Problem]:
    """What the recipe does not say of clips and the model does not know, and a dataset that has none."""
    by_kind = {one.kind: one for one in chosen}
    model, dataset = by_kind.get("model"), by_kind.get("dataset")
    if model is None or dataset is None or _clip_table(recipe, model) is None:
        return
    if "clips" not in dataset.signature.given:
        yield Problem("clip", f'dataset "{dataset.name}" has images, but clips need videos')
    if model.takes is None or model.takes.frames is None:
        table = recipe.clip or ClipTable()
        needed = ("frames",) if table.sampling == "segments" else ("frames", "rate")
        for key in (key for key in needed if getattr(table, key) is None):
            yield Problem(f"clip.{key}", f'required: model "{model.name}" takes clips of any length')


def _clip_table(recipe: Recipe, model: Chosen) -> dict[str, Any] | None:
    """The recipe's `[clip]` with the model's choices under it; None where the model sees images."""
    design = model.takes if model.takes and model.takes.frames else None
    if recipe.clip is None and design is None:
        return None
    own = {"frames": design.frames, "rate": design.rate} if design else {"rate": 1}
    return own | (recipe.clip or ClipTable()).model_dump(exclude_none=True)


def _resolved(recipe: Recipe, chosen: Sequence[Chosen]) -> Recipe:
    """`recipe` with the defaults of every chosen component under what it gives itself. An argument that is called as a
    key of the table itself (`name`) keeps its default: no recipe can give it."""
    tables = recipe.tables()
    for one in chosen:
        first, _, rest = one.key.partition(".")
        holder, place = (tables[first], rest) if rest else (tables, first)  # type: tuple[Any, Any]
        if isinstance(tables[first], list):
            place = [other for other in chosen if other.kind == one.kind].index(one)
        filled = {**one.signature.defaults, **one.written}
        tables_own = holder[place].keys() - one.args.keys()
        holder[place] |= {key: value for key, value in filled.items() if key not in tables_own}
        if one.kind == "model" and (clip := _clip_table(recipe, one)):
            tables["clip"] = clip
    return recipe.replace(tables)


def _read_data(dataset: Chosen, recipe: Recipe, *, clips: bool) -> Data:
    """Call the dataset. Only it knows where its data can be had, so it is asked even if there is nothing at `root`."""
    place = recipe.data.root or usual_place(dataset.name)
    asked: dict[str, Any] = {"clips": True} if clips else {}
    if "cache_bytes" in dataset.signature.given:
        asked["cache_bytes"] = int(recipe.input.cache_gb * 2**30)
    try:
        data: Data = dataset.build(place, **asked)
        return data
    except PluginError as error:
        if place and (unreadable := _unreadable(error.__cause__, place)):
            raise unreadable from error
        if place and not holds_something(place):
            raise DataError("no data found here", path=place, next_step=f"see {error.next_step}") from error
        raise


def _unreadable(error: BaseException | None, place: Path) -> DataError | None:
    """The error for the data's owner where a file or folder at `place` may not be read, or its disk fails. The dataset
    itself reports one that does not exist."""
    if not isinstance(error, OSError) or isinstance(error, FileNotFoundError) or not isinstance(error.filename, str):
        return None
    path = Path(error.filename)
    if not any(path.absolute().is_relative_to(base) for base in (place.absolute(), place.resolve())):
        return None
    return DataError(f"cannot be read: {error.strerror}", path=path, next_step="Check its permissions, or remove it.")


def usual_place(dataset: str) -> Path | None:
    """Where the data of this dataset is looked for when a recipe names no root; None where nothing is there."""
    usual = Path("data") / dataset.rpartition(":")[2]
    return usual if holds_something(usual) else None


def holds_something(place: Path) -> bool:
    return place.is_file() or (place.is_dir() and any(place.iterdir()))
