"""A run of this toolkit as starting weights: what its checkpoints hold, as far as another model starts from it.

`toolkit.training.checkpoint` writes these files. Models are built before training, so this room reads them itself.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.api.errors import WeightsError
from toolkit.system.checkpoints import BEST, FORMAT, LAST
from toolkit.transfer.classifier import Classifier
from toolkit.transfer.weights import Weights, load_weights

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

    def load_into(self, model: Classifier, name: str, classes: Sequence[str]) -> str:
        """Copy the weights into `model`, which is called `name` and knows `classes`: the head as well where it answers
        the same question. The note that says what was taken.

        Raises WeightsError where the backbone does not fit; the model is then unchanged.
        """
        given = {key: value.shape for key, value in self.weights.items() if key.startswith(_HEAD)}
        wanted = {key: value.shape for key, value in model.state_dict().items() if key.startswith(_HEAD)}
        reason = ""
        if list(classes) != list(self.classes):
            reason = f"the run knows {_named(self.classes)}, the data has {_named(classes)}"
        elif given != wanted:
            reason = "it has another shape"
        ignore = (_HEAD,) if reason else ()
        try:
            load_weights(model, self.weights, ignore=ignore, source=f"{self.path} for {name}")
        except WeightsError as error:
            if self.model != name:
                error.next_step = f"take the model of that run (--set model.name={self.model}), or another run"
            raise
        head = f"the head starts at random weights: {reason}" if reason else "the head as well"
        return f"starting from the weights of {self.path}; {head}"


def checkpoint_at(path: Path) -> Path:
    """The checkpoint of the run directory at `path`, the best one where an epoch has ended; any other path as it is."""
    if not path.is_dir():
        return path
    found = [path / name for name in (BEST, LAST) if (path / name).is_file()]
    if not found:
        raise WeightsError(
            f"{path}: a folder without {BEST}, so it is not a run that has weights",
            next_step="name a run directory, runs/<recipe>/<time>, or a weights file",
        )
    return found[0].resolve() if path.is_symlink() else found[0]


def trained_run(content: Any, path: Path) -> TrainedRun | None:
    """The run whose checkpoint has this content; None where it is another file."""
    if not isinstance(content, Mapping) or not {"format", "origin"} <= content.keys():
        return None
    if content["format"] != FORMAT:
        raise WeightsError(
            f"{path}: a checkpoint of format {content['format']}, this version reads format {FORMAT}",
            next_step="train that run again with this version, or name another",
        )
    origin, state = content["origin"], content.get("state") or {}
    network = content.get("network") or state.get("average") or state["network"]
    weights = {key.removeprefix(_MODEL): value for key, value in network.items()}
    model = tomllib.loads(origin["recipe"])["model"]["name"]
    if not any(key.startswith(_BACKBONE) for key in weights):
        raise WeightsError(
            f'{path}: its model "{model}" has no backbone, so no other model can start from it',
            next_step="name a run of a model that takes weights, or use --set model.weights=none",
        )
    return TrainedRun(path, weights, origin["classes"], model)


def _named(classes: Sequence[str]) -> str:
    few = ", ".join(classes[:3])
    return f"{len(classes)} classes ({few}{', …' if len(classes) > 3 else ''})"
