"""What a run or a bundle scored, and the files that an evaluation leaves."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from rich.console import Console

from toolkit.api.contracts import Data, DataSpec, FileProblem, Headed, Pretraining, Sourced, TargetForm
from toolkit.api.errors import counted, first_few
from toolkit.build.agreement import contrary_direction, endless_warm_up, stages_in_words
from toolkit.build.assemble import Assembly, count_parameters
from toolkit.data.splits import NO_CLASS, SPLITS, count_classes
from toolkit.data.store.corrupt import Skipped
from toolkit.runs.directory import RunDirectory
from toolkit.runs.file_problems import write_file_problems
from toolkit.runs.files import read_run
from toolkit.runs.measuring import Measuring
from toolkit.runs.report import write_report
from toolkit.runs.report.trust import rescored
from toolkit.runs.report.verdicts import judged, verdicts
from toolkit.runs.rows import ROWS, Row
from toolkit.runs.scores import Certainty
from toolkit.runs.screen import print_scores, print_trust
from toolkit.runs.slices import Columns, slices_of, write_slices
from toolkit.runs.sources import write_sources
from toolkit.runs.trust import calibration, measure_similarity, unknown_lines, unknown_scores
from toolkit.runs.uncertainty import uncertain_scores
from toolkit.system.notices import note, say, show
from toolkit.training.evaluate import Evaluation, evaluate

SEEN = ("size", "stored", "fit", "frames", "views", "average", "short")
"""Keys of a protocol that say how the model sees an item: a bundle's own, whatever data it is scored on."""

BY_NEIGHBOURS: Mapping[str, str] = {"answers": "by the nearest neighbours of the same split"}
"""What a protocol says of answers that no head gives."""

TARGETS: Mapping[TargetForm, Mapping[str, str]] = {
    "index": {},
    "set": {"targets": "sets of classes"},
    "number": {"targets": "numbers"},
}
"""What a protocol says of the form of targets."""


@dataclass(frozen=True)
class Scored:
    """What is scored: a run's network or a bundle, and the data."""

    name: str
    """Of the recipe."""
    dataset: str
    data: Data
    device: str
    precision: str
    seen: Mapping[str, Any]
    """How the model sees an item: the part `SEEN` of the protocol."""
    skipped: Mapping[str, Skipped]
    """Items that could not be read so far, or are damaged, by split. Grows while splits are read."""
    remarks: tuple[str, ...]
    """What a user must know before believing the scores, besides `skipped` and that the data is the sample."""

    @classmethod
    def of_run(cls, assembly: Assembly, remarks: Sequence[str] = ()) -> Scored:
        """`remarks` are those of the training."""
        recipe, data, spec = assembly.recipe, assembly.data, assembly.spec
        direction = contrary_direction(recipe, spec, assembly.objective, assembly.metrics) if len(data.valid) else []
        found = [*data.notes, *assembly.model_notes, *stages_in_words(recipe, spec)]
        return cls(
            name=recipe.name,
            dataset=recipe.data.name,
            data=data,
            device=str(assembly.device),
            precision=assembly.precision,
            seen={**_seen(spec), **(BY_NEIGHBOURS if isinstance(assembly.objective, Pretraining) else {})},
            skipped={name: loader.store.skipped for name, loader in assembly.loaders().items()},
            remarks=(*found, *direction, *endless_warm_up(recipe, assembly.steps_per_epoch), *remarks),
        )

    @property
    def title(self) -> str:
        return f"{self.name}{' (SAMPLE data)' if self.data.spec.sample else ''}"

    def notes(self) -> list[str]:
        """What a user must know before believing the scores."""
        return [*self.remarks, *self.skipped_notes()]

    def screen_notes(self) -> list[str]:
        """`notes`, with one about the sample in place of what it says of itself: pages and cards have a banner."""
        if not self.data.spec.sample:
            return self.notes()
        drawn = f" ({'; '.join(self.data.notes)})" if self.data.notes else ""
        sample = f"the data is the built-in SAMPLE{drawn}: its scores say nothing about real data"
        return [sample, *(text for text in self.notes() if text not in self.data.notes)]

    def skipped_notes(self) -> list[str]:
        """Notes on each split of which items could not be read so far, or are damaged."""
        return [text for name, skipped in self.skipped.items() for text in skipped.notes(name)]

    def file_problems(self) -> list[FileProblem]:
        """Every file that `notes` are about."""
        return [*self.data.files, *(problem for one in self.skipped.values() for problem in _damaged(one))]

    def class_items(self) -> dict[str, int]:
        """Training items of each class; empty where targets are numbers."""
        if self.data.spec.targets == "number":
            return {}
        counts = count_classes(self.data.train.targets)
        del counts[NO_CLASS]
        return {name: counts[number] for number, name in enumerate(self.data.spec.classes)}

    def protocol(self) -> dict[str, Any]:
        """How scores are made: scores of unlike protocols do not compare."""
        return {
            "dataset": self.dataset,
            "sample": self.data.spec.sample,
            **self.data.protocol,
            **TARGETS[self.data.spec.targets],
            **self.seen,
            "precision": self.precision,
            "skipped": {name: len(one.reasons) for name, one in self.skipped.items()},
        }

    def facts(self, directory: RunDirectory, network: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The contents of facts.json: what was found at run time. `network` is what is known of a run's network."""
        return {
            "recipe": self.name,
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(directory.recipe.stat().st_mtime)),
            "sample": self.data.spec.sample,
            "device": self.device,
            "precision": self.precision,
            "classes": list(self.data.spec.classes),
            "targets": self.data.spec.targets,
            "labelled": self.data.spec.labelled,
            "items": {name: len(getattr(self.data, name)) for name in SPLITS},
            "class_items": self.class_items(),
            **(network or {}),
            "notes": self.notes(),
        }


