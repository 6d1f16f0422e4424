"""A bundle scored on a dataset, by the metrics of its recipe, as a run is."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from toolkit.api.clips import Clip
from toolkit.api.contracts import Data, Split, VideoSplit
from toolkit.api.errors import BundleError, DataError, RecipeError
from toolkit.build.assemble import corrupt_of
from toolkit.build.plan import Plan, plan
from toolkit.data.loader import target_tensor
from toolkit.data.splits import SPLITS
from toolkit.data.store import LeftOut, left_out_note
from toolkit.export.asking import ask_raw
from toolkit.host.registry import discover
from toolkit.recipe.read import parse_text
from toolkit.recipe.write import to_toml
from toolkit.runs.directory import RunDirectory, created
from toolkit.runs.predictions import predictions, write_predictions
from toolkit.runs.report import write_report
from toolkit.runs.screen import score_table
from toolkit.serving.bundle import Bundle
from toolkit.system.environment import describe_environment
from toolkit.training.evaluate import Answered, Evaluation, logits_of, scored_splits

BATCHES, CLIP_BATCHES = (16,), (4,)
"""Images, and clips, of a call."""
SEEN = ("size", "stored", "fit", "frames", "views", "average", "short")
"""What a protocol says of how the model sees an item, which is the bundle's own; the rest is the data's."""


def evaluate_bundle(
    path: Path, overrides: Sequence[str], *, device: str, precision: str | None, runs: Path, console: Console
) -> RunDirectory:
    """Score the bundle at `path` on the validation and test split of its recipe's data, or of other data where
    `overrides` says so. Every file goes to the graph as it was decoded; one that cannot be is an error or left out, as
    the recipe says.

    Leaves scores, predictions, a recipe and a report in a new directory below `runs/<name>`.
    """
    bundle = Bundle.load(path, device=device, precision=precision)
    manifest = bundle.manifest
    with _told_of_bundle(bundle, overrides):
        planned = plan(parse_text(manifest.recipe, f"{path}/bundle.json", overrides, name=manifest.name), discover())
        data = planned.data()
    _same_classes(bundle, data)
    _same_clips(bundle, data)
    scored = scored_splits(data, dataset=planned.resolved.data.name, scored=path)
    console.print(
        f"bundle {path}: {bundle.precision} on {bundle.device} ({bundle.reason})", markup=False, soft_wrap=True
    )
    if manifest.sample or data.spec.sample:
        side = "model was trained on" if manifest.sample else "data is"
        console.print(f"note: the {side} the built-in SAMPLE", style="yellow", markup=False)
    corrupt = corrupt_of(planned.resolved)
    left_out = {name: LeftOut(corrupt, len(getattr(data, name))) for name in SPLITS}
    with created(runs, f"{manifest.name}-bundle") as directory:
        evaluations = {name: _evaluate(bundle, planned, data, name, left_out[name], console) for name in scored}
        for note in _skipped(left_out):
            console.print(f"note: {note}", style="yellow", markup=False, soft_wrap=True)
        _keep(directory, bundle, planned, data, evaluations, left_out, console)
    return directory


@contextmanager
def _told_of_bundle(bundle: Bundle, overrides: Sequence[str]) -> Iterator[None]:
    """What is wrong with the recipe of a bundle cannot be corrected in a file."""
    try:
        yield
    except RecipeError as error:
        lacking = (
            "install the plugins that offer what is missing, or export the run again: python -m toolkit export RUN"
        )
        given = f"correct what --set says, or leave it out: {_command(bundle)}"
        raise RecipeError(error.source, error.problems, next_step=given if overrides else lacking) from error


def _command(bundle: Bundle) -> str:
    return shlex.join(["python", "-m", "toolkit", "evaluate", str(bundle.path)])


def _same_classes(bundle: Bundle, data: Data) -> None:
    known, found = bundle.manifest.classes, data.spec.classes
    if known != found:
        raise BundleError(
            f"{bundle.path}: knows the classes {', '.join(known)}; the data has {', '.join(found)}",
            next_step=f"evaluate on data with the same classes: {_command(bundle)} --set data.root=FOLDER",
        )


def _same_clips(bundle: Bundle, data: Data) -> None:
    if bundle.manifest.clip != data.spec.clip:
        raise BundleError(
            f"{bundle.path}: was exported to see {_told(bundle.manifest.clip)}; the recipe asks for "
            f"{_told(data.spec.clip)}",
            next_step="leave out the overrides of clip",
        )


def _told(clip: Clip | None) -> str:
    if clip is None:
        return "images"
    told = (f"{name} {value}" for name, value in asdict(clip).items() if name != "clips_per_video")
    return f"clips ({', '.join(told)})"


def _evaluate(bundle: Bundle, planned: Plan, data: Data, name: str, left_out: LeftOut, console: Console) -> Evaluation:
    split = getattr(data, name)
    answers = torch.from_numpy(_asked(bundle, split, name, left_out, console))
    index = left_out.without(torch.arange(len(split)))
    if not len(index):
        raise DataError("nothing can be scored: every item of a split was left out", next_step="repair the data")
    objective = planned.objective(data.spec, data.train.targets, torch.device("cpu"))
    answered = Answered(index, logits_of(answers, data.spec.targets), target_tensor(split.targets, data.spec)[index])
    thresholds = bundle.manifest.thresholds
    given = None if thresholds is None else torch.tensor(thresholds)
    return answered.scored(objective, planned.metrics(data.spec), given)


def _asked(
    bundle: Bundle, split: Split | VideoSplit, name: str, left_out: LeftOut, console: Console
) -> NDArray[np.float32]:
    bar = track(range(len(split)), name, console=console, transient=True, disable=not console.is_terminal)
    steps = iter(bar)

    def progress(items: int) -> None:
        for _ in range(items):
            next(steps)

    sizes = BATCHES if bundle.manifest.clip is None else CLIP_BATCHES
    return ask_raw(bundle, split, range(len(split)), sizes, progress=progress, left_out=left_out)


def _skipped(left_out: dict[str, LeftOut]) -> list[str]:
    return [left_out_note(name, one.reasons, one.count) for name, one in left_out.items() if one.reasons]


def _protocol(bundle: Bundle, planned: Plan, data: Data, left_out: dict[str, LeftOut]) -> dict[str, Any]:
    """As a run's, of the data that was seen here by the model of the bundle."""
    own = bundle.manifest.protocol
    return {
        "dataset": planned.resolved.data.name,
        "sample": data.spec.sample,
        **data.protocol,
        **{key: own[key] for key in SEEN if key in own},
        "precision": bundle.precision,
        "skipped": {name: len(one.reasons) for name, one in left_out.items()},
    }


