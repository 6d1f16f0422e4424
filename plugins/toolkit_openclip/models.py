"""CLIP models (arXiv 2103.00020). The text encoder is asked once: its answers are a frozen last layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from toolkit.api.contracts import DataSpec, Provenance
from toolkit.transfer.classifier import Classifier, fitting
from toolkit.transfer.framewise import Mean, framewise
from toolkit.transfer.hub import Repository
from toolkit.transfer.licences import Licences
from toolkit.transfer.pretrained import ThawEpoch, Transfer
from toolkit.transfer.weights import Known, Positions, Weights
from toolkit_openclip.names import Named, Template, library

KNOWN = Known(positions=(Positions(r"(?:visual|backbone(?:\.1)?)\.positional_embedding|trunk\.pos_embed"),))
TEMPERATURE = 100.0
"""Factor on the similarities at first: that of the published models."""


def zero_shot(
    spec: DataSpec,
    *,
    model: str,
    weights: str = "none",
    templates: tuple[Template, ...] = ("a photo of {}.",),
    freeze: bool = True,
    thaw_epoch: ThawEpoch | None = None,
    licences: Licences | None = None,
) -> Classifier:
    """A CLIP model of open_clip that knows classes by their names: zero-shot classification. Of a clip, the mean of its
    frames' embeddings counts. What the text encoder says of the names becomes the frozen last layer, so an exported
    model has no text encoder. Frozen, training fits one number, the temperature: the classes that it answers with
    remain those of zero-shot.

    model: an architecture and its weights as open_clip names them: `ViT-B-32:laion2b_s34b_b79k`.
    weights: none (random: chance); pretrained (those that `model` names, downloaded once and cached);
        hub:ORGANISATION/NAME; the path of a weights file with open_clip's names; or a run of this model.
    templates: sentences about a class, `{}` for its name; their embeddings are averaged. Underscores of a class's name
        become spaces.
    freeze: keep the image encoder as it is.
    thaw_epoch: the epoch, counted from 0, from which a frozen image encoder is trained too; unset: never.
    """
    if not templates:
        raise ValueError("templates: expected at least one")
    named = Named.of(model)
    with fitting(spec, model):
        whole: Any = library().create_model(named.model, load_weights=False, force_image_size=spec.size)
    start = Transfer(weights, freeze, thaw_epoch, licences).start(OfOpenClip(named), spec, model, KNOWN)
    start.load(whole)
    text = text_embeddings(whole, library().get_tokenizer(named.model), spec.classes, templates)
    head = nn.Sequential(Unit(), *_over_frames(spec.frames), TextHead(text))
    classifier = start.classifier(framewise(whole.visual, spec.frames), head)
    classifier.zero_shot = start.weights is not None
    return classifier


@dataclass(frozen=True)
class OfOpenClip:
    """The weights that a name of open_clip means."""

    named: Named
    word: str = "pretrained"

    @cached_property
    def _repository(self) -> Repository:
        return self.named.repository

    @property
    def title(self) -> str:
        return f"weights {self.named.tag or self.named.model}"

    @property
    def licence(self) -> str:
        return self._repository.licence

    @property
    def provenance(self) -> Provenance:
        return self._repository.provenance

    def fetch(self, timeout: float) -> Weights:
        return self._repository.fetch(timeout)


def text_embeddings(whole: Any, tokenizer: Any, classes: Sequence[str], templates: Sequence[str]) -> Tensor:
    """float32 `[C, F]` of unit length: of each class the mean of the unit embeddings of all its sentences."""
    whole.eval()
    rows = []
    with torch.no_grad():
        for name in classes:
            sentences = [template.format(name.replace("_", " ")) for template in templates]
            embedded = functional.normalize(whole.encode_text(tokenizer(sentences)).float(), dim=-1)
            rows.append(functional.normalize(embedded.mean(dim=0), dim=-1))
    return torch.stack(rows)


class Unit(nn.Module):
    """`[B, F]` -> the same directions, of length 1."""

    def forward(self, features: Tensor) -> Tensor:
        return functional.normalize(features, dim=-1)


class TextHead(nn.Module):
    """`[B, F]` -> logits `[B, C]`: the cosine with the text of each class, times a temperature that is trained."""

    text: Tensor

    def __init__(self, text: Tensor) -> None:
        super().__init__()
        self.register_buffer("text", text)
        self.log_temperature = nn.Parameter(torch.tensor(TEMPERATURE).log())

    def forward(self, features: Tensor) -> Tensor:
        cosines = functional.normalize(features, dim=-1) @ self.text.T
        return cosines * self.log_temperature.exp()


def _over_frames(frames: int | None) -> list[nn.Module]:
    return [] if frames is None else [nn.Unflatten(0, (-1, frames)), Mean()]
