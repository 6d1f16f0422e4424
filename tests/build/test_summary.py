"""The model's summary: one line in words for the screen, a table for summary.txt."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.small import SPEC
from toolkit.build.summary import Summary, amount, summarise


@pytest.mark.parametrize(
    ("count", "text"), [(812, "812"), (81_240, "81.2 k"), (333_700_000, "333.7 M"), (4_090_000_000, "4.1 G")]
)
def test_counts_have_a_unit_that_people_use(count: int, text: str) -> None:
    assert amount(count) == text


def test_the_line_names_the_model_and_what_training_may_change() -> None:
    whole = Summary("", parameters=23_500_000, trained=23_500_000, multiply_adds=333_700_000)
    frozen = Summary("", parameters=23_500_000, trained=30_700, multiply_adds=333_700_000)
    assert whole.line("resnet50", "image") == "model resnet50: 23.5 M parameters, 333.7 M multiply-adds per image"
    assert frozen.line("resnet50", "clip") == (
        "model resnet50: 23.5 M parameters (0.1 % trained), 333.7 M multiply-adds per clip"
    )


@pytest.mark.parametrize("width", [1, 64])
def test_the_table_has_a_row_per_layer_and_no_names_of_torchinfo_for_units(width: int) -> None:
    network = nn.Sequential(nn.Conv2d(3, 64 * width, 3), nn.Flatten(), nn.Linear(64 * width * 36, 4))
    network[0].requires_grad_(False)
    summary = summarise(Pixels(network), SPEC, torch.device("cpu"), compiled=False)
    assert "Conv2d" in summary.table
    assert "Units." not in summary.table
    assert summary.trained == sum(parameter.numel() for parameter in network[2].parameters())
    assert summary.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert summary.multiply_adds > 0


class Pixels(nn.Module):
    """Takes uint8, as a network does."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.inner(pixels.float())
        return scores
