"""Batch norm and dropout that see the whole batch: against torch's own layers, and by parts."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from toolkit.system.ranks import ALONE, Ranks
from toolkit.training.whole_batch import BatchNorm, Dropout, Part, drawing, drop_by_item, moments, norm_over_ranks

LAYERS = {
    (6, 5): nn.BatchNorm1d,
    (6, 5, 7): nn.BatchNorm1d,
    (6, 5, 4, 3): nn.BatchNorm2d,
    (6, 5, 2, 4, 3): nn.BatchNorm3d,
}


def placed(part: Part, places: list[int], *, size: int, step: int = 0) -> None:
    part.begin(0, 0, step, size=size, places=torch.tensor(places))


@pytest.mark.parametrize("shape", LAYERS)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_batch_norm_is_torchs(
    shape: tuple[int, ...], affine: bool, momentum: float | None, dtype: torch.dtype, close: float
) -> None:
    torch.manual_seed(1)
    expected = LAYERS[shape](5, affine=affine, momentum=momentum)
    if affine:
        nn.init.normal_(expected.weight)
        nn.init.normal_(expected.bias)
    expected.to(dtype)
    found = BatchNorm(copy.deepcopy(expected), ALONE)
    for _ in range(2):
        values, slopes = 3 * torch.randn(shape, dtype=dtype) + 5, torch.randn(shape, dtype=dtype)
        seen: list[list[Tensor]] = []
        for layer in (expected, found):
            given = values.clone().requires_grad_()
            layer.zero_grad()
            answer = layer(given)
            (answer * slopes).sum().backward()
            seen.append([answer, given.grad, *(one.grad for one in layer.parameters()), *layer.buffers()])  # type: ignore[list-item]
        for one, other in zip(*seen, strict=True):
            torch.testing.assert_close(other, one, rtol=close, atol=close)
    expected.eval(), found.eval()
    torch.testing.assert_close(found(values), expected(values), rtol=close, atol=close)  # the running statistics differ
    assert found.state_dict().keys() == expected.state_dict().keys()


@pytest.mark.parametrize("shape", [(64, 8, 32, 32), (3, 8, 4, 7, 5), (16, 8, 2, 2), (45, 8), (13, 8), (6, 8, 5)])
@pytest.mark.parametrize("innermost", [True, False])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 2e-7), (torch.float64, 1e-14)])
def test_moments_are_exact_however_many_values_there_are(
    shape: tuple[int, ...], innermost: bool, dtype: torch.dtype, close: float
) -> None:
    """torch's own kernel is off by 1e-5 for the first shape if channels lie innermost."""
    values = (2 * torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 1).to(dtype)
    values = values.movedim(1, -1).contiguous().movedim(-1, 1) if innermost else values
    mean, variance = moments(values)
    of_channels = values.double().movedim(1, 0).flatten(1)
    expected = of_channels.var(1, correction=0)
    assert mean.dtype == variance.dtype == torch.float64
    assert float(((mean - of_channels.mean(1)) / expected.sqrt()).abs().max()) < close
    assert float((variance / expected - 1).abs().max()) < 2 * close


def test_a_mask_follows_the_place_of_an_item_whatever_else_is_computed() -> None:
    """Ranks and parts compute some items of a batch each: all of them together drop what one alone would."""
    part = Part()
    layer = Dropout(0.5, None, part, 0)
    values = torch.ones(8, 3, 4)
    placed(part, list(range(8)), size=8)
    whole = layer(values)
    for places in ([0, 1, 2], [5], [7, 3]):
        placed(part, places, size=8)
        assert torch.equal(layer(values[: len(places)]), whole[places])
    placed(part, list(range(8)), size=8, step=1)
    assert not torch.equal(layer(values), whole)
    assert not torch.equal(Dropout(0.5, None, part, 1)(values), layer(values))


