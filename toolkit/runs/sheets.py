"""The pictures of a run that need its items or its model: drawn once, when it is trained."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from toolkit.api.answers import NONE, SEPARATOR, number
from toolkit.api.contracts import Augmentation, DataSpec
from toolkit.build.assemble import Assembly
from toolkit.data.loader import augment
from toolkit.data.store.resampling import centre_crop
from toolkit.runs.directory import RunDirectory
from toolkit.runs.evaluation import Evaluated
from toolkit.runs.report import draw_augmented, draw_feature_maps, draw_items, draw_worst_errors
from toolkit.runs.rows import ROWS
from toolkit.training.sharded import is_sharded

SHOWN = 16
"""Pictures on a sheet, at most."""
RIGHT = 8
"""Right answers that are shown, at most: spread over the split, since the most confident ones would all be alike."""


def draw_pictures(
    directory: RunDirectory, assembly: Assembly, augmentations: Sequence[Augmentation], evaluated: Evaluated
) -> None:
    """Sheets of augmented training items, of the worst errors, and of feature maps for the first scored image; single
    pictures of the worst errors and of some right answers."""
    draw_augmented(directory.figures, *augmented_sheet(assembly, augmentations))
    if evaluated.split is None:
        return
    places = evaluated.answers[evaluated.split].index.tolist()
    shown = assembly.loaders()[evaluated.split]
    rows = evaluated.rows
    wrong = ROWS[assembly.spec.targets].worst(rows, SHOWN)
    right = _spread(ROWS[assembly.spec.targets].right(rows), RIGHT)
    pictures = shown.at([places[at] for at in (*wrong, *right)]).pixels.cpu()
    draw_items(directory.figures, pictures, [*wrong, *right])
    draw_worst_errors(directory.figures, pictures[: len(wrong)], [rows[at] for at in wrong])
    if assembly.spec.frames is None and not is_sharded(assembly.network):
        picture = centre_crop(shown.at(places[:1]).pixels, assembly.spec.size)
        normalised = assembly.network.normalize(picture)
        draw_feature_maps(directory.figures, assembly.network.model, picture[0].cpu(), normalised)


def _spread(places: Sequence[int], limit: int) -> list[int]:
    """At most `limit` of the places, evenly spaced."""
    count = min(limit, len(places))
    return [places[at * len(places) // count] for at in range(count)]


def augmented_sheet(assembly: Assembly, augmentations: Sequence[Augmentation]) -> tuple[Tensor, Tensor, list[str]]:
    """Training items as stored and as the model sees them in the first epoch, with their labels."""
    count = min(SHOWN, len(assembly.train.store))
    places = torch.linspace(0, len(assembly.train.store) - 1, count).long().tolist()
    batch = assembly.train.at(places)
    drawn = augment(batch, augmentations, assembly.device, seed=assembly.recipe.seed, epoch=0)
    after = centre_crop(drawn.pixels, assembly.spec.size).cpu()
    return batch.pixels.cpu(), after, [label(target, assembly.spec) for target in drawn.targets.cpu()]


def label(target: Tensor, spec: DataSpec) -> str:
    """A target as text; a mixed one as its two largest shares, or where targets are sets, as the share of each class
    that is not wholly there; numbers as they are."""
    if target.ndim == 0:
        return spec.classes[int(target)]
    if spec.targets == "number":
        names = spec.classes if len(spec.classes) > 1 else ("",)
        return ", ".join(f"{name} {number(value)}".strip() for name, value in zip(names, target.tolist(), strict=True))
    if spec.targets == "set":
        pairs = zip(spec.classes, target.tolist(), strict=True)
        texts = [name if share > 0.995 else f"{name} {share:.0%}" for name, share in pairs if share > 0.005]
        return SEPARATOR.join(texts) or NONE
    shares, places = target.topk(min(2, len(target)))
    named = [
        f"{spec.classes[place]} {share:.0%}"
        for share, place in zip(shares.tolist(), places.tolist(), strict=True)
        if share > 0.005
    ]
    return " + ".join(named)
