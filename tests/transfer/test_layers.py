"""The layers of a backbone that names none, by the rule that docstrings give."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision import models

from toolkit.transfer.layers import layers_of, own_undecayed

STEM = {"resnet18": ["conv1", "bn1"], "densenet121": ["features.conv0", "features.norm0"]}
LAST = {"resnet18": ["layer4.1"], "densenet121": ["features.denseblock4", "features.norm5"]}
COUNT = {"resnet18": 9, "densenet121": 8}


@pytest.mark.parametrize("name", STEM)
def test_convolutional_networks_are_a_stem_and_their_blocks(name: str) -> None:
    with torch.device("meta"):
        model = getattr(models, name)()
    setattr(model, "fc" if name == "resnet18" else "classifier", nn.Identity())
    layers = layers_of(model)
    assert (layers[0], layers[-1], len(layers)) == (STEM[name], LAST[name], COUNT[name])


def test_a_transformer_is_its_embeddings_and_its_blocks() -> None:
    with torch.device("meta"):
        model = models.vit_b_16()
    model.heads = nn.Identity()
    layers = layers_of(model)
    assert len(layers) == 13
    assert layers[0] == ["class_token", "encoder.pos_embedding", "conv_proj"]
    assert layers[-1] == ["encoder.layers.encoder_layer_11", "encoder.ln"]


def test_every_parameter_is_part_of_one_layer() -> None:
    with torch.device("meta"):
        backbones = [models.resnet18(), models.densenet121(), models.vit_b_16(), models.convnext_tiny(), models.vgg11()]
    for model in backbones:
        prefixes = [f"{prefix}." for layer in layers_of(model) for prefix in layer]
        for name, _ in model.named_parameters():
            assert sum(f"{name}.".startswith(prefix) for prefix in prefixes) == 1


def test_small_modules() -> None:
    assert layers_of(nn.Identity()) == []
    assert layers_of(nn.Linear(2, 2)) == [["weight", "bias"]]


def test_the_names_that_a_backbone_lists_itself() -> None:
    class Listing(nn.Linear):
        def no_weight_decay(self) -> list[str]:
            return ["weight"]

    assert own_undecayed(Listing(2, 2)) == {"weight"}
    assert own_undecayed(nn.Linear(2, 2)) == frozenset()
