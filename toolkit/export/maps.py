"""Heat maps that a graph gives without gradients: those of Grad-CAM where its weights are the same for every input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from toolkit.api.errors import ParityError, UsageError
from toolkit.build.assemble import Assembly
from toolkit.data.store.resampling import centre_crop
from toolkit.export.gate import Reference
from toolkit.serving.bundle import Bundle
from toolkit.training.explain import LinearMap, explain, linear_map

ITEMS = 8
"""Validation items whose maps are compared."""
LIMITS: Mapping[str, float] = {"fp32": 1e-3, "fp16": 0.02, "int8": 0.15}
"""By precision, the largest mean difference of a map whose values are from 0 to 1. Integers change features, which the
gate judges by their answers; a map that is as far off shows other places."""


def found_map(assembly: Assembly) -> LinearMap:
    """How the graph makes maps. Raises UsageError for a network of which no graph can."""
    spec = assembly.spec
    one = torch.zeros((1, *spec.item_shape), dtype=torch.uint8, device=assembly.device)
    found = linear_map(assembly.network, assembly.objective, one)
    if found is None:
        raise UsageError(
            f"export.maps: the model {assembly.recipe.model.name} cannot give heat maps without gradients: more than "
            "means and linear layers follow its last feature maps, or it has none",
            next_step="remove export.maps, and explain the run itself: python -m toolkit explain RUN INPUT",
        )
    return found


def check_maps(bundle: Bundle, expected: Reference) -> dict[str, Any]:
    """Compare the maps of a bundle with those that `explain` makes of the trained model; what bundle.json says of it.
    Raises ParityError where they differ."""
    assembly = expected.assembly
    index = expected.evaluation.index
    items = index[np.linspace(0, len(index) - 1, min(ITEMS, len(index))).astype(int)].tolist()
    squares = expected.squares(items)[: len(items)]
    seen = centre_crop(torch.from_numpy(squares).movedim(-1, -3), assembly.spec.size)
    trained = explain(assembly.network, assembly.objective, seen.to(assembly.device))
    if trained is None:
        raise AssertionError("a network with linear maps has gradients")
    given = torch.from_numpy(bundle.session.maps(squares))
    ours = given[torch.arange(len(items)), trained.classes][:, None]
    mode = "bilinear" if ours.ndim == 4 else "trilinear"
    resized = functional.interpolate(ours, size=trained.values.shape[1:], mode=mode)[:, 0]
    resized = resized.relu()
    largest = resized.flatten(1).amax(1).clamp_min(1e-12)
    scaled = resized / largest.view(-1, *[1] * (resized.ndim - 1))
    difference = float((scaled - trained.values).abs().flatten(1).mean(1).max())
    limit = LIMITS[bundle.precision]
    if not difference <= limit:
        raise ParityError(
            f"{bundle.precision}: heat maps of the exported model differ from those of the trained one by "
            f"{difference:.2g} on average; the limit is {limit:g}",
            next_step="remove export.maps, or use another precision: --set export.precision=fp32",
        )
    return {"items": len(items), "mean_difference": difference}
