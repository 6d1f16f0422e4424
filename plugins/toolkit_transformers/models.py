"""The models of transformers as backbones, with a new head."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from toolkit.api.contracts import DataSpec, Provenance
from toolkit.api.errors import Problem, RecipeError, WeightsError, first_few
from toolkit.transfer.attentive import AttentiveProbe
from toolkit.transfer.classifier import Classifier, count_features
from toolkit.transfer.framewise import Layers, Temporal, framewise
from toolkit.transfer.hub import WEIGHTS
from toolkit.transfer.licences import Licences
from toolkit.transfer.pretrained import Dropout, DropPath, Hidden, Start, ThawEpoch, Transfer
from toolkit.transfer.weights import Known, Positions, Spelling, Weights, fit_positions, read_weights
from toolkit_transformers.lora import Lora, add_lora
from toolkit_transformers.networks import CLASSIFIER, Encoder, encoder_of, network_of, positions_of, quiet
from toolkit_transformers.sources import RATES, Source

UNDECAYED = ("position_embedding", "time_embedding", "cls_token", "register_tokens", "mask_token")
"""In the names of positions and tokens, for which weight decay is unusual."""
Pooling: TypeAlias = Literal["average", "attentive", "lstm", "gru", "attention"]


def transformer(  # noqa: PLR0913 - the keys of a recipe
    spec: DataSpec,
    *,
    source: str,
    revision: str | None = None,
    weights: str = "none",
    freeze: bool = False,
    thaw_epoch: ThawEpoch | None = None,
    dropout: Dropout = 0.0,
    drop_path: DropPath | None = None,
    hidden: Hidden | None = None,
    head: Pooling = "average",
    lora: Lora | None = None,
    checkpointing: bool = False,
    licences: Licences | None = None,
) -> Classifier:
    """A video transformer or an image encoder of Hugging Face's transformers, with a new head: VideoMAE, V-JEPA 2,
    TimeSformer, ViViT, VideoPrism; DINOv2, DINOv3, SigLIP 2, ViT, ConvNeXt V2 and others. Of clips an image encoder
    sees each frame on its own. Frames, rate, size, mean and std are those of its processor unless the recipe says
    otherwise.

    source: what is built: organisation/name of the Hugging Face Hub, or a folder with config.json and
        preprocessor_config.json. Its code is never run.
    revision: of the repository, a branch, a tag or a commit; unset: its main branch. The run records the commit.
    weights: none (random); pretrained (the safetensors of the source, downloaded once and cached);
        hub:ORGANISATION/NAME; the path of a weights file; or a run of this model (runs/RECIPE/TIME).
    freeze: train the head alone; the backbone stays in eval mode.
    drop_path: greatest probability with which a residual branch is dropped (arXiv 1603.09382), for kinds of networks
        that have it in their configuration; unset: as that says.
    head: average (of the features that the encoder pools itself; of an image encoder's frames the mean of their
        logits), attentive (a learned query attends to all tokens, arXiv 2404.08471), or for the frames of an image
        encoder lstm, gru or attention.
    lora: train low-rank matrices next to the layers of the backbone instead of the layers; they are merged into the
        weights at export.
    checkpointing: keep few activations and compute the others again in the backward pass: less memory, more time.
    """
    named = Source(source, revision)
    of_clips = named.config.get("model_type") in RATES
    _check(named, spec, of_clips=of_clips, head=head, hidden=hidden, adapted=lora is not None and freeze)
    seen = spec if of_clips else replace(spec, clip=None)
    network = network_of(named.config, seen, source, drop_path=drop_path)
    replaced = _replaced(network, pooled=head != "attentive")
    known = _known(network, positions_of(network, named.config))
    start = Transfer(weights, freeze, thaw_epoch, licences).start(
        OfTransformers(named), spec, type(network).__name__, known
    )
    notes: list[str] = []
    if start.weights is not None:
        fitting_ones, notes = _renamed(start, network, replaced)
        start = replace(start, weights=fitting_ones)
    start.load(network, ignore=replaced)
    backbone = Encoder(network, tokens=head == "attentive", size=spec.size)
    notes += backbone.notes if start.weights is not None else ()
    features = count_features(backbone, seen, source, tokens=head == "attentive")
    if lora:
        add_lora(backbone, lora)
    if checkpointing:
        _save_memory(backbone, source)
    whole = replace(spec, clip=None) if of_clips else spec
    made = _head(whole, features, head, dropout, hidden)
    seeing = framewise(backbone, whole.frames)
    undecayed = [name for name, _ in seeing.named_parameters() if any(word in name for word in UNDECAYED)]
    return start.classifier(seeing, made, notes=notes, undecayed=undecayed)


@dataclass(frozen=True)
class OfTransformers:
    """The weights of a source."""

    source: Source
    word: str = "pretrained"

    @property
    def title(self) -> str:
        return f"weights {self.source.name}"

    @property
    def licence(self) -> str | None:
        return None if self.source.folder else self.source.repository.licence

    @property
    def provenance(self) -> Provenance | None:
        return None if self.source.folder else self.source.repository.provenance

    def fetch(self, timeout: float) -> Weights:
        """Of the folder, else of the Hub, under the names that they were published with."""
        return _of_folder(self.source.folder) if self.source.folder else self.source.repository.fetch(timeout)


def _renamed(start: Start, network: nn.Module, replaced: tuple[str, ...]) -> tuple[Weights, list[str]]:
    """Published weights under the names of the network, of which transformers has changed some, and notes on positions
    that were interpolated and on what they lack. Weights of which it knows few names are returned as they are: they may
    have prefixes.

    Raises WeightsError for weights of another shape, or where a few of the encoder's are missing.
    """
    source, prefix = start.source, _prefix(network)
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    shapes |= {key.removeprefix(prefix): shape for key, shape in shapes.items()}
    weights, fitted = fit_positions(start.weights or {}, shapes, start.known.positions)
    whole: Any = type(network)
    with quiet():
        made, found = whole.from_pretrained(
            None,
            config=network.config,
            state_dict=dict(weights),
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
        )
    wanted = {name for name in network.state_dict() if not name.startswith(replaced)}
    missing = [name for name in found["missing_keys"] if name in wanted]
    if len(missing) > len(wanted) / 2:
        return weights, fitted
    misshapen = [
        f"{name} ({_shape(theirs)} given, {_shape(ours)} wanted)"
        for name, theirs, ours in found["mismatched_keys"]
        if name in wanted
    ]
    lacking = [name for name in missing if name.startswith(prefix)]
    if misshapen or lacking:
        raise WeightsError(
            f"{source}: the weights do not fit the model",
            missing=lacking,
            mis_shaped=misshapen,
            next_step="use the frames and the size that they were trained with, or --set model.weights=none",
        )
    notes = [*fitted, *([f"{source}: no {first_few(missing)}; random values there"] if missing else [])]
    return {name: value for name, value in made.state_dict().items() if name in wanted}, notes


def _check(source: Source, spec: DataSpec, *, of_clips: bool, head: str, hidden: int | None, adapted: bool) -> None:
    """Raise RecipeError or ValueError for arguments that do not go together."""
    if of_clips and spec.frames is None:
        takes = source.takes
        text = f"{source.name} takes clips: add a [clip] table (published with frames = {takes.frames})"
        raise RecipeError("model transformers", [Problem("clip", text)], next_step=f"--set clip.frames={takes.frames}")
    if of_clips and head not in ("average", "attentive"):
        raise ValueError(f'head: "{head}" combines frames, but {source.name} sees whole clips: use "attentive"')
    if head == "attentive" and hidden:
        raise ValueError("hidden: the attentive head has a layer of its own width")
    if adapted:
        raise ValueError("lora: needs freeze = false: a frozen backbone trains nothing")


def _head(spec: DataSpec, features: int, head: Pooling, dropout: float, hidden: int | None) -> nn.Module:
    if head != "attentive":
        return Layers(dropout, hidden, Temporal(head)).head(spec, features)
    probe = AttentiveProbe(features, len(spec.classes), dropout=dropout)
    if spec.frames is None:
        return probe
    return nn.Sequential(nn.Unflatten(0, (-1, spec.frames)), nn.Flatten(1, 2), probe)


def _save_memory(backbone: Encoder, name: str) -> None:
    network: Any = backbone.network
    if not network.supports_gradient_checkpointing:
        raise ValueError(f"checkpointing: {name} does not support it")
    network.activation_checkpointing_enable({"use_reentrant": False})


def _prefix(network: nn.Module) -> str:
    """What the names of the encoder's weights begin with."""
    encoder = encoder_of(network)
    return next((f"{name}." for name, child in network.named_children() if child is encoder), "")


def _replaced(network: nn.Module, *, pooled: bool) -> tuple[str, ...]:
    """Prefixes of what the head replaces: the classifier, and what pools unless its features are used."""
    encoder = encoder_of(network)
    pooling = (
        []
        if pooled or encoder is network
        else [name for name, child in network.named_children() if child is not encoder]
    )
    return tuple(f"{name}." for name in {CLASSIFIER, *pooling})


def _known(network: nn.Module, positions: Sequence[Positions]) -> Known:
    """The names of an encoder that was saved alone, without the network around it."""
    prefix = _prefix(network)
    rename = (rf"(?!{re.escape(prefix)})(.+)", rf"{prefix}\1")
    alone = Spelling("the encoder alone", r".+", [rename], dropped=r"(head|predictor)\..+")
    return Known([alone] if prefix else [], positions=positions)


def _of_folder(folder: Path) -> Weights:
    for name in WEIGHTS:
        if (folder / name).is_file():
            return read_weights(folder / name)
    raise WeightsError(
        f"{folder}: has no {WEIGHTS[0]}, and weights in other formats are not read: they may run code",
        next_step="save the model with save_pretrained, or --set model.weights=none",
    )


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
