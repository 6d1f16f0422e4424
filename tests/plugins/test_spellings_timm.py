"""The included models take files of timm, and then answer as timm's own models do."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn

from toolkit.transfer.weights import load_weights
from toolkit_vision.spellings import known_for
from toolkit_vision.torchvision_models import remove_last_linear


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("resnet18", "resnet18"),
        ("vgg11_bn", "vgg11_bn"),
        ("efficientnet_b0", "efficientnet_b0"),
        ("vit_b_32", "vit_base_patch32_224"),
        ("convnext_tiny", "convnext_tiny"),
    ],
)
def test_weights_of_timm_give_the_answers_of_timm(name: str, theirs: str, request: pytest.FixtureRequest) -> None:
    torch.manual_seed(0)
    source = timm.create_model(theirs, pretrained=False).eval()
    request.getfixturevalue("undrawn")
    model: nn.Module = torchvision.models.get_model(name, weights=None).eval()
    load_weights(model, source.state_dict(), source=theirs, known=known_for(name, remove_last_linear))
    pixels = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(model(pixels), source(pixels), rtol=1e-4, atol=1e-5)