def by_rank(layers: Sequence[str]) -> list[str]:
    """A note on layers that draw on each rank by themselves."""
    if not layers:
        return []
    return [f"each rank draws by itself in {first_few(layers)}: another number of ranks draws otherwise there"]


def _damaged(skipped: Skipped) -> Iterator[FileProblem]:
    for index, reason in sorted(skipped.reasons.items()):
        item = skipped.ids[index]
        _, found, rest = reason.partition(f"{item}: ")  # behind the path of the file, as the machine has it
        yield FileProblem(item, f"damaged, skipped: {rest if found else reason}")
    for index, damage in sorted(skipped.damaged.items()):
        if index not in skipped.reasons:
            yield FileProblem(skipped.ids[index], f"damaged: {damage}")


def _seen(spec: DataSpec) -> dict[str, Any]:
    seen = {"size": spec.size, "stored": spec.stored_size, "fit": spec.fit}
    clip = spec.clip
    if clip is None:
        return {**seen, "views": "1 centre crop"}
    strided = f"{clip.frames} x {clip.rate} frames at {clip.fps:g}/s"
    views = f"{counted(clip.clips, 'clip')} x {counted(clip.crops, 'crop')}"
    return {
        **seen,
        "frames": f"{clip.frames} segments" if clip.sampling == "segments" else strided,
        "views": views,
        "average": clip.average,
        "short": clip.short,
    }


def run_facts(scored: Scored, assembly: Assembly, directory: RunDirectory) -> dict[str, Any]:
    """The contents of facts.json of a run."""
    train = assembly.recipe.train
    network = {
        "epoch_items": assembly.train.epoch_items(train.batch_size),
        "parameters": count_parameters(assembly.network),
        "multiply_adds": assembly.summary.multiply_adds,
    }
    earlier = directory.read_json(directory.facts)
    changed = {**earlier.get("changed", {}), **assembly.plan.changed}
    model = assembly.network.model
    source = model.provenance if isinstance(model, Sourced) else None
    # A run that goes on does not fetch the weights that it started from.
    weights = asdict(source) if source else earlier.get("weights")
    started = {"weights": weights} if weights else {}
    return {**scored.facts(directory, network), "epochs": train.epochs, **started, "changed": changed}


@dataclass(frozen=True)
class Evaluated:
    """The answers of a run or a bundle, and what follows from them."""

    scored: Scored
    answers: dict[str, Evaluation]
    """By split: of valid, of test, or of both."""
    scores: Mapping[str, Any]
    """The contents of scores.json."""
    measures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """What was measured of the items of `split` while they were scored, by column and id."""

    @property
    def split(self) -> str | None:
        """The split that predictions are shown of, the last that was scored; None where none was."""
        return next(reversed(self.answers), None)

    @cached_property
    def rows(self) -> Sequence[Row]:
        """On `split`."""
        if self.split is None:
            return []
        data = self.scored.data
        return ROWS[data.spec.targets].of(self.answers[self.split], getattr(data, self.split).ids, data.spec)


