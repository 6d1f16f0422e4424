"""`explain RUN`: maps by the gradients of the trained model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from toolkit.api.contracts import DataSpec
from toolkit.api.errors import DataError, UsageError, printable
from toolkit.data.images import read_image
from toolkit.data.store.clips import ClipStore, middle_of
from toolkit.data.store.resampling import centre_crop, to_square
from toolkit.data.videos import FramesOf, VideoFiles
from toolkit.export.explaining import Explained, Explainer, Meaning
from toolkit.runs.reopen import Trained, open_answering
from toolkit.serving.predict.inputs import Source
from toolkit.system.machine import allowed_cores
from toolkit.training.answers import answers_of
from toolkit.training.explain import explain


def opened_run(run: Path, overrides: Sequence[str]) -> tuple[Meaning, Explainer]:
    """The best checkpoint of a run. Raises the errors of `open_answering`; explaining raises UsageError for a model
    without maps."""
    trained = open_answering(run, overrides)
    spec, thresholds = trained.assembly.spec, trained.assembly.objective.thresholds
    meaning = Meaning(
        classes=spec.classes,
        form=spec.targets,
        thresholds=None if thresholds is None else thresholds.tolist(),
        sample=spec.sample,
        clips=spec.clip is not None,
        fit=spec.fit,
        share=spec.size / spec.stored_size,
    )
    return meaning, partial(_explained, trained)


def _explained(trained: Trained, source: Source, chosen: int | None) -> Explained:
    assembly = trained.assembly
    whole, seen, moments = _read(source, assembly.spec)
    maps = explain(assembly.network, assembly.objective, seen.to(assembly.device), None if chosen is None else [chosen])
    if maps is None:
        raise UsageError(
            f"the model {assembly.recipe.model.name} has no map: no gradient of its answers reaches the pixels"
        )
    return Explained(
        picture=whole.movedim(-3, -1).numpy(),
        map=maps.values[0].numpy(),
        about=int(maps.classes[0]),
        row=answers_of(maps.logits, assembly.objective.targets)[0].tolist(),
        method=maps.method,
        moments=moments,
    )


def _read(source: Source, spec: DataSpec) -> tuple[Tensor, Tensor, Sequence[float]]:
    """The picture as it is, uint8 `[3, H, W]`, and what the model sees of it, `[1, 3, S, S]`; for a model of clips the
    one in the middle, `[T, 3, S, S]` and `[1, T, 3, S, S]`, and the second at which each frame is shown."""
    path = Path(source.place)
    if spec.clip is None:
        image = FramesOf(_single(path), 1).read(0) if source.kind == "video" else read_image(path)
        square = to_square(image, spec.stored_size, spec.fit)
        return image, centre_crop(square, spec.size)[None], ()
    if source.kind != "video":
        raise DataError(f"{printable(source.name)}: an image, but this model takes video clips")
    store = ClipStore(_single(path), spec, None, len(allowed_cores()), training=False)
    times = store.split.times(0)
    (view,) = middle_of(spec.clip, times)
    clip, _ = store.fetch(torch.tensor([0]))
    seen = centre_crop(clip, spec.size)
    return seen[0], seen, [times[at] - times[0] for at in view.frames]


def _single(path: Path) -> VideoFiles:
    return VideoFiles((str(path),), (0,), (str(path),), (path,))