def test_a_mask_keeps_the_mean_and_drops_the_share() -> None:
    part = Part()
    placed(part, list(range(64)), size=64)
    dropped = Dropout(0.25, None, part, 0)(torch.ones(64, 1000))
    assert dropped.unique().tolist() == [0.0, pytest.approx(1 / 0.75)]
    assert float((dropped == 0).float().mean()) == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_dropping_nothing_or_everything_needs_no_draw(share: float) -> None:
    part = Part()
    placed(part, [0, 1], size=2)
    assert Dropout(share, None, part, 0)(torch.ones(2, 3)).unique().tolist() == [1 - share]


def test_the_frames_of_an_item_have_masks_of_their_own() -> None:
    part = Part()
    layer = Dropout(0.5, None, part, 0)
    placed(part, [0, 1], size=2)
    frames = layer(torch.ones(2 * 3, 50))
    assert len({tuple(row) for row in frames.tolist()}) == 6
    placed(part, [1], size=2)
    assert torch.equal(layer(torch.ones(3, 50)), frames[3:])


def test_dropout_of_channels_drops_them_whole() -> None:
    network = nn.Sequential(nn.Dropout2d(0.5))
    placed(drop_by_item(network), [0, 1, 2, 3], size=4)
    dropped = network(torch.ones(4, 16, 5, 5)).flatten(2)
    assert torch.equal(dropped.amin(2), dropped.amax(2))
    assert 0 < int((dropped.amin(2) == 0).sum()) < 64


def test_layers_are_replaced_where_they_stand() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Sequential(nn.Dropout(0.1), nn.BatchNorm1d(2)), nn.Dropout(0.2))
    names = list(network.state_dict())
    drop_by_item(network)
    norm_over_ranks(network, Ranks(0, 2))
    assert [type(layer) for layer in network.modules()] == [
        nn.Sequential,
        BatchNorm,
        nn.Sequential,
        Dropout,
        BatchNorm,
        Dropout,
    ]
    assert list(network.state_dict()) == names
    assert "p=0.2" in repr(network[2])


def test_without_a_batch_dropout_is_torchs() -> None:
    """What is not a training step (a look at the memory of one, say) has no place in a batch."""
    layer = Dropout(0.5, None, Part(), 0)
    values = torch.ones(4, 10)
    torch.manual_seed(0)
    found = layer(values)
    torch.manual_seed(0)
    assert torch.equal(found, nn.functional.dropout(values, 0.5))
    assert torch.equal(layer.eval()(values), values)


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_stochastic_depth_drops_items_whole_by_their_places(library: str) -> None:
    if library == "torchvision":
        from torchvision.ops import StochasticDepth

        network = nn.Sequential(StochasticDepth(0.5, "row"))
    else:
        drop = pytest.importorskip("timm.layers.drop", reason="timm is not installed")
        network = nn.Sequential(drop.DropPath(0.5))
    part = drop_by_item(network)
    placed(part, list(range(64)), size=64)
    whole = network(torch.ones(64, 3, 4))
    assert set(whole.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(whole.amin((1, 2)), whole.amax((1, 2)))
    placed(part, [5, 60], size=64)
    assert torch.equal(network(torch.ones(2, 3, 4)), whole[[5, 60]])


def test_stochastic_depth_of_whole_batches_is_left_to_its_library() -> None:
    from torchvision.ops import StochasticDepth

    network = nn.Sequential(StochasticDepth(0.5, "batch"))
    drop_by_item(network)
    assert isinstance(network[0], StochasticDepth)


def test_layers_that_draw_by_themselves_are_found() -> None:
    network = nn.Sequential(
        nn.Dropout(0.1),
        nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True),
        nn.LSTM(4, 4, num_layers=2, dropout=0.2, batch_first=True),
    )
    placed(drop_by_item(network), [0, 1], size=2)
    with drawing(network, torch.device("cpu")) as found:
        network(torch.ones(2, 5, 4))
    assert found == ["1.self_attn", "2"]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_what_draws_outside_of_all_layers_is_found() -> None:
    network = nn.Sequential(nn.Linear(2, 2))
    with drawing(network, torch.device("cpu")) as found:
        nn.functional.dropout(network(torch.ones(2, 2)))
    assert found == [""]