def score_splits(assembly: Assembly, scored: Scored, best_epoch: int) -> Evaluated:
    """Evaluate a run's network on the validation and the test split, those that have items."""
    table = assembly.recipe.train
    answers: dict[str, Evaluation] = {}
    measures: Mapping[str, Mapping[str, float]] = {}
    if assembly.unknown is not None and isinstance(assembly.network.model, Headed):
        with assembly.autocast():
            measure_similarity(assembly)
    for name, loader in (("valid", assembly.valid), ("test", assembly.test)):
        if not len(loader.store):
            continue
        measuring = Measuring()
        answers[name] = evaluate(
            assembly.network,
            assembly.objective,
            measuring.through(loader.evaluation(table.eval_batch or table.batch_size)),
            assembly.metrics(),
            assembly.autocast,
            average=loader.average,
            ranks=assembly.ranks,
            keep_views=assembly.spec.targets == "index",
        )
        measures = measuring.columns(loader.store.split.ids, loader.store.sides, assembly.ranks)
    splits = {name: evaluation.scores for name, evaluation in answers.items()}
    scores = run_scores(scored, splits, best_epoch) | thresholds_by_class(answers, assembly.spec)
    scores |= uncertain_scores(answers, assembly.data, assembly.objective, assembly.metrics)
    scores |= calibration(answers, assembly.spec, assembly.valid.average)
    scores |= unknown_scores(assembly, answers)
    return Evaluated(scored, answers, scores, measures)


def thresholds_by_class(answers: Mapping[str, Evaluation], spec: DataSpec) -> dict[str, dict[str, float]]:
    """What scores.json says of the thresholds that answers were made with; nothing where answers need no thresholds."""
    thresholds = next((one.thresholds for one in answers.values()), None)
    return {} if thresholds is None else {"thresholds": dict(zip(spec.classes, thresholds.tolist(), strict=True))}


def run_scores(scored: Scored, splits: Mapping[str, Mapping[str, Any]], best_epoch: int) -> dict[str, Any]:
    """The contents of scores.json of a run."""
    both = {name: dict(splits.get(name, {})) for name in ("valid", "test")}
    return {**both, "best_epoch": best_epoch, "protocol": scored.protocol()}


def keep_evaluation(directory: RunDirectory, evaluated: Evaluated, facts: Mapping[str, Any], console: Console) -> None:
    """Write facts, scores, predictions, verdicts and the report, and print the scores and the verdicts."""
    scored = evaluated.scored
    spec = scored.data.spec
    ROWS[spec.targets].write(directory, evaluated.rows, spec)
    write_sources(directory, (row.id for row in evaluated.rows), scored.data.sources)
    columns: Columns = {**evaluated.measures, **scored.data.metadata}
    write_slices(directory, slices_of(evaluated.rows, spec.targets, scored.data.sources, columns))
    directory.write_json(directory.facts, facts)
    directory.write_json(directory.scores, evaluated.scores)
    found = verdicts(judged(read_run(directory.path)))
    directory.write_json(directory.facts, {**facts, "verdicts": [asdict(verdict) for verdict in found]})
    for text in scored.skipped_notes():
        note(text, console)
    keep_file_problems(directory, scored, console)
    page = write_report(directory.path)
    if evaluated.answers:
        splits = {name: evaluated.scores[name] for name in evaluated.answers}
        certainty = Certainty.of(evaluated.scores, next(reversed(splits)))
        print_scores(splits, console, title=scored.title, certainty=certainty)
    if found_again := rescored(evaluated.scores):
        print_trust(found_again, console)
    for text in unknown_lines(evaluated.scores):
        say(text, console)
    for verdict in found:
        say(f"verdict: {verdict.sentence}", console)
    show(f"report {page}", console=console)


def keep_file_problems(directory: RunDirectory, scored: Scored, console: Console) -> None:
    """Write every file that the notes are about, and print where."""
    problems = scored.file_problems()
    write_file_problems(directory, problems)
    if problems:
        note(f"{counted(len(problems), 'file')} with a problem: see {directory.file_problems}", console)
