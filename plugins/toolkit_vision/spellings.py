"""How timm, Hugging Face and older files name the tensors of torchvision's classifiers, and whose weights a file holds.

Covered: DenseNet, VGG, EfficientNet (B0 to B7), ViT and ConvNeXt as timm writes them (its ResNets have torchvision's
names); ResNet, ViT and ConvNeXt as Hugging Face writes them; ConvNeXt as its authors write it; DenseNet of 2017.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial

import torch
import torchvision
from torch import Tensor, nn

from toolkit.api.errors import WeightsError
from toolkit.transfer.weights import Known, Positions, Spelling, fits
from toolkit_vision.names import BACKBONES

_DENSENET_2017 = Spelling(
    "DenseNet files of 2017",
    r"features\.denseblock\d\.denselayer\d+\.norm\.1\.weight",
    [(r"(.+\.denselayer\d+\.(?:norm|conv))\.(\d\..+)", r"\1\2")],
)

_TIMM_VGG = Spelling(
    "timm's VGG",
    r"pre_logits\.fc1\.weight",
    [
        (r"pre_logits\.fc1\.(.+)", r"classifier.0.\1"),
        (r"pre_logits\.fc2\.(.+)", r"classifier.3.\1"),
        (r"head\.fc\.(.+)", r"classifier.6.\1"),
    ],
)

_SQUEEZE = (("conv_reduce", "fc1"), ("conv_expand", "fc2"))
_TIMM_EFFICIENTNET = Spelling(
    "timm's EfficientNet",
    r"blocks\.1\.0\.conv_pwl\.weight",
    [
        (r"conv_stem\.(.+)", r"features.0.0.\1"),
        (r"bn1\.(.+)", r"features.0.1.\1"),
        (r"conv_head\.(.+)", r"features.8.0.\1"),
        (r"bn2\.(.+)", r"features.8.1.\1"),
        (r"classifier\.(.+)", r"classifier.1.\1"),
        # The first stage does not expand its channels, so its blocks have one convolution less.
        *(
            (rf"blocks\.0\.(\d+)\.{theirs}\.(.+)", rf"features.1.\1.block.{ours}.\2")
            for theirs, ours in (("conv_dw", "0.0"), ("bn1", "0.1"), ("conv_pw", "2.0"), ("bn2", "2.1"))
        ),
        *((rf"blocks\.0\.(\d+)\.se\.{theirs}\.(.+)", rf"features.1.\1.block.1.{ours}.\2") for theirs, ours in _SQUEEZE),
        *(
            (rf"blocks\.{stage}\.(\d+)\.{theirs}\.(.+)", rf"features.{stage + 1}.\1.block.{ours}.\2")
            for stage in range(1, 7)
            for theirs, ours in (
                *(("conv_pw", "0.0"), ("bn1", "0.1"), ("conv_dw", "1.0"), ("bn2", "1.1")),
                *((rf"se\.{squeeze}", f"2.{name}") for squeeze, name in _SQUEEZE),
                *(("conv_pwl", "3.0"), ("bn3", "3.1")),
            )
        ),
    ],
)

_VIT_BLOCK = r"encoder.layers.encoder_layer_\1."
_TIMM_VIT = Spelling(
    "timm's ViT",
    r"blocks\.0\.attn\.qkv\.weight",
    [
        (r"cls_token", r"class_token"),
        (r"pos_embed", r"encoder.pos_embedding"),
        (r"patch_embed\.proj\.(.+)", r"conv_proj.\1"),
        (r"blocks\.(\d+)\.norm(\d)\.(.+)", rf"{_VIT_BLOCK}ln_\2.\3"),
        (r"blocks\.(\d+)\.attn\.qkv\.(.+)", rf"{_VIT_BLOCK}self_attention.in_proj_\2"),
        (r"blocks\.(\d+)\.attn\.proj\.(.+)", rf"{_VIT_BLOCK}self_attention.out_proj.\2"),
        (r"blocks\.(\d+)\.mlp\.fc1\.(.+)", rf"{_VIT_BLOCK}mlp.0.\2"),
        (r"blocks\.(\d+)\.mlp\.fc2\.(.+)", rf"{_VIT_BLOCK}mlp.3.\2"),
        (r"norm\.(.+)", r"encoder.ln.\1"),
        (r"head\.(.+)", r"heads.head.\1"),
    ],
)
_HUGGING_FACE_VIT = Spelling(
    "Hugging Face's ViT",
    r"(?:vit\.)?encoder\.layer\.0\.attention\.attention\.query\.weight",
    [
        (r"(?:vit\.)?embeddings\.cls_token", r"class_token"),
        (r"(?:vit\.)?embeddings\.position_embeddings", r"encoder.pos_embedding"),
        (r"(?:vit\.)?embeddings\.patch_embeddings\.projection\.(.+)", r"conv_proj.\1"),
        (r"(?:vit\.)?encoder\.layer\.(\d+)\.layernorm_before\.(.+)", rf"{_VIT_BLOCK}ln_1.\2"),
        (r"(?:vit\.)?encoder\.layer\.(\d+)\.layernorm_after\.(.+)", rf"{_VIT_BLOCK}ln_2.\2"),
        *(
            (
                rf"(?:vit\.)?encoder\.layer\.(\d+)\.attention\.attention\.{part}\.(.+)",
                rf"{_VIT_BLOCK}self_attention.in_proj_\2@{place}",
            )
            for place, part in enumerate(("query", "key", "value"))
        ),
        (
            r"(?:vit\.)?encoder\.layer\.(\d+)\.attention\.output\.dense\.(.+)",
            rf"{_VIT_BLOCK}self_attention.out_proj.\2",
        ),
        (r"(?:vit\.)?encoder\.layer\.(\d+)\.intermediate\.dense\.(.+)", rf"{_VIT_BLOCK}mlp.0.\2"),
        (r"(?:vit\.)?encoder\.layer\.(\d+)\.output\.dense\.(.+)", rf"{_VIT_BLOCK}mlp.3.\2"),
        (r"(?:vit\.)?layernorm\.(.+)", r"encoder.ln.\1"),
        (r"classifier\.(.+)", r"heads.head.\1"),
    ],
    dropped=r"(?:vit\.)?pooler\..+",
)

_TIMM_CONVNEXT = Spelling(
    "timm's ConvNeXt",
    r"stages\.0\.blocks\.0\.conv_dw\.weight",
    [
        (r"stem\.(\d)\.(.+)", r"features.0.\1.\2"),
        *(
            rename
            for stage in range(4)
            for rename in (
                (rf"stages\.{stage}\.downsample\.(\d)\.(.+)", rf"features.{2 * stage}.\1.\2"),
                (rf"stages\.{stage}\.blocks\.(\d+)\.gamma", rf"features.{2 * stage + 1}.\1.layer_scale"),
                *(
                    (
                        rf"stages\.{stage}\.blocks\.(\d+)\.{theirs}\.(.+)",
                        rf"features.{2 * stage + 1}.\1.block.{ours}.\2",
                    )
                    for theirs, ours in (("conv_dw", 0), ("norm", 2), (r"mlp\.fc1", 3), (r"mlp\.fc2", 5))
                ),
            )
        ),
        (r"head\.norm\.(.+)", r"classifier.0.\1"),
        (r"head\.fc\.(.+)", r"classifier.2.\1"),
    ],
)
_AUTHORS_CONVNEXT = Spelling(
    "its authors' ConvNeXt",
    r"stages\.0\.0\.dwconv\.weight",
    [
        *((rf"downsample_layers\.{stage}\.(\d)\.(.+)", rf"features.{2 * stage}.\1.\2") for stage in range(4)),
        *(
            rename
            for stage in range(4)
            for rename in (
                (rf"stages\.{stage}\.(\d+)\.gamma", rf"features.{2 * stage + 1}.\1.layer_scale"),
                *(
                    (rf"stages\.{stage}\.(\d+)\.{theirs}\.(.+)", rf"features.{2 * stage + 1}.\1.block.{ours}.\2")
                    for theirs, ours in (("dwconv", 0), ("norm", 2), ("pwconv1", 3), ("pwconv2", 5))
                ),
            )
        ),
        (r"norm\.(.+)", r"classifier.0.\1"),
        (r"head\.(.+)", r"classifier.2.\1"),
    ],
)
_HUGGING_FACE_CONVNEXT = Spelling(
    "Hugging Face's ConvNeXt",
    r"(?:convnext\.)?encoder\.stages\.0\.layers\.0\.dwconv\.weight",
    [
        (r"(?:convnext\.)?embeddings\.patch_embeddings\.(.+)", r"features.0.0.\1"),
        (r"(?:convnext\.)?embeddings\.layernorm\.(.+)", r"features.0.1.\1"),
        *(
            (rf"(?:convnext\.)?encoder\.stages\.{stage}\.{theirs}", rf"features.{ours}")
            for stage in range(4)
            for theirs, ours in (
                (r"downsampling_layer\.(\d)\.(.+)", rf"{2 * stage}.\1.\2"),
                (r"layers\.(\d+)\.layer_scale_parameter", rf"{2 * stage + 1}.\1.layer_scale"),
                (r"layers\.(\d+)\.dwconv\.(.+)", rf"{2 * stage + 1}.\1.block.0.\2"),
                (r"layers\.(\d+)\.layernorm\.(.+)", rf"{2 * stage + 1}.\1.block.2.\2"),
                (r"layers\.(\d+)\.pwconv1\.(.+)", rf"{2 * stage + 1}.\1.block.3.\2"),
                (r"layers\.(\d+)\.pwconv2\.(.+)", rf"{2 * stage + 1}.\1.block.5.\2"),
            )
        ),
        (r"(?:convnext\.)?layernorm\.(.+)", r"classifier.0.\1"),
        (r"classifier\.(.+)", r"classifier.2.\1"),
    ],
)

_HUGGING_FACE_RESNET = Spelling(
    "Hugging Face's ResNet",
    r"(?:resnet\.)?embedder\.embedder\.convolution\.weight",
    [
        (r"(?:resnet\.)?embedder\.embedder\.convolution\.(.+)", r"conv1.\1"),
        (r"(?:resnet\.)?embedder\.embedder\.normalization\.(.+)", r"bn1.\1"),
        *(
            (
                rf"(?:resnet\.)?encoder\.stages\.{stage}\.layers\.(\d+)\.{theirs}\.(.+)",
                rf"layer{stage + 1}.\1.{ours}.\2",
            )
            for stage in range(4)
            for theirs, ours in (
                (r"shortcut\.convolution", "downsample.0"),
                (r"shortcut\.normalization", "downsample.1"),
                *((rf"layer\.{place}\.convolution", f"conv{place + 1}") for place in range(3)),
                *((rf"layer\.{place}\.normalization", f"bn{place + 1}") for place in range(3)),
            )
        ),
        (r"classifier\.1\.(.+)", r"fc.\1"),
    ],
)

SPELLINGS = (
    *(_DENSENET_2017, _TIMM_VGG, _TIMM_EFFICIENTNET, _TIMM_VIT, _TIMM_CONVNEXT),
    *(_HUGGING_FACE_VIT, _HUGGING_FACE_CONVNEXT, _HUGGING_FACE_RESNET, _AUTHORS_CONVNEXT),
)

POSITIONS = (Positions(r"encoder\.pos_embedding"),)

_FAMILIES = {
    r"denseblock1\.denselayer1": ("densenet",),
    r"(^|\.)layer4\.0\.conv1|embedder\.embedder": ("resnet", "resnext", "wide_resnet"),
    r"encoder_layer_0|blocks\.0\.attn\.qkv|attention\.attention\.query": ("vit",),
    r"layer_scale|dwconv|blocks\.0\.conv_dw|\.gamma$": ("convnext",),
    r"blocks\.0\.0\.conv_dw|features\.1\.0\.block\.1\.fc1": ("efficientnet",),
    r"features\.0\.weight": ("vgg", "alexnet"),
    r"features\.1\.0\.attn\.": ("swin",),
    r"features\.1\.conv\.0\.0|features\.1\.block\.0\.0": ("mobilenet",),
    r"layers\.8\.0\.layers\.0": ("mnasnet",),
    r"stage2\.0\.branch": ("shufflenet",),
}
"""Regular expressions for names in a file, and the torchvision models that may have them: only these are compared."""

_STEM = r"conv1\.weight \(64x3x{given}x{given} given, 64x3x{wanted}x{wanted} wanted\)"


def known_for(name: str, last_layer: Callable[[nn.Module], str]) -> Known:
    """What is known of files for torchvision's model `name`.

    last_layer: removes the last layer of a torchvision model and returns its name.
    """
    return Known(SPELLINGS, partial(_advise, name, last_layer), POSITIONS)


def _advise(
    name: str, last_layer: Callable[[nn.Module], str], weights: Mapping[str, Tensor], error: WeightsError
) -> str | None:
    stems = " ".join(error.mis_shaped)
    if re.search(_STEM.format(given=7, wanted=3), stems):
        return "these weights have the 7x7 stem for large images: --set model.stem=imagenet"
    if name == "resnet18" and re.search(_STEM.format(given=3, wanted=7), stems):
        return "these weights have the 3x3 stem for small images: --set model.stem=cifar"
    if name == "vgg16_bn" and any(key.startswith("classifier.") for key in error.unexpected):
        return "these weights have the layers of 4096 units: --set model.layers=imagenet"
    owner = recognised(weights, last_layer)
    return f"these are weights of {owner}: --set model.name={owner}" if owner and owner != name else None


def recognised(weights: Mapping[str, Tensor], last_layer: Callable[[nn.Module], str]) -> str | None:
    """The torchvision classifier that has tensors of these names and shapes; None where none has."""
    families = tuple(
        family for sign, names in _FAMILIES.items() if any(re.search(sign, key) for key in weights) for family in names
    )
    for name in (name for name in ("resnet18", "vgg16_bn", *BACKBONES) if name.startswith(families)):
        with torch.device("meta"):
            model: nn.Module = torchvision.models.get_model(name, weights=None)
        layer = last_layer(model)
        if fits(model, weights, ignore=(f"{layer}.",), known=Known(SPELLINGS, positions=POSITIONS)):
            return name
    return None
