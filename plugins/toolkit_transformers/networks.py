"""A network of transformers, taken apart: an encoder that gives features or tokens, without its classifier."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.api.contracts import DataSpec
from toolkit.api.errors import Problem, RecipeError, nearest
from toolkit.api.extras import require
from toolkit.transfer.weights import Positions
from toolkit_transformers.lora import merge_lora
from toolkit_transformers.sources import RATES

CLASSIFIER = "classifier"
"""What transformers calls the last layer of all of them."""
_LEARNED = ("timesformer",)
"""Video transformers that stretch their learned positions themselves."""


def library() -> Any:
    """transformers, imported now: that takes seconds. Raises UsageError if it is not installed."""
    return require("transformers", extra="transformers", user='model "transformers"')


def network_of(config: Mapping[str, Any], spec: DataSpec, name: str, *, drop_path: float | None = None) -> nn.Module:
    """The network at random weights, for clips or images as `spec` has them, with its classifier replaced by nothing.

    Raises RecipeError for a kind of network that transformers does not know, ValueError for a `drop_path` if that kind
    has no stochastic depth.
    """
    found = _configuration(config, spec, name)
    if drop_path is not None:
        if not hasattr(found, "drop_path_rate"):
            raise ValueError(f"drop_path: {name} has no branches that could be dropped")
        found.drop_path_rate = drop_path
    auto = library()
    makers = (auto.AutoModelForVideoClassification, auto.AutoModelForImageClassification, auto.AutoModel)
    maker = next(one for one in makers if type(found) in one._model_mapping)
    with quiet():
        network: nn.Module = maker.from_config(found, dtype=torch.float32)
    if hasattr(network, CLASSIFIER):
        setattr(network, CLASSIFIER, nn.Identity())
    if hasattr(encoder_of(network), "predictor"):  # of V-JEPA 2: no classifier uses it
        encoder_of(network).predictor = nn.Identity()
    for module in network.modules():  # of tokens that are hidden in pretraining
        if isinstance(token := getattr(module, "mask_token", None), nn.Parameter):
            token.requires_grad_(False)
        for key in [key for key, value in vars(module).items() if isinstance(value, Tensor)]:
            value = vars(module).pop(key)  # of VideoMAE, which moves its positions to the device in each step
            module.register_buffer(key, value, persistent=False)
    return network


def encoder_of(network: nn.Module) -> Any:
    """The part that makes tokens."""
    return next(network.children()) if hasattr(network, CLASSIFIER) else network


def _configuration(config: Mapping[str, Any], spec: DataSpec, name: str) -> Any:
    known = library().models.auto.configuration_auto.CONFIG_MAPPING
    model_type = config.get("model_type")
    if model_type not in known:
        meant = nearest(str(model_type), [*RATES, "dinov2", "siglip", "vit", "convnextv2"])
        text = f'{name} is of the kind "{model_type}", which transformers {library().__version__} does not have'
        raise RecipeError(f"model {name}", [Problem("model.source", text, meant)])
    with quiet():
        found = known[model_type].from_dict(dict(config))
    found.num_labels = 1
    if hasattr(found, "vision_config"):
        found.vision_config.vision_use_head = False  # which no classifier of transformers uses
    if spec.frames:
        for key, value in (("num_frames", spec.frames), ("frames_per_clip", spec.frames)):
            if model_type in RATES and model_type not in _LEARNED and hasattr(found, key):
                setattr(found, key, value)
    if model_type in ("videomae", "vivit"):  # the former computes its positions, `positions_of` has those of the latter
        found.image_size = spec.size
    if model_type == "vjepa2":
        found.crop_size = spec.size
    return found


def positions_of(network: nn.Module, config: Mapping[str, Any]) -> tuple[Positions, ...]:
    """Tables that transformers does not interpolate itself. `config` is that of the published weights."""
    ours: Any = network.config
    if ours.model_type != "vivit":
        return ()
    published = type(ours).from_dict(dict(config))
    count, trained = (one.num_frames // one.tubelet_size[0] for one in (ours, published))
    return (Positions("position_embeddings", "frames", count=count, published=trained),)


class Encoder(nn.Module):
    """`[B, 3, H, W]` or `[B, T, 3, H, W]` -> the features `[B, F]` that the network pools, or tokens `[B, N, F]`."""

    def __init__(self, network: Any, *, tokens: bool, size: int) -> None:
        super().__init__()
        self.network = encoder_of(network) if tokens else network
        self._tokens = tokens
        if tokens and str(network.config.model_type).startswith("convnext"):
            self.network.layernorm = nn.Identity()  # of its pooled features alone
        self._input = network.main_input_name
        knows = inspect.signature(self.network.forward).parameters
        side = getattr(getattr(network.config, "vision_config", network.config), "image_size", size)
        stretched = side not in (size, [size, size], (size, size))
        learned = any("position_embedding" in name for name, _ in network.named_parameters())
        self.notes = (f"positions interpolated from {_px(side)} px to {size} px",) if stretched and learned else ()
        asked = {"interpolate_pos_encoding": stretched, "skip_predictor": True}
        self._others = {key: value for key, value in asked.items() if value and key in knows}

    def forward(self, pixels: Tensor) -> Tensor:
        answer = self.network(**{self._input: pixels}, **self._others)
        if not self._tokens:
            pooled: Tensor = answer.logits if hasattr(answer, "logits") else answer.pooler_output
            return pooled.flatten(1)  # of VideoPrism `[B, 1, F]`
        tokens: Tensor = answer.last_hidden_state
        return tokens if tokens.ndim == 3 else tokens.flatten(2).transpose(1, 2)

    def fold(self) -> None:
        """Fold adapters into the weights."""
        merge_lora(self)


def _px(side: Any) -> int:
    return int(side if isinstance(side, int) else side[0])


@contextmanager
def quiet() -> Iterator[None]:
    """Without progress bars, and without warnings of defaults and of layers that are meant to be new."""
    shown = library().utils.logging
    bars = shown.is_progress_bar_enabled()
    shown.disable_progress_bar()
    logger = logging.getLogger("transformers")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
        if bars:
            shown.enable_progress_bar()
