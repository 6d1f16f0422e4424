"""Any image model of timm as a backbone, with a new head."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeAlias

import timm
import torch
from pydantic import Field
from timm.models import PretrainedCfg
from toolkit.api.contracts import DataSpec
from toolkit.api.errors import Problem, RecipeError, WeightsError, nearest
from toolkit.transfer.weights import load_weights, read_weights
from torch import Tensor, nn

from toolkit_timm.classifier import Classifier
from toolkit_timm.names import published

Share: TypeAlias = Annotated[float, Field(ge=0, lt=1)]


def image_model(
    spec: DataSpec,
    *,
    model: str,
    weights: str = "none",
    freeze: bool = False,
    dropout: Share = 0.0,
    drop_path: Share | None = None,
) -> Classifier:
    """An image model of timm, by its name there, with a new fully connected head.

    model: an architecture (`resnet50`), or one with particular weights (`resnet50.a1_in1k`)
    weights: none; pretrained: those that timm publishes, downloaded once from the Hugging Face Hub and cached; or the
        path of a .safetensors, .pt or .pth file with timm's names, in which only the classifier may differ or be absent
    freeze: train the head alone; the backbone stays in eval mode and keeps its batch-norm statistics
    dropout: share of features zeroed before the head
    drop_path: greatest probability with which a residual branch is left out (arXiv 1603.09382); unset: as timm has it
    """
    if spec.frames is not None:
        problem = Problem("clip", "timm's models see images, and these are clips")
        next_step = "remove [clip], or take a model of clips: --set model.name=x3d_s"
        raise RecipeError(f"model {model}", [problem], next_step=next_step)
    about = published(model)
    _check_weights(model, weights, about)
    backbone = _backbone(model, spec.size, about, drop_path, pretrained=weights == "pretrained")
    features = _features(backbone, model, spec.size)
    if weights not in ("none", "pretrained"):
        load_weights(backbone, read_weights(Path(weights).expanduser()), ignore=_classifier(about), source=weights)
    head = nn.Sequential(nn.Dropout(dropout), nn.Linear(features, len(spec.classes)))
    return Classifier(backbone, head, frozen=freeze, notes=_notes(model, spec, weights, about, frozen=freeze))


def _check_weights(model: str, weights: str, about: PretrainedCfg | None) -> None:
    if weights == "pretrained" and not (about and about.has_weights):
        raise ValueError(f"weights: timm publishes none for {model}; those it has: timm.list_pretrained()")
    meant = nearest(weights, ("none", "pretrained"))
    if meant not in (None, weights) and not Path(weights).expanduser().exists():
        raise WeightsError(f"{weights}: no such weights file", next_step=f'did you mean weights = "{meant}"?')


def _backbone(
    model: str, size: int, about: PretrainedCfg | None, drop_path: float | None, *, pretrained: bool
) -> nn.Module:
    """The model without its classifier, for images of `size` pixels."""
    options: dict[str, Any] = {} if drop_path is None else {"drop_path_rate": drop_path}
    if about and about.fixed_input_size:
        options["img_size"] = size
    try:
        return timm.create_model(model, pretrained=pretrained, num_classes=0, **options)
    except TypeError as error:
        if "drop_path_rate" not in str(error):
            raise
        raise ValueError(f"drop_path: {model} has no branches that could be left out") from error
    except OSError as error:
        raise _unobtained(model, error) from error
    except (AssertionError, RuntimeError, ValueError) as error:
        raise _unfit(model, size, error) from error


def _features(backbone: nn.Module, model: str, size: int) -> int:
    """How many features come of an image: one grey image is shown, which also tells whether this size can be seen."""
    backbone.eval()
    try:
        with torch.no_grad():
            features = backbone(torch.zeros(1, 3, size, size))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise _unfit(model, size, error) from error
    backbone.train()
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise ValueError(f"model: {model} gives no vector of features for an image")
    return features.shape[1]


def _classifier(about: PretrainedCfg | None) -> tuple[str, ...]:
    """Prefixes of what timm calls the parameters of the classifier that the head replaces."""
    named = about.classifier if about else None
    return tuple(f"{name}." for name in ([named] if isinstance(named, str) else named or ()))


def _notes(model: str, spec: DataSpec, weights: str, about: PretrainedCfg | None, *, frozen: bool) -> tuple[str, ...]:
    if weights == "none":
        return ('the backbone is frozen at random weights: set model.weights = "pretrained"',) if frozen else ()
    if weights != "pretrained" or about is None:
        return ()
    seen = {"size": about.input_size[-1], "mean": list(about.mean), "std": list(about.std)}
    here = {"size": spec.size, "mean": list(spec.mean), "std": list(spec.std)}
    other = [f"input.{key} = {value}" for key, value in seen.items() if value != here[key]]
    return (f"the weights of {model} were trained with {', '.join(other)}",) if other else ()


def _unfit(model: str, size: int, error: Exception) -> RecipeError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    problem = Problem("input.size", f"{model} cannot be had for images of {size} px ({reason})")
    return RecipeError(f"model {model}", [problem], next_step="--set input.size=224")


def _unobtained(model: str, error: OSError) -> WeightsError:
    return WeightsError(
        f"the pretrained weights of {model} could not be downloaded: {str(error).splitlines()[0]}",
        next_step="try again with network; or --set model.weights=PATH of a file with timm's names, or "
        "--set model.weights=none",
    )
