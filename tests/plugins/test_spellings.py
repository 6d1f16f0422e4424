"""Names of other libraries: complete lists of them, written down from files that these libraries wrote."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import pytest
import torch
import torchvision
from torch import Tensor, nn

from toolkit_vision.spellings import SPELLINGS, recognised
from toolkit_vision.torchvision_models import remove_last_linear as last_layer

NORM = "{weight,bias,running_mean,running_var,num_batches_tracked}"
BOTH = "{weight,bias}"
FILES = {
    "timm's VGG": (
        "vgg11_bn",
        [
            f"features.{{0,4,8,11,15,18,22,25}}.{BOTH}",
            f"features.{{1,5,9,12,16,19,23,26}}.{NORM}",
            f"{{pre_logits.fc1,pre_logits.fc2,head.fc}}.{BOTH}",
        ],
    ),
    "timm's EfficientNet": (
        "efficientnet_b0",
        [
            "{conv_stem,conv_head}.weight",
            f"{{bn1,bn2}}.{NORM}",
            f"classifier.{BOTH}",
            "blocks.0.0.{conv_dw,conv_pw}.weight",
            f"blocks.0.0.{{bn1,bn2}}.{NORM}",
            f"blocks.0.0.se.{{conv_reduce,conv_expand}}.{BOTH}",
            *(
                name.replace("BLOCK", f"blocks.{stage}.{{{','.join(map(str, range(depth)))}}}")
                for stage, depth in ((1, 2), (2, 2), (3, 3), (4, 3), (5, 4), (6, 1))
                for name in (
                    "BLOCK.{conv_pw,conv_dw,conv_pwl}.weight",
                    f"BLOCK.{{bn1,bn2,bn3}}.{NORM}",
                    f"BLOCK.se.{{conv_reduce,conv_expand}}.{BOTH}",
                )
            ),
        ],
    ),
    "timm's ViT": (
        "vit_b_32",
        [
            "{cls_token,pos_embed}",
            f"{{patch_embed.proj,norm,head}}.{BOTH}",
            f"blocks.{{0,1,2,3,4,5,6,7,8,9,10,11}}.{{norm1,norm2,attn.qkv,attn.proj,mlp.fc1,mlp.fc2}}.{BOTH}",
        ],
    ),
    "Hugging Face's ViT": (
        "vit_b_32",
        [
            "vit.embeddings.{cls_token,position_embeddings}",
            f"{{vit.embeddings.patch_embeddings.projection,vit.layernorm,vit.pooler.dense,classifier}}.{BOTH}",
            "vit.encoder.layer.{0,1,2,3,4,5,6,7,8,9,10,11}.{attention.attention.query,attention.attention.key,"
            "attention.attention.value,attention.output.dense,intermediate.dense,output.dense,layernorm_before,"
            f"layernorm_after}}.{BOTH}",
        ],
    ),
    "timm's ConvNeXt": (
        "convnext_tiny",
        [
            f"{{stem.0,stem.1,head.norm,head.fc}}.{BOTH}",
            f"stages.{{1,2,3}}.downsample.{{0,1}}.{BOTH}",
            *(
                f"stages.{stages}.blocks.{blocks}.{name}"
                for stages, blocks in (("{0,1,3}", "{0,1,2}"), ("2", "{0,1,2,3,4,5,6,7,8}"))
                for name in ("gamma", f"{{conv_dw,norm,mlp.fc1,mlp.fc2}}.{BOTH}")
            ),
        ],
    ),
    "Hugging Face's ConvNeXt": (
        "convnext_tiny",
        [
            "{convnext.embeddings.patch_embeddings,convnext.embeddings.layernorm,convnext.layernorm,classifier}."
            + BOTH,
            f"convnext.encoder.stages.{{1,2,3}}.downsampling_layer.{{0,1}}.{BOTH}",
            *(
                f"convnext.encoder.stages.{stages}.layers.{blocks}.{name}"
                for stages, blocks in (("{0,1,3}", "{0,1,2}"), ("2", "{0,1,2,3,4,5,6,7,8}"))
                for name in ("layer_scale_parameter", f"{{dwconv,layernorm,pwconv1,pwconv2}}.{BOTH}")
            ),
        ],
    ),
    "its authors' ConvNeXt": (
        "convnext_tiny",
        [
            f"{{norm,head}}.{BOTH}",
            f"downsample_layers.{{0,1,2,3}}.{{0,1}}.{BOTH}",
            *(
                f"stages.{stages}.{blocks}.{name}"
                for stages, blocks in (("{0,1,3}", "{0,1,2}"), ("2", "{0,1,2,3,4,5,6,7,8}"))
                for name in ("gamma", f"{{dwconv,norm,pwconv1,pwconv2}}.{BOTH}")
            ),
        ],
    ),
    "Hugging Face's ResNet": (
        "resnet18",
        [
            "resnet.embedder.embedder.convolution.weight",
            f"resnet.embedder.embedder.normalization.{NORM}",
            "resnet.encoder.stages.{0,1,2,3}.layers.{0,1}.layer.{0,1}.convolution.weight",
            f"resnet.encoder.stages.{{0,1,2,3}}.layers.{{0,1}}.layer.{{0,1}}.normalization.{NORM}",
            "resnet.encoder.stages.{1,2,3}.layers.0.shortcut.convolution.weight",
            f"resnet.encoder.stages.{{1,2,3}}.layers.0.shortcut.normalization.{NORM}",
            f"classifier.1.{BOTH}",
        ],
    ),
    "DenseNet files of 2017": (
        "densenet121",
        [
            "features.conv0.weight",
            f"features.{{norm0,norm5}}.{NORM}",
            f"classifier.{BOTH}",
            "features.transition{1,2,3}.conv.weight",
            f"features.transition{{1,2,3}}.norm.{NORM}",
            *(
                f"features.denseblock{block}.denselayer{layer}.{name}"
                for block, depth in enumerate((6, 12, 24, 16), start=1)
                for layer in range(1, depth + 1)
                for name in ("conv.{1,2}.weight", f"norm.{{1,2}}.{NORM}")
            ),
        ],
    ),
}


def spelt(pattern: str) -> Iterator[str]:
    """The names of a pattern in which braces hold alternatives."""
    parts = [part.split(",") for part in re.split(r"[{}]", pattern)]
    yield from ("".join(choice) for choice in itertools.product(*parts))


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = torchvision.models.get_model(name, weights=None)
    return model


def test_every_spelling_has_a_file() -> None:
    assert {spelling.source for spelling in SPELLINGS} == {*FILES}


@pytest.mark.parametrize("source", FILES)
def test_each_name_of_a_file_becomes_one_of_the_model(source: str) -> None:
    name, patterns = FILES[source]
    theirs: dict[str, Tensor] = {one: torch.zeros(1) for pattern in patterns for one in spelt(pattern)}
    applied = [spelling for spelling in SPELLINGS if spelling.translated(theirs) is not None]
    assert [spelling.source for spelling in applied] == [source]
    assert {*(applied[0].translated(theirs) or ())} == {*on_meta(name).state_dict()}


def test_weights_of_another_family_are_recognised() -> None:
    for name in ("densenet121", "resnet34", "resnet18", "vgg16_bn", "vit_b_32", "efficientnet_b1"):
        assert recognised(on_meta(name).state_dict(), last_layer) == name
    assert recognised({"weight": torch.zeros(1)}, last_layer) is None


def test_translated_names_are_recognised() -> None:
    weights = on_meta("densenet121").state_dict()
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))", r"\1.", key): value for key, value in weights.items()}
    assert old.keys() != weights.keys()
    assert recognised({f"module.{key}": value for key, value in old.items()}, last_layer) == "densenet121"
