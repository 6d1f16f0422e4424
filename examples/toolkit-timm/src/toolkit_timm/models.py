"""Any image model of timm as a backbone, with a new head."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import timm
from pydantic import Field
from timm.models import PretrainedCfg
from toolkit.api.contracts import DataSpec
from toolkit.api.errors import Problem, RecipeError
from toolkit.transfer.classifier import Classifier, count_features, fitting
from toolkit.transfer.pretrained import Dropout, ThawEpoch, Transfer
from toolkit.transfer.published import UnreachableError
from toolkit.transfer.weights import Weights
from torch import nn

from toolkit_timm.names import published

Share: TypeAlias = Annotated[float, Field(ge=0, lt=1)]


def image_model(
    spec: DataSpec,
    *,
    model: str,
    weights: str = "none",
    freeze: bool = False,
    thaw_epoch: ThawEpoch | None = None,
    dropout: Dropout = 0.0,
    drop_path: Share | None = None,
) -> Classifier:
    """An image model of timm, by its name there, with a new fully connected head.

    model: an architecture (`resnet50`), or one with particular weights (`resnet50.a1_in1k`)
    weights: none; pretrained: those that timm publishes, downloaded once from the Hugging Face Hub and cached; or the
        path of a weights file with timm's names, in which only the classifier may differ or be absent
    freeze: train the head alone; the backbone stays in eval mode and keeps its batch-norm statistics
    thaw_epoch: the epoch, counted from 0, from which a frozen backbone is trained too; unset: never
    dropout: share of features zeroed before the head
    drop_path: greatest probability with which a residual branch is dropped (arXiv 1603.09382); unset: as timm has it
    """
    if spec.frames is not None:
        problem = Problem("clip", "timm's models see images, and these are clips")
        next_step = "remove [clip], or take a model of clips: --set model.name=x3d_s"
        raise RecipeError(f"model {model}", [problem], next_step=next_step)
    about = published(model)
    if weights == "pretrained" and not (about and about.has_weights):
        raise ValueError(f"weights: timm publishes none for {model}; those it has: timm.list_pretrained()")
    options: dict[str, Any] = {} if drop_path is None else {"drop_path_rate": drop_path}
    if about and about.fixed_input_size:
        options["img_size"] = spec.size
    start = Transfer(weights, freeze, thaw_epoch).start(OfTimm(model, spec, options), spec, model)
    backbone = _backbone(model, spec, options)
    features = count_features(backbone, spec, model)
    start.load(backbone, ignore=_classifier(about))
    head = nn.Sequential(nn.Dropout(dropout), nn.Linear(features, len(spec.classes)))
    seen_otherwise = _seen_otherwise(model, spec, about) if weights == "pretrained" and about else ()
    return start.classifier(backbone, head, notes=tuple(seen_otherwise))


@dataclass(frozen=True)
class OfTimm:
    """The weights that timm publishes for a model. Only timm can fit them to another size of images."""

    model: str
    spec: DataSpec
    options: dict[str, Any]
    word: str = "pretrained"
    title: str = "the pretrained weights"

    def fetch(self, timeout: float) -> Weights:
        """From the Hub's cache, or downloaded into it; how long that waits, the Hub's own client decides."""
        try:
            return _backbone(self.model, self.spec, self.options, pretrained=True).state_dict()
        except OSError as error:
            raise UnreachableError(
                f"the pretrained weights of {self.model} could not be downloaded: {str(error).splitlines()[0]}",
                next_step="try again with network; or --set model.weights=PATH of a file with timm's names, or "
                "--set model.weights=none",
            ) from error


def _backbone(model: str, spec: DataSpec, options: dict[str, Any], *, pretrained: bool = False) -> nn.Module:
    """The model without its classifier, for images of this size."""
    try:
        with fitting(spec, model):
            return timm.create_model(model, pretrained=pretrained, num_classes=0, **options)
    except TypeError as error:
        if "drop_path_rate" not in str(error):
            raise
        raise ValueError(f"drop_path: {model} has no branches that could be dropped") from error


def _classifier(about: PretrainedCfg | None) -> tuple[str, ...]:
    """Prefixes of what timm calls the parameters of the classifier that the head replaces."""
    named = about.classifier if about else None
    return tuple(f"{name}." for name in ([named] if isinstance(named, str) else named or ()))


def _seen_otherwise(model: str, spec: DataSpec, about: PretrainedCfg) -> Iterator[str]:
    """What the published weights were trained with, where the recipe asks for something else."""
    seen = {"size": about.input_size[-1], "mean": list(about.mean), "std": list(about.std)}
    here = {"size": spec.size, "mean": list(spec.mean), "std": list(spec.std)}
    if other := [f"input.{key} = {value}" for key, value in seen.items() if value != here[key]]:
        yield f"the weights of {model} were trained with {', '.join(other)}"
