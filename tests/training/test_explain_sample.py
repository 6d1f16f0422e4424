"""Maps of a network that was trained on the sample of objects, whose places are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import Delaunay

from toolkit.api.errors import EXIT_DONE
from toolkit.cli.main import main
from toolkit.data.store.resampling import centre_crop
from toolkit.runs.reopen import open_trained
from toolkit.training.explain import explain
from toolkit_cifar.sample import KINDS, SIZE, _covers

BATCH = 50
PIXELS = np.argwhere(np.ones((SIZE, SIZE), bool))


@pytest.mark.long  # trains for a minute
def test_the_peaks_of_maps_lie_on_the_objects(tmp_path: Path) -> None:
    """Of right answers, within the convex hull of the object's shape: the middle of a ring is part of the ring."""
    assert main(["run", "cifar10_cnn", "--runs", str(tmp_path)]) == EXIT_DONE
    (run,) = (tmp_path / "cifar10_cnn").glob("2*")
    assembly = open_trained(run, ()).assembly
    shown = assembly.loaders()["test"]
    split = shown.store.split
    each = len(split.ids) // len(KINDS)
    drawn = [_covers(name, np.random.default_rng((place, *b"test")), each) for place, name in enumerate(KINDS)]
    shapes = np.concatenate(drawn) > 0.5
    hits, sizes = [], []
    for start in range(0, len(split.ids), BATCH):
        places = range(start, min(start + BATCH, len(split.ids)))
        maps = explain(
            assembly.network, assembly.objective, centre_crop(shown.at(list(places)).pixels, assembly.spec.size)
        )
        assert maps
        for place, values, answer in zip(places, maps.values, maps.classes, strict=True):
            if int(answer) == split.targets[place]:
                hull = Delaunay(np.argwhere(shapes[place])).find_simplex(PIXELS) >= 0
                hits.append(hull[int(values.argmax())])
                sizes.append(hull.mean())
    assert len(hits) > 400
    assert np.mean(hits) >= 0.8
    assert np.mean(sizes) < 0.3  # so often a place that is drawn would lie on it
