"""Clips ready to be augmented, ours against PyTorchVideo's LabeledVideoDataset, and training from kept videos.

Both sides of `clips/loader` read the same files by the same rule, one random clip of 13 frames over 2.6 seconds of each
video, bring its short side to 182 px and cut a random square. Their transforms do not import on current torchvision, so
theirs is given functions of ours that do the same on their tensors. Ratios are of CPU seconds, all threads counted.
Epoch one starts from the list of files. Later ones find every frame kept on our side. Theirs computes with one thread,
as a worker of a DataLoader does: with more their CPU seconds rise two to four times.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bench.data import Options
from bench.pairs import Effort, Figure, compare, unwatched
from bench.train import ENDLESS, compared
from toolkit.api.clips import Clip
from toolkit.api.contracts import DataSpec
from toolkit.api.errors import DataError
from toolkit.build.plan import plan
from toolkit.data.loader import Loader
from toolkit.data.store.clips import ClipStore, VideoCache
from toolkit.data.videos import VideoFiles
from toolkit.host.registry import discover
from toolkit.recipe.read import parse
from toolkit.system.device import keep_freed_memory

PAIRS = 5
BATCH = 8
SIDE = 182
CLIP = Clip(frames=13, rate=6)
EPOCHS_KEPT = 20
"""Epochs of one timing where all is kept: one alone is too short to time."""
FIRST, LATER, TRAIN = 3.0, 20.0, 0.9
RECIPE = Path(__file__).parents[1] / "recipes" / "har_x3d_s.toml"


def figures(options: Options) -> Iterator[Figure]:
    torch.set_num_threads(2)
    keep_freed_memory()
    effort = options.effort(PAIRS)
    yield from compared_loaders(_files(options), effort)
    yield _training(options, effort)


def _files(options: Options) -> VideoFiles:
    root = options.folder("ucf101-fixture")
    paths = sorted(root.rglob("*.avi")) if root else []
    if not paths:
        raise DataError(
            "bench clips measures on real videos and was given none",
            next_step="name the folder that holds ucf101-fixture: python -m bench clips --data DIR",
        )
    return video_files(paths)


def video_files(paths: Sequence[Path]) -> VideoFiles:
    """A split of these files, whose label plays no part."""
    ids = tuple(path.name for path in paths)
    return VideoFiles(ids, (0,) * len(ids), ids, tuple(paths))


def compared_loaders(files: VideoFiles, effort: Effort) -> Iterator[Figure]:
    """The first epoch and the later ones."""
    facts = (f"videos={len(files)}",)
    _first_epoch(files)  # decoders are imported once
    Theirs(files).epoch()
    sides = partial(_first_epoch, files), partial(_cpu_seconds, Theirs(files).epoch)
    first = compare(*sides, effort, FIRST, watch=unwatched)
    yield Figure("clips/loader/epoch_1", first, FIRST, facts)
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Ours(files, Path(folder)), Theirs(files)
        for _ in range(2):
            ours.epoch()
        sides = partial(_several, ours.epoch, EPOCHS_KEPT), partial(_several, theirs.epoch, 1)
        later = compare(*sides, effort, LATER, watch=unwatched)
        yield Figure("clips/loader/epoch_2+", later, LATER, facts)


def _training(options: Options, effort: Effort) -> Figure:
    root = options.folder("arid-dark")
    if root is None:
        raise DataError(
            "bench clips trains on real videos and was given none",
            next_step="name the folder that holds arid-dark: python -m bench clips --data DIR",
        )
    overrides = (
        "model.name=x3d_xs",
        "model.weights=none",
        f"data.root={root}",
        ENDLESS,
        "train.batch=8",
    )
    return compared("clips/train/x3d_xs", plan(parse(RECIPE, overrides), discover()), effort, TRAIN, seconds=20)


class Ours:
    def __init__(self, files: VideoFiles, folder: Path) -> None:
        spec = DataSpec(("action",), size=SIDE, clip=CLIP)
        footage = ClipStore(files, spec, VideoCache(folder, 2**33), workers=2)
        self._loader = Loader(footage, spec, torch.device("cpu"))
        self._epochs = count()

    def epoch(self) -> None:
        for _ in self._loader.training(BATCH, [], seed=0, epoch=next(self._epochs), start=0):
            pass


class Theirs:
    def __init__(self, files: VideoFiles) -> None:
        from pytorchvideo.data import LabeledVideoDataset, make_clip_sampler

        self._open: Callable[[], Any] = partial(
            LabeledVideoDataset,
            [(str(path), {"label": 0}) for path in files.paths],
            make_clip_sampler("random", CLIP.span),
            video_sampler=torch.utils.data.RandomSampler,
            transform=_their_transform,
            decode_audio=False,
        )

    def epoch(self) -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        for _ in torch.utils.data.DataLoader(self._open(), batch_size=BATCH):
            pass
        torch.set_num_threads(threads)


def _their_transform(item: dict[str, Any]) -> dict[str, Any]:
    return {"video": _cut(_short_side(_subsampled(item["video"]))), "label": item["label"]}


def _subsampled(video: Tensor) -> Tensor:
    """float `[3, T, H, W]` of the evenly spaced frames."""
    return video[:, torch.linspace(0, video.shape[1] - 1, CLIP.frames).long()]


def _short_side(video: Tensor) -> Tensor:
    height, width = video.shape[-2:]
    sides = (round(height * SIDE / min(height, width)), round(width * SIDE / min(height, width)))
    return functional.interpolate(video, size=sides, mode="bilinear")


def _cut(video: Tensor) -> Tensor:
    top, left = (int(torch.randint(0, extent - SIDE + 1, ())) for extent in video.shape[-2:])
    return video[..., top : top + SIDE, left : left + SIDE].contiguous()


def _first_epoch(files: VideoFiles) -> float:
    fresh = replace(files, keys=tuple(f"{key} {time.monotonic_ns()}" for key in files.keys))
    with tempfile.TemporaryDirectory() as folder:
        return _cpu_seconds(Ours(fresh, Path(folder)).epoch)


def _several(epoch: Callable[[], None], times: int) -> float:
    """CPU seconds of one of `times` epochs."""
    return sum(_cpu_seconds(epoch) for _ in range(times)) / times


def _cpu_seconds(work: Callable[[], None]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started