def _keep(
    directory: RunDirectory,
    bundle: Bundle,
    planned: Plan,
    data: Data,
    evaluations: dict[str, Evaluation],
    left_out: dict[str, LeftOut],
    console: Console,
) -> None:
    manifest = bundle.manifest
    protocol = _protocol(bundle, planned, data, left_out)
    result: dict[str, Any] = {name: evaluation.scores for name, evaluation in evaluations.items()}
    result |= {"bundle": str(bundle.path), "device": bundle.device, "protocol": protocol}
    directory.write_text("recipe.toml", to_toml(planned.resolved))
    directory.write_json("scores.json", result)
    directory.write_json("facts.json", _facts(bundle, data, left_out))
    directory.write_json("environment.json", describe_environment(_hardware(bundle)))
    last = next(reversed(evaluations))
    rows = list(predictions(evaluations[last], getattr(data, last).ids, data.spec))
    write_predictions(directory, rows, data.spec)
    title = f"{manifest.name}{' (SAMPLE data)' if data.spec.sample else ''}"
    console.print(score_table({name: dict(one.scores) for name, one in evaluations.items()}, title=title))
    console.print(f"report {write_report(directory.path)}", markup=False, soft_wrap=True)


def _hardware(bundle: Bundle) -> torch.device:
    """What torch can tell of what the bundle ran on; onnxruntime may use a GPU that this torch cannot."""
    return torch.device("cuda" if bundle.device != "cpu" and torch.cuda.is_available() else "cpu")


def _facts(bundle: Bundle, data: Data, left_out: dict[str, LeftOut]) -> dict[str, Any]:
    """The contents of facts.json: what the report tells of this evaluation."""
    manifest = bundle.manifest
    trained = ["the model was trained on the built-in SAMPLE, generated by code"] if manifest.sample else []
    return {
        "recipe": manifest.name,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "sample": data.spec.sample,
        "device": bundle.device,
        "precision": bundle.precision,
        "classes": list(manifest.classes),
        "items": {name: len(getattr(data, name)) for name in ("train", "valid", "test")},
        "notes": [f"scores of the exported bundle {bundle.path}", *trained, *data.notes, *_skipped(left_out)],
    }
