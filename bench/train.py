"""Whole epochs of a recipe against the bare step.

Ours is the loop of `python -m toolkit run`: batches fetched and augmented, the step with its checks, losses, the live
progress line, validation with its metrics, records and checkpoints, the disk's sync included; from the second epoch
on, so that every image is decoded. The bare side has the same network, optimizer, precision, batch size and number of
steps on synthetic uint8 batches that lie on the device, and the forward pass over as many validation items.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional

from bench.data import Options
from bench.pairs import Effort, Figure, compare
from toolkit.api.contracts import Data, DataSpec, Split, VideoSplit
from toolkit.build.assemble import Assembly, assemble, training
from toolkit.build.plan import Plan, plan
from toolkit.data.images import ArrayItems, ImageFiles
from toolkit.data.videos import ArrayVideos, FramesOf, VideoFiles
from toolkit.host.offers import Offer
from toolkit.host.registry import discover
from toolkit.recipe.read import parse
from toolkit.runs.directory import create
from toolkit.runs.loop import Saving, Session, Trackers, train
from toolkit.system.signals import Signals

PAIRS = 5
TARGET = 0.95
RECIPES = Path(__file__).parents[1] / "recipes"
ENDLESS = "train.epochs=1000000"
"""A run ends when enough of its epochs were timed."""


@dataclass(frozen=True)
class Case:
    name: str
    recipe: str
    overrides: Sequence[str]
    root: Callable[[Options], Path | None]
    seconds: float
    """How long a bare epoch is to take at most. Real ones are longer, and so easier on what an epoch costs once."""


CASES = (
    Case(
        "cifar10_cnn",
        "cifar10_cnn",
        ("data.valid_share=0.1", "data.sample_images=1200"),
        Options.cifar10,
        seconds=8,
    ),
    Case(
        "har_resnet18_64px",
        "har_resnet50",
        ("model.name=resnet18", "model.weights=none", "input.size=64", "input.stored=72"),
        Options.har,
        seconds=20,
    ),
)


def figures(options: Options) -> Iterator[Figure]:
    for case in CASES:
        root = case.root(options)
        overrides = [*case.overrides, ENDLESS, *([f"data.root={root}"] if root else [])]
        planned = plan(parse(RECIPES / f"{case.recipe}.toml", overrides), discover())
        yield compared(f"train/{case.name}", planned, options.effort(PAIRS), TARGET, seconds=case.seconds)


def compared(name: str, planned: Plan, effort: Effort, target: float, *, seconds: float) -> Figure:
    """Whole epochs against the bare step, on as many items as make an epoch of about `seconds`."""
    assembly = assemble(limited(planned, affordable_items(planned, seconds)))
    bare = BareEpoch(replace(assembly, network=copy.deepcopy(assembly.network)))
    with tempfile.TemporaryDirectory() as folder, whole_epochs(assembly, Path(folder)) as whole_epoch:
        whole_epoch()
        bare()
        paired = compare(partial(timed, whole_epoch), partial(timed, bare), effort, target)
    facts = [f"epoch={median(paired.ours):.3g}s", f"items={len(assembly.train.store)}"]
    return Figure(name, paired, target, (*facts, *(["data=sample"] if assembly.spec.sample else [])))


def affordable_items(planned: Plan, seconds: float) -> int:
    """How many training items make an epoch of `seconds` on this machine, from the time of two steps."""
    batch = planned.resolved.train.batch_size
    bare = BareEpoch(assemble(limited(planned, 2 * batch)))
    bare()
    return batch * max(2, round(2 * seconds / timed(bare)))


def limited(planned: Plan, items: int) -> Plan:
    """A plan whose dataset hands out at most `items` training items, and an eighth as many for validation."""
    return with_data(
        planned,
        lambda data: replace(data, train=spread(data.train, items), valid=spread(data.valid, items // 8)),
    )


def with_data(planned: Plan, change: Callable[[Data], Data]) -> Plan:
    """A plan whose dataset hands out what `change` makes of its data."""
    dataset = planned.one("dataset")

    def changed(root: Path | None, **arguments: Any) -> Data:
        return change(dataset.factory(root, **arguments))

    offer = Offer(dataset.kind, dataset.offer.name, dataset.offer.plugin, changed)
    chosen = tuple(replace(one, offer=offer) if one is dataset else one for one in planned.chosen)
    return replace(planned, chosen=chosen)


def spread(split: Split | VideoSplit, count: int) -> Split | VideoSplit:
    """`count` evenly spaced items of a split of ours, of frames as many as whole videos give; all of them where it has
    fewer."""
    if isinstance(split, FramesOf):
        videos = spread(split.videos, max(count // split.per_video, 1))
        assert isinstance(videos, VideoSplit)
        return replace(split, videos=videos)
    assert isinstance(split, (ArrayItems, ArrayVideos, ImageFiles, VideoFiles))
    count = min(count, len(split))
    return split.select([place * len(split) // count for place in range(count)])


@contextmanager
def whole_epochs(assembly: Assembly, folder: Path) -> Iterator[Callable[[], object]]:
    """Gives a function that trains the next epoch as a run does, in a run directory below `folder`."""
    state, setup = training(assembly)
    directory = create(folder, assembly.recipe.name)
    saving = Saving(directory, assembly.origin(), assembly.recipe.train.checkpoint_minutes)
    with ExitStack() as stack:
        log = stack.enter_context((folder / "screen.log").open("w"))
        console = Console(file=log, force_terminal=True, width=120)
        session = Session(saving, Trackers([], console), console, stack.enter_context(Signals()))
        epochs = train(state, setup, session, patience=None)
        stack.callback(epochs.close)
        yield partial(next, epochs)


class BareEpoch:
    """The arithmetic of an epoch and nothing else. Pixels are noise, so that no value is special."""

    def __init__(self, assembly: Assembly) -> None:
        state, setup = training(assembly)
        self._state, self._setup = state, setup
        self._label_smoothing = assembly.recipe.task.args["label_smoothing"]
        for group in state.optimizer.param_groups:
            group["lr"] = group["base_lr"] * state.schedule.factor(0)
        rng = torch.Generator().manual_seed(0)
        noise = partial(_noise, assembly.spec, rng, assembly.device)
        self._train = [noise(setup.batch) for _ in range(setup.steps)]
        self._valid = [noise(len(part)) for part in torch.arange(len(setup.valid.store)).split(setup.eval_batch)]

    def __call__(self) -> None:
        network = self._state.network
        network.train()
        for pixels, targets in self._train:
            self._step(pixels, targets)
        network.eval()
        with torch.inference_mode(), self._setup.autocast():
            for pixels, _ in self._valid:
                network(pixels)

    def _step(self, pixels: Tensor, targets: Tensor) -> None:
        self._state.optimizer.zero_grad(set_to_none=True)
        with self._setup.autocast():
            logits = self._state.network(pixels)
        functional.cross_entropy(logits.float(), targets, label_smoothing=self._label_smoothing).backward()
        self._state.optimizer.step()


def _noise(spec: DataSpec, rng: torch.Generator, device: torch.device, count: int) -> tuple[Tensor, Tensor]:
    """uint8 pixels `[count, ..., 3, size, size]`, laid out as the loader gives them, and int64 targets."""
    shape = (count, *([spec.frames] if spec.frames else []), spec.size, spec.size, 3)
    pixels = torch.randint(0, 256, shape, generator=rng, dtype=torch.uint8)
    targets = torch.randint(0, len(spec.classes), (count,), generator=rng)
    return pixels.movedim(-1, -3).to(device), targets.to(device)


def timed(work: Callable[[], object]) -> float:
    """Seconds until the work is done, the device's part of it included."""
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started
