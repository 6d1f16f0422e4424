"""A run of this toolkit as starting weights: what its checkpoints hold, as far as another model starts from it.

`toolkit.training.checkpoint` writes these files. Models are built before training, so this room reads them itself.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.api.errors import WeightsError
from toolkit.api.files import read_regular
from toolkit.system.checkpoints import BEST, FORMAT, LAST, is_current, is_whole, run_of_bundle
from toolkit.transfer.classifier import Classifier
from toolkit.transfer.files import state_dict_of
from toolkit.transfer.weights import INTERPOLATED, Known, Weights, load_weights

_MANIFEST = "bundle.json"  # of `toolkit.serving`, a later room
_PUBLISHED = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
_MODEL = "model."
_BACKBONE, _HEAD = "backbone.", "head."


@dataclass(frozen=True)
class TrainedRun:
    """The model of a run: its weights under the names of a `Classifier`, and what it was trained for."""

    path: Path
    """The checkpoint."""
    weights: Weights
    classes: Sequence[str]
    model: str
    """Its name in the run's recipe."""
    answers: bool = True
    """Whether its head was trained."""

    def load_into(self, model: Classifier, name: str, classes: Sequence[str], known: Known) -> str:
        """Copy the weights into `model`, which is called `name` and knows `classes`: the head as well where it answers
        the same question. Returns a note on what was taken.

        Raises WeightsError where the backbone does not fit; the model is then unchanged.
        """
        given = {key: value.shape for key, value in self.weights.items() if key.startswith(_HEAD)}
        wanted = {key: value.shape for key, value in model.state_dict().items() if key.startswith(_HEAD)}
        reason = ""
        if not self.answers:
            reason = "the run has learned features alone"
        elif list(classes) != list(self.classes):
            reason = f"the run knows {_named(self.classes)}, the data has {_named(classes)}"
        elif given != wanted:
            reason = "it has another shape"
        ignore = (_HEAD,) if reason else ()
        try:
            changes = load_weights(model, self.weights, ignore=ignore, source=f"{self.path} for {name}", known=known)
        except WeightsError as error:
            if self.model != name:
                error.next_step = f"take the model of that run (--set model.name={self.model}), or another run"
            raise
        head = f"the head starts at random weights: {reason}" if reason else "the head as well"
        interpolated = [change for change in changes if change.startswith(INTERPOLATED)]
        return "; ".join([f"starting from the weights of {self.path}", *interpolated, head])


def weights_at(path: Path) -> Path:
    """The weights file in the folder at `path`: the best checkpoint of a run, or of the run that a bundle was exported
    from, or the file of a model of Hugging Face. Any other path as it is."""
    if not path.is_dir():
        return path
    folder = path.resolve() if path.is_symlink() else path
    if (folder / _MANIFEST).is_file():
        folder = _source_of(folder)
    found = [folder / name for name in (BEST, LAST, *_PUBLISHED) if (folder / name).is_file()]
    if not found:
        raise WeightsError(
            f"{path}: a folder without {BEST}, so it is not a run that has weights",
            next_step="name a run directory, runs/<recipe>/<time>, or a weights file",
        )
    return found[0]


def trained_run(content: Any, path: Path) -> TrainedRun | None:
    """The run whose checkpoint has this content; None where it is another file. Raises WeightsError for a checkpoint
    of another format, a damaged one, and that of a model from which no other can start."""
    if not isinstance(content, Mapping) or not {"format", "origin"} <= content.keys():
        return None
    if not is_current(content["format"]):
        raise WeightsError(
            f"{path}: a checkpoint of format {content['format']}, this version reads format {FORMAT}",
            next_step="train that run again with this version, or name another",
        )
    with path.open("rb") as file:
        if not is_whole(file):
            raise _damaged(path, "it has no checksum")
    network, classes, model = _parts(content, path)
    weights = {key.removeprefix(_MODEL): value for key, value in network.items()}
    if not any(key.startswith(_BACKBONE) for key in weights):
        raise WeightsError(
            f'{path}: its model "{model}" has no backbone, so no other model can start from it',
            next_step="name a run of a model that takes weights, or use --set model.weights=none",
        )
    return TrainedRun(path, weights, classes, model, answers=bool(content["origin"].get("answers", True)))


def _parts(content: Mapping[str, Any], path: Path) -> tuple[Weights, list[str], str]:
    """The network, the classes and the name of the model, each of the type that a checkpoint has there."""
    try:
        origin, state = content["origin"], content.get("state") or {}
        network = state_dict_of(content.get("network") or state.get("average") or state["network"], path)
        classes, model = origin["classes"], tomllib.loads(origin["recipe"])["model"]["name"]
        if isinstance(model, str) and isinstance(classes, list) and all(isinstance(one, str) for one in classes):
            return network, classes, model
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _damaged(path, f"unexpected content ({type(error).__name__})") from error
    raise _damaged(path, "unexpected content")


def _source_of(bundle: Path) -> Path:
    """The directory of the run that a bundle was exported from: see `run_of_bundle`."""
    try:
        manifest = json.loads(read_regular(bundle / _MANIFEST))
        name, run = str(manifest["name"]), str(manifest["trained_on"]["run"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{bundle}: its {_MANIFEST} names no run", next_step="name the run itself") from error
    if found := run_of_bundle(bundle, name, run):
        return found
    raise WeightsError(
        f"{bundle}: a bundle has no weights to train from, and its run {run} was not found below runs/",
        next_step="name the directory of that run: --set model.weights=RUN",
    )


def _damaged(path: Path, reason: str) -> WeightsError:
    return WeightsError(f"{path}: a damaged checkpoint: {reason}", next_step="name another run or another checkpoint")


def _named(classes: Sequence[str]) -> str:
    few = ", ".join(classes[:3])
    return f"{len(classes)} classes ({few}{', …' if len(classes) > 3 else ''})"
