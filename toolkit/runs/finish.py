"""What a run leaves once it is trained: scores, predictions, pictures, the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from toolkit.api.contracts import Augmentation, DataSpec
from toolkit.build.assemble import Assembly
from toolkit.data.loader import Loader, augment
from toolkit.data.store import centre_crop
from toolkit.runs.directory import RunDirectory
from toolkit.runs.predictions import Prediction
from toolkit.training.evaluate import Evaluation, evaluate
from toolkit.training.state import State

SHEET = 16
"""Pictures on a sheet."""


def evaluate_splits(assembly: Assembly, *, batch: int) -> dict[str, Evaluation]:
    """The network's answers on the validation and the test split, those that have items."""
    loaders = {"valid": assembly.valid, "test": assembly.test}
    return {
        name: evaluate(
            assembly.network,
            assembly.objective,
            loader.evaluation(batch),
            assembly.metrics(),
            assembly.autocast,
            average=loader.average,
        )
        for name, loader in loaders.items()
        if len(loader.pixels)
    }


def scores(evaluations: Mapping[str, Evaluation], assembly: Assembly, best_epoch: int) -> dict[str, Any]:
    """The contents of scores.json."""
    splits = {name: dict(evaluations[name].scores) if name in evaluations else {} for name in ("valid", "test")}
    return {**splits, "best_epoch": best_epoch, "protocol": assembly.protocol()}


def kept_scores(assembly: Assembly, state: State) -> dict[str, Any]:
    """As `scores`, of the best checkpoint where it is not evaluated: what its epoch scored on the validation split."""
    best = state.records[state.best_epoch - 1]
    return {"valid": dict(best.valid), "test": {}, "best_epoch": best.epoch, "protocol": assembly.protocol()}


def draw_pictures(
    directory: RunDirectory,
    assembly: Assembly,
    augmentations: Sequence[Augmentation],
    rows: Sequence[Prediction],
    shown: Loader,
) -> None:
    """The figures that need pixels or the model; `rows` are predictions on the split that `shown` loads."""
    from toolkit.runs.report import draw_augmented, draw_feature_maps, draw_worst_errors

    before, after, labels = augmented_sheet(assembly, augmentations)
    draw_augmented(directory.figures, before, after, labels)
    worst = sorted((row for row in rows if row.wrong), key=lambda row: -row.confidence)[:SHEET]
    if worst:
        batch = shown.at([row.index for row in worst])
        draw_worst_errors(directory.figures, batch.pixels.cpu(), worst)
    if assembly.spec.frames is None and rows:
        picture = centre_crop(shown.at([rows[0].index]).pixels, assembly.spec.size)
        normalised = assembly.network.normalize(picture)
        draw_feature_maps(directory.figures, assembly.network.model, picture[0].cpu(), normalised)


def augmented_sheet(assembly: Assembly, augmentations: Sequence[Augmentation]) -> tuple[Tensor, Tensor, list[str]]:
    """Training items as stored and as the model sees them in the first epoch, with their labels."""
    count = min(SHEET, len(assembly.train.pixels))
    places = torch.linspace(0, len(assembly.train.pixels) - 1, count).long().tolist()
    batch = assembly.train.at(places)
    drawn = augment(batch, augmentations, assembly.device, seed=assembly.recipe.seed, epoch=0, step=0)
    after = centre_crop(drawn.pixels, assembly.spec.size).cpu()
    return batch.pixels.cpu(), after, [label(target, assembly.spec) for target in drawn.targets.cpu()]


def label(target: Tensor, spec: DataSpec) -> str:
    """A target as text; a mixed one as its two largest shares."""
    if target.ndim == 0:
        return spec.classes[int(target)]
    shares, places = target.topk(min(2, len(target)))
    named = [
        f"{spec.classes[place]} {share:.0%}"
        for share, place in zip(shares.tolist(), places.tolist(), strict=True)
        if share > 0.005
    ]
    return " + ".join(named)
