"""Features of all items by a model: what its last linear layer takes. Computed once, and kept in the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toolkit.api.contracts import Data, Noted, Split, VideoSplit
from toolkit.api.errors import Problem, UsageError
from toolkit.api.files import cache_directory, replaced
from toolkit.build.plan import Plan, plan
from toolkit.data.splits import SPLITS
from toolkit.data.videos import FramesOf
from toolkit.host.registry import discover
from toolkit.recipe.draft import Draft
from toolkit.runs.directory import RunDirectory, existing
from toolkit.runs.reopen import planned_again
from toolkit.system.randomness import seed_globally

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from toolkit.data.loader import Loader

BATCH = 128
"""Images of a batch."""
CLIPS = 4
"""Views of a batch of clips."""
VERSION = 1
"""Part of the key of kept features: raised when what they are changes."""


@dataclass(frozen=True, eq=False)
class Features:
    """What a model sees in N items."""

    values: NDArray[np.float32]
    """float32 `[N, D]`; NaN where an item cannot be decoded."""
    source: str
    """The model, and where its weights come from."""
    notes: tuple[str, ...] = ()

    @property
    def known(self) -> NDArray[np.bool_]:
        """bool `[N]`."""
        known = np.isfinite(self.values).all(axis=1)
        return np.asarray(known)


@dataclass(frozen=True, eq=False)
class Extractor:
    """A network with its weights, and the data as it sees it."""

    network: nn.Module
    data: Data
    plan: Plan
    source: str
    notes: tuple[str, ...]


def extractor(planned: Plan, model: str | None, weights: str | None) -> Extractor:
    """The network that gives features of the data of a plan.

    model: the name of a registered model; None: that of the recipe, or of the run
    weights: a run, whose model has to be the one named, or a file of weights; None: the published ones of the model

    Raises the errors of the components; UsageError where no weights would be loaded.
    """
    if weights is not None and not Path(weights).exists():
        raise UsageError(f"--weights: {weights}: no such run or file", next_step="name a run: runs/<recipe>/<time>")
    if weights is not None and RunDirectory(Path(weights)).recipe.is_file():
        return _of_run(planned, model, Path(weights))
    return _of_model(planned, model or planned.resolved.model.name, weights)


def _of_run(planned: Plan, model: str | None, path: Path) -> Extractor:
    from toolkit.training.checkpoint import BestCheckpoint
    from toolkit.training.network import Network

    run = existing(path)
    best = BestCheckpoint.load(run.best)
    theirs = planned_again(run, None, [])
    name = theirs.resolved.model.name
    if model not in (None, name):
        step = f"name that model (--model {name}), or remove --model"
        raise UsageError(f"{path}: a run of {name}, not of {model}", next_step=step)
    tables = {**theirs.resolved.tables(), "data": planned.resolved.tables()["data"]}
    tables["task"] = planned.resolved.tables()["task"]
    tables["input"] = {**tables["input"], **_as_seen(run)}
    replanned = _planned(planned, tables)
    data = replanned.data()
    spec = replace(data.spec, classes=tuple(best.origin.classes))
    network = Network(replanned.model(spec, initial_weights=False), spec)
    best.restore_network(network, run.best)
    return Extractor(network, data, replanned, f"{name} of {path}", ())


def _as_seen(run: RunDirectory) -> dict[str, Any]:
    """The part `input` of a recipe by which items look as they did to the run, whatever the data would choose; nothing
    where the run has no scores yet."""
    protocol = run.read_json(run.scores).get("protocol", {})
    return {key: protocol[key] for key in ("size", "stored", "fit") if key in protocol}


def _of_model(planned: Plan, model: str, weights: str | None) -> Extractor:
    import torch

    from toolkit.training.network import Network

    registry = discover()
    found = registry.find("model", model, "")
    if isinstance(found, Problem):
        raise UsageError(f"--model: {found}", next_step="python -m toolkit plugins list")
    if "weights" not in registry.signature(found).names:
        step = "train one and name its run: --weights RUN"
        raise UsageError(f"model {model}: takes no weights, so its features mean nothing", next_step=step)
    tables = planned.resolved.tables()
    known = tables["model"] if model == tables["model"]["name"] else {}
    tables["model"] = {**known, "name": model, **({"weights": weights} if weights else {})}
    if model != planned.resolved.model.name:
        tables.pop("clip", None)
    replanned = _planned(planned, tables)
    given = replanned.one("model").args.get("weights")
    if given in (None, "none"):
        step = "name a run or a file of weights: --weights RUN"
        raise UsageError(f"model {model}: has no weights, so its features mean nothing", next_step=step)
    data = replanned.data()
    # a new head is drawn, and has to be the same each time: features are kept by the weights
    seed_globally(torch.device("cpu"), planned.resolved.seed, "weights")
    built = replanned.model(data.spec)
    notes = tuple(built.notes) if isinstance(built, Noted) else ()
    return Extractor(Network(built, data.spec), data, replanned, f"{model} ({given})", notes)


def _planned(planned: Plan, tables: dict[str, Any]) -> Plan:
    """The plan of the tables of a recipe; problems are reported as of the recipe that is checked."""
    tables.pop("tune", None)
    recipe = planned.resolved.replace(tables)
    return plan(Draft(planned.source, recipe.tables(), (), recipe), discover())


def features(made: Extractor, *, progress: Callable[[int], None]) -> Features:
    """The features of all items, in the order of `Items`, from the cache where they are there. What cannot be decoded
    has none."""
    file = cache_directory() / "features" / f"{_key(made)}.npy"
    if file.is_file():
        kept: NDArray[np.float16] = np.load(file)
        return Features(kept.astype(np.float32), made.source, made.notes)
    parts = [_of_split(made, getattr(made.data, split), progress) for split in SPLITS]
    width = max(1, *(part.shape[1] for part in parts))
    parts = [part if part.size else np.full((len(part), width), np.nan, np.float16) for part in parts]
    whole = np.concatenate(parts)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replaced(file) as temporary, temporary.open("wb") as opened:
        np.save(opened, whole)
    return Features(whole.astype(np.float32), made.source, made.notes)


def _key(made: Extractor) -> str:
    """Of the weights, of what the network sees, and of the content of the items."""
    import torch

    digest = hashlib.sha256(f"{VERSION}\0{made.data.spec}\0{made.plan.resolved.train.precision}".encode())
    for name, value in made.network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    for split in SPLITS:
        for key in getattr(made.data, split).keys:
            digest.update(key.encode() + b"\0")
    return digest.hexdigest()[:32]


def _of_split(made: Extractor, split: Split | VideoSplit, progress: Callable[[int], None]) -> NDArray[np.float16]:
    """float16 `[N, D]` of one split, D = 0 where nothing can be decoded; of single frames of videos, the means over
    each video."""
    import torch

    from toolkit.system import device as devices

    if not len(split):
        return np.empty((0, 0), np.float16)
    train = made.plan.resolved.train
    device = devices.choose_device(train.device)
    precision = devices.choose_precision(train.precision, device)
    network = made.network.to(device).eval()
    if made.data.spec.clip is None:
        network = network.to(memory_format=torch.channels_last)
    loader = _loader(made, split, device)
    found: NDArray[np.float16] = np.empty((len(split), 0), np.float16)
    size = CLIPS if made.data.spec.clip else BATCH
    with torch.inference_mode(), last_input(network) as last:
        for batch in loader.evaluation(size):
            if not len(batch.index):
                continue
            with devices.autocast(device, precision):
                logits = network(batch.pixels)
            taken = last[-1] if last else logits
            values = taken.float().reshape(len(batch.index), -1, taken.shape[-1]).mean(dim=1)
            if not found.size:
                found = np.full((len(split), values.shape[1]), np.nan, np.float16)
            # the largest numbers of float16, rather than infinity
            found[batch.index.numpy()] = values.clamp(-6e4, 6e4).cpu().numpy()
            last.clear()
            progress(int(batch.index[-1]) + 1)
    return _by_video(found, split) if isinstance(split, FramesOf) else found


def _by_video(found: NDArray[np.float16], split: FramesOf) -> NDArray[np.float16]:
    frames = found.astype(np.float32).reshape(len(split.videos), split.per_video, found.shape[1])
    means: NDArray[np.float16] = frames.mean(axis=1).astype(np.float16)
    return means


def _loader(made: Extractor, split: Split | VideoSplit, device: torch.device) -> Loader:
    """Batches of a split, of which nothing is kept in memory; what cannot be decoded is skipped, however much it is."""
    import torch

    from toolkit.data.loader import Loader
    from toolkit.data.store.clips import ClipStore, VideoCache
    from toolkit.data.store.corrupt import Corrupt
    from toolkit.data.store.images import ImageStore

    table, spec = made.plan.resolved.input, made.data.spec
    workers = table.workers or torch.get_num_threads()
    corrupt = Corrupt(skip=True, limit=1.0, damaged_share=table.damaged_share)
    if isinstance(split, VideoSplit):
        cache = VideoCache(cache_directory() / "videos", 0)
        return Loader(ClipStore(split, spec, cache, workers, corrupt, training=False), spec, device)
    return Loader(ImageStore(split, spec, None, workers, corrupt), spec, device)


@contextmanager
def last_input(network: nn.Module) -> Iterator[list[Tensor]]:
    """A list that holds, after each pass, what the linear layer took that ran last; nothing where no layer is one."""
    from torch import nn

    taken: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        taken[:] = [inputs[0]]

    hooks = [layer.register_forward_pre_hook(keep) for layer in network.modules() if isinstance(layer, nn.Linear)]
    try:
        yield taken
    finally:
        for hook in hooks:
            hook.remove()
