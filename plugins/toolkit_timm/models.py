"""Any image model of timm as a backbone, with a new head."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch import nn

from toolkit.api.contracts import DataSpec, Provenance
from toolkit.transfer.classifier import Classifier, count_features, fitting
from toolkit.transfer.framewise import Head, HeadLayers, HeadWidth, Layers, Temporal, framewise
from toolkit.transfer.hub import Repository
from toolkit.transfer.layers import own_undecayed
from toolkit.transfer.licences import UNKNOWN, Licences
from toolkit.transfer.pretrained import Dropout, DropPath, Hidden, ThawEpoch, Transfer
from toolkit.transfer.published import Published
from toolkit.transfer.weights import Positions, Weights
from toolkit_timm.lite import KNOWN
from toolkit_timm.names import licence, published, timm

OF_TIMM = replace(KNOWN, positions=(Positions("pos_embed"), Positions("relative_position_bias_table", "distances")))


def image_model(  # noqa: PLR0913 - the keys of a recipe
    spec: DataSpec,
    *,
    model: str,
    weights: str = "none",
    freeze: bool = False,
    thaw_epoch: ThawEpoch | None = None,
    dropout: Dropout = 0.0,
    drop_path: DropPath | None = None,
    hidden: Hidden | None = None,
    head: Head = "average",
    head_width: HeadWidth | None = None,
    head_layers: HeadLayers | None = None,
    licences: Licences | None = None,
) -> Classifier:
    """An image model of timm, by its name there, with a new head; of clips it sees each frame on its own. Size, mean
    and std are those of its published weights unless the recipe says otherwise.

    model: an architecture (`resnet50`), or one with particular weights (`resnet50.a1_in1k`).
    weights: none; pretrained (those that timm publishes, downloaded once from the Hugging Face Hub and cached);
        hub:ORGANISATION/NAME, a repository with timm's names; the path of a weights file with timm's names, in which
        only the classifier may differ or be absent; or a run of this model (runs/RECIPE/TIME).
    freeze: train the head alone; the backbone stays in eval mode and keeps its batch-norm statistics.
    """
    layers = Layers(dropout, hidden, Temporal(head, head_width, head_layers))
    layers.temporal.check(spec.frames)
    about = published(model)
    if weights == "pretrained" and not (about and about.has_weights):
        raise ValueError(f"weights: timm publishes none for {model}; those it has: timm.list_pretrained()")
    options: dict[str, Any] = {} if drop_path is None else {"drop_path_rate": drop_path}
    if about and about.fixed_input_size:
        options["img_size"] = spec.size
    pretrained = OfTimm(model, about, spec, options)
    start = Transfer(weights, freeze, thaw_epoch, licences).start(pretrained, spec, model, OF_TIMM)
    backbone = pretrained.backbone()
    features = count_features(backbone, replace(spec, clip=None), model)
    start.load(backbone, ignore=_classifier(about))
    whole = framewise(backbone, spec.frames)
    inner = "1." if whole is not backbone else ""
    undecayed = [f"{inner}{name}" for name in own_undecayed(backbone)]
    notes = pretrained.notes if weights == pretrained.word and start.provenance else ()
    return start.classifier(whole, layers.head(spec, features), notes=notes, undecayed=undecayed)


@dataclass(frozen=True)
class OfTimm:
    """The weights that timm publishes for a model. Only timm can fit them to another size of images."""

    model: str
    about: Any
    """A `PretrainedCfg`."""
    spec: DataSpec
    options: dict[str, Any]
    word: str = "pretrained"
    title: str = "timm's weights"

    def backbone(self, **others: Any) -> nn.Module:
        """The model without its classifier, for images of this size."""
        try:
            with fitting(self.spec, self.model):
                built: nn.Module = timm().create_model(
                    self.model, **{"pretrained": False, "num_classes": 0, **self.options, **others}
                )
        except TypeError as error:
            if "drop_path_rate" not in str(error):
                raise
            raise ValueError(f"drop_path: {self.model} has no branches that could be dropped") from error
        return built

    @property
    def notes(self) -> tuple[str, ...]:
        """On what timm changes to fit its weights to images of this size."""
        side = self.about.input_size[-1]
        if "img_size" not in self.options or side == self.spec.size:
            return ()
        return (f"positions of {self.model} interpolated by timm from {side} px to {self.spec.size} px",)

    @property
    def provenance(self) -> Provenance:
        return replace(self._source.provenance, title=self.title)

    @property
    def licence(self) -> str:
        return self._source.licence

    def fetch(self, timeout: float) -> Weights:
        """Of the Hub or of the address in timm's table, from the cache or downloaded into it."""
        weights = self._source.fetch(timeout)
        fitted = self.backbone(pretrained=True, pretrained_cfg_overlay={"state_dict": weights, "custom_load": False})
        return fitted.state_dict()

    @cached_property
    def _source(self) -> Repository | Published:
        known = licence(self.about)
        if self.about.hf_hub_id:
            return Repository(self.about.hf_hub_id, extra="timm", known_licence=known)
        digits = re.search(r"-([0-9a-f]{8,})\.pth$", self.about.url)  # as torch.hub has them in file names
        digest = digits[1] if digits else None
        return Published(self.word, self.title, self.about.url, sha256=digest, licence=known or UNKNOWN)


def _classifier(about: Any) -> tuple[str, ...]:
    """Prefixes of what timm calls the parameters of the classifier that the head replaces."""
    named = about.classifier if about else None
    return tuple(f"{name}." for name in ([named] if isinstance(named, str) else named or ()))
