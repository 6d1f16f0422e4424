"""The pictures of a run that need its items or its model: drawn once, when it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from toolkit.api.answers import NONE, SEPARATOR, number, percent
from toolkit.api.contracts import Augmentation, DataSpec, Pretraining
from toolkit.api.errors import DataError, counted
from toolkit.build.assemble import Assembly
from toolkit.data.loader import Loader, augment
from toolkit.data.store.resampling import centre_crop
from toolkit.runs.directory import RunDirectory
from toolkit.runs.evaluation import Evaluated
from toolkit.runs.predictions import Prediction
from toolkit.runs.report import draw_augmented, draw_feature_maps, draw_items, draw_maps, draw_worst_errors
from toolkit.runs.rows import ROWS, Row
from toolkit.training.explain import explain
from toolkit.training.sharded import is_sharded

SHOWN = 16
"""Pictures on a sheet, at most."""
RIGHT = 8
"""Right answers that are shown, at most: spread over the split, since the most confident ones would all be alike."""


def draw_pictures(
    directory: RunDirectory, assembly: Assembly, augmentations: Sequence[Augmentation], evaluated: Evaluated
) -> dict[str, Any]:
    """Sheets of augmented training items, of the worst errors, and of feature maps for the first scored image; what
    `draw_examples` draws. What it returns belongs to the run's facts."""
    draw_augmented(directory.figures, *augmented_sheet(assembly, augmentations))
    if evaluated.split is None:
        return {}
    places = evaluated.answers[evaluated.split].index.tolist()
    shown = assembly.loaders()[evaluated.split]
    if assembly.spec.frames is None and not is_sharded(assembly.network):
        picture = centre_crop(shown.at(places[:1]).pixels, assembly.spec.size)
        normalised = assembly.network.normalize(picture)
        draw_feature_maps(directory.figures, assembly.network.model, picture[0].cpu(), normalised)
    return draw_examples(directory, assembly, shown, evaluated.rows, places)


def draw_examples(
    directory: RunDirectory, assembly: Assembly, shown: Loader, rows: Sequence[Row], places: Sequence[int]
) -> dict[str, Any]:
    """Pictures of the worst errors and of some right answers, and maps of where these answers come from; a sheet of the
    worst errors. `places` has the position of each row in the split that `shown` loads. Returns what facts.json says of
    the maps: None if the model has none. Raises DataError if an item can no longer be read."""
    form = ROWS[assembly.spec.targets]
    wrong = form.worst(rows, SHOWN)
    chosen = [*wrong, *_spread(form.right(rows), RIGHT)]
    if not chosen:
        return {}
    pixels = shown.at([places[at] for at in chosen]).pixels
    if len(pixels) < len(chosen):
        raise DataError(
            f"{counted(len(chosen) - len(pixels), 'item')} with pictures can no longer be read",
            next_step="restore the files of the dataset",
        )
    pictures = pixels.cpu()
    draw_items(directory.figures, pictures, chosen)
    draw_worst_errors(directory.figures, pictures[: len(wrong)], [rows[at] for at in wrong])
    if is_sharded(assembly.network) or isinstance(assembly.objective, Pretraining):
        return {}
    classes = answered_classes([rows[at] for at in chosen], assembly.spec)
    maps = explain(assembly.network, assembly.objective, centre_crop(pixels, assembly.spec.size), classes)
    if maps is None:
        draw_maps(directory.figures, pictures[:0], pictures[:0], [])
        return {"maps": None}
    draw_maps(directory.figures, pictures, maps.values, chosen)
    return {"maps": {"method": maps.method, "layer": maps.layer, "clips": assembly.spec.frames is not None}}


def answered_classes(rows: Sequence[Row], spec: DataSpec) -> list[int] | None:
    """The class that each row answers; None, for the likeliest, if answers are sets. Of numbers the first one."""
    if spec.targets == "number":
        return [0] * len(rows)
    if spec.targets == "set":
        return None
    numbers = {name: number for number, name in enumerate(spec.classes)}
    return [numbers[row.prediction] for row in rows if isinstance(row, Prediction)]


def _spread(places: Sequence[int], limit: int) -> list[int]:
    """At most `limit` of the places, evenly spaced."""
    count = min(limit, len(places))
    return [places[at * len(places) // count] for at in range(count)]


def augmented_sheet(assembly: Assembly, augmentations: Sequence[Augmentation]) -> tuple[Tensor, Tensor, list[str]]:
    """N training items as stored and as the model sees them in the first epoch, uint8 `[N, 3, H, W]` or
    `[N, T, 3, H, W]` on the CPU, with their labels."""
    count = min(SHOWN, len(assembly.train.store))
    places = torch.linspace(0, len(assembly.train.store) - 1, count).long().tolist()
    batch = assembly.train.at(places)
    drawn = augment(batch, augmentations, assembly.device, seed=assembly.recipe.seed, epoch=0)
    after = centre_crop(drawn.pixels, assembly.spec.size).cpu()
    return batch.pixels.cpu(), after, [label(target, assembly.spec) for target in drawn.targets.cpu()]


def label(target: Tensor, spec: DataSpec) -> str:
    """A target, int64 `[]` or float32 `[C]`, as text; a mixed one as its two largest shares, or where targets are sets,
    as the share of each class that is not wholly there; numbers as they are."""
    if target.ndim == 0:
        return spec.classes[int(target)]
    if spec.targets == "number":
        names = spec.classes if len(spec.classes) > 1 else ("",)
        return ", ".join(f"{name} {number(value)}".strip() for name, value in zip(names, target.tolist(), strict=True))
    if spec.targets == "set":
        pairs = zip(spec.classes, target.tolist(), strict=True)
        texts = [name if share > 0.995 else f"{name} {percent(share, 0)}" for name, share in pairs if share > 0.005]
        return SEPARATOR.join(texts) or NONE
    shares, places = target.topk(min(2, len(target)))
    named = [
        f"{spec.classes[place]} {percent(share, 0)}"
        for share, place in zip(shares.tolist(), places.tolist(), strict=True)
        if share > 0.005
    ]
    return " + ".join(named)
