"""Probabilities of stochastic depth, against the rule of its paper."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.ops import StochasticDepth

from toolkit.transfer.drop_path import set_drop_path


@pytest.mark.parametrize(("name", "blocks"), [("convnext_tiny", 18), ("swin_t", 12)])
def test_probabilities_rise_linearly_to_the_greatest(name: str, blocks: int) -> None:
    with torch.device("meta"):
        model = getattr(models, name)()
    set_drop_path(model, 0.4, name)
    found = [module.p for module in model.modules() if isinstance(module, StochasticDepth)]
    each = len(found) // blocks  # attention and MLP of a transformer's block are dropped apart
    assert found == pytest.approx([0.4 * (place // each) / (blocks - 1) for place in range(len(found))])


def test_a_model_without_residual_branches_that_drop() -> None:
    with pytest.raises(ValueError, match=re.escape("drop_path: plain has no branches that could be dropped")):
        set_drop_path(nn.Sequential(nn.Linear(2, 2), StochasticDepth(0.0, "row")), 0.1, "plain")
