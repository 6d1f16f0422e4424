"""The network: one arithmetic from uint8 pixels to logits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests import small
from toolkit.api.contracts import IMAGENET_MEAN, IMAGENET_STD
from toolkit.training.network import Network, Normalize


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 6, 3, 4, 5)])
def test_normalisation_is_scale_then_shift_then_divide(shape: tuple[int, ...]) -> None:
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    normalised = Normalize(IMAGENET_MEAN, IMAGENET_STD)(pixels)
    assert normalised.dtype == torch.float32
    torch.testing.assert_close(normalised, (pixels / 255 - mean) / std, atol=2e-6, rtol=0)


@pytest.mark.parametrize("shape", [(2, 5, 4, 3), (1, 1, 1, 3), (2, 6, 4, 5, 3), (4, 5, 3)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_channels_last_pixels_become_the_same_numbers_in_the_same_layout(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    values = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    pixels, normalize = values.movedim(-1, -3), Normalize(IMAGENET_MEAN, IMAGENET_STD)
    normalised = normalize(pixels)
    assert torch.equal(normalised, normalize(pixels.contiguous()))
    assert normalised.movedim(-3, -1).is_contiguous()
    assert torch.equal(pixels, values.movedim(-1, -3))


def test_a_crop_of_channels_last_pixels_is_normalised_alike() -> None:
    pixels = torch.randint(0, 256, (2, 9, 9, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    crop, normalize = pixels.movedim(-1, -3)[..., 1:6, 2:7], Normalize(IMAGENET_MEAN, IMAGENET_STD)
    assert torch.equal(normalize(crop), normalize(crop.contiguous()))


def test_pixels_are_normalised_alike_however_many_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randint(0, 256, (3, 9, 4, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels, normalize = values.movedim(-1, -3), Normalize(IMAGENET_MEAN, IMAGENET_STD)
    whole = normalize(pixels)
    for count in (1, 24, 60):
        monkeypatch.setattr("toolkit.training.network.CACHED", count)
        assert torch.equal(normalize(pixels), whole)
    assert normalize(pixels[:0]).shape == (0, 3, 9, 4)


def test_each_channel_has_its_own_mean_and_deviation() -> None:
    grey = torch.full((1, 3, 1, 1), 51, dtype=torch.uint8)
    assert Normalize((0.2, 0.0, 0.1), (0.5, 0.1, 0.2))(grey).flatten().tolist() == pytest.approx([0, 2, 0.5], abs=1e-6)


def test_the_model_sees_normalised_pixels() -> None:
    network = Network(nn.Flatten(), small.SPEC)
    pixels = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    assert torch.equal(network(pixels), torch.full((2, 192), -2.0))


def test_a_checkpoint_holds_the_model_alone() -> None:
    network = Network(nn.Linear(2, 2), replace(small.SPEC, mean=(0.1, 0.1, 0.1)))
    assert set(network.state_dict()) == {"model.weight", "model.bias"}
