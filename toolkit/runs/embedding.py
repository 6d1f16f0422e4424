"""A map of the items of a split, in `embedding.csv`: items that look alike to the model lie near each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from toolkit.api.files import csv_text
from toolkit.runs.directory import RunDirectory

if TYPE_CHECKING:
    from toolkit.build.assemble import Assembly
    from toolkit.data.loader import Loader

COLUMNS = ("id", "x", "y")
MOST = 600
"""Items on a map, evenly spaced: more take long, and hide each other."""
FEWEST = 10
"""Items that make a map."""
IMAGES, CLIPS = 32, 4
"""Items of a batch."""


class Point(NamedTuple):
    """Where an item lies, 0..1."""

    x: float
    y: float


def draw_embedding(
    directory: RunDirectory, assembly: Assembly, shown: Loader, ids: Sequence[str], places: Sequence[int]
) -> None:
    """Write embedding.csv of at most `MOST` of the items with these `ids`, at these `places` of the split that `shown`
    loads; nothing of fewer than `FEWEST`.

    Source: van der Maaten and Hinton, "Visualizing data using t-SNE", JMLR 9, 2008, of what the model's last linear
    layer takes.
    """
    step = max(math.ceil(len(ids) / MOST), 1)
    chosen = range(0, len(ids), step)
    if len(chosen) < FEWEST:
        directory.remove(directory.embedding)
        return
    points = _mapped(assembly, shown, [places[at] for at in chosen])
    rows = [(ids[at], f"{point.x:.4f}", f"{point.y:.4f}") for at, point in zip(chosen, points, strict=True)]
    directory.write_text(directory.embedding, csv_text([COLUMNS, *rows]))


def read_embedding(directory: RunDirectory) -> Mapping[str, Point]:
    """Where items lie, by id; empty where there is no such file. Raises DataError where it is damaged."""
    read = directory.read_rows(directory.embedding, lambda row: (row["id"], Point(float(row["x"]), float(row["y"]))))
    return dict(read)


def _mapped(assembly: Assembly, shown: Loader, places: Sequence[int]) -> list[Point]:
    """A point for each item; of a video its middle clip is seen."""
    import numpy as np
    import torch
    from sklearn.manifold import TSNE

    from toolkit.data.store.resampling import centre_crop
    from toolkit.runs.data_check.features import last_input

    network, size = assembly.network.eval(), IMAGES if assembly.spec.clip is None else CLIPS
    found = []
    with torch.inference_mode(), last_input(network) as last, assembly.autocast():
        for start in range(0, len(places), size):
            pixels = centre_crop(shown.at(places[start : start + size]).pixels, assembly.spec.size)
            logits = network(pixels)
            taken = last[-1] if last else logits
            found.append(taken.float().reshape(len(pixels), -1, taken.shape[-1]).mean(1).cpu())
    features = torch.cat(found).numpy()
    perplexity = min(30.0, (len(features) - 1) / 3)
    drawn = TSNE(init="pca", perplexity=perplexity, random_state=0).fit_transform(features.astype(np.float64))
    low, high = drawn.min(0), drawn.max(0)
    scaled = (drawn - low) / np.maximum(high - low, np.finfo(np.float32).tiny)
    return [Point(float(x), float(y)) for x, y in scaled]
