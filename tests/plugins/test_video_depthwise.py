from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from toolkit.api.clips import Clip
from toolkit_video.depthwise import DepthwiseConv3d, with_fast_gradients
from toolkit_video.designs import Wanted
from toolkit_video.networks import BUILDERS

CHANNELS = 5


def layer(dtype: torch.dtype = torch.float64, **arguments: object) -> nn.Conv3d:
    settings = {"kernel_size": 3, "padding": 1, "groups": CHANNELS, "bias": False} | arguments
    return nn.Conv3d(CHANNELS, CHANNELS, dtype=dtype, **settings)  # type: ignore[arg-type]


def clips(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """With the channels innermost in memory."""
    return torch.randn(2, *shape, CHANNELS, dtype=dtype).movedim(-1, 1).requires_grad_()


def gradients(made: Tensor, *of: Tensor) -> tuple[Tensor, ...]:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return torch.autograd.grad(made, of, torch.randn(made.shape, dtype=made.dtype))


@st.composite
def layers(draw: st.DrawFn) -> nn.Conv3d:
    sizes = tuple(draw(st.tuples(*[st.integers(1, 4)] * 3)))
    strides = draw(st.sampled_from([(1, 1, 1), (1, 2, 2), (2, 1, 1), (2, 2, 2), (3, 1, 2)]))
    padding = tuple(draw(st.integers(0, size - 1)) for size in sizes)
    return layer(kernel_size=sizes, stride=strides, padding=padding)


@settings(max_examples=60)
@given(plain=layers(), shape=st.tuples(*[st.integers(4, 7)] * 3) | st.tuples(st.integers(4, 5), st.just(4), st.just(4)))
def test_the_gradients_are_those_of_any_convolution(plain: nn.Conv3d, shape: tuple[int, int, int]) -> None:
    given = clips(*shape)
    expected = plain(given)
    made = DepthwiseConv3d(plain)(given)
    assert torch.equal(made, expected)
    for ours, theirs in zip(
        gradients(made, given, plain.weight), gradients(expected, given, plain.weight), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("side", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("frames", [1, 2])
def test_maps_and_clips_smaller_than_the_kernel(side: int, stride: int, frames: int) -> None:
    plain = layer(stride=(1, stride, stride))
    given = clips(frames, side, side)
    expected = gradients(plain(given), given, plain.weight)
    made = gradients(DepthwiseConv3d(plain)(given), given, plain.weight)
    for ours, theirs in zip(made, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("frozen", "wanted"), [("weight", "clips"), ("clips", "weight")])
def test_only_what_is_wanted_has_a_gradient(frozen: str, wanted: str) -> None:
    fast, given = DepthwiseConv3d(layer()), clips(4, 5, 5)
    parts = {"weight": fast.weight, "clips": given}
    parts[frozen].requires_grad_(False)
    fast(given).sum().backward()
    assert parts[frozen].grad is None
    assert parts[wanted].grad is not None


def test_in_autocast_the_gradients_keep_the_types_of_their_tensors() -> None:
    fast, given = DepthwiseConv3d(layer(torch.float32)), clips(4, 5, 5, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        made = fast(given)
    assert made.dtype == torch.bfloat16
    ours = gradients(made.float(), given, fast.weight)
    assert {gradient.dtype for gradient in ours} == {torch.float32}
    for one, other in zip(ours, gradients(layer_of(fast)(given), given, fast.weight), strict=True):
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.5)


def layer_of(fast: DepthwiseConv3d) -> nn.Conv3d:
    plain = layer(torch.float32)
    plain.weight = fast.weight
    return plain


def test_the_gradient_of_clips_lies_in_memory_as_they_do() -> None:
    for stride in (1, 2):
        given = clips(4, 6, 6)
        DepthwiseConv3d(layer(stride=(1, stride, stride)))(given).sum().backward()
        assert given.grad is not None
        assert given.grad.is_contiguous(memory_format=torch.channels_last_3d)


def test_a_copy_is_one_too() -> None:
    fast = DepthwiseConv3d(layer())
    twin, given = copy.deepcopy(fast), clips(4, 5, 5)
    assert type(twin) is DepthwiseConv3d
    assert torch.equal(twin(given), fast(given))


def test_only_depthwise_convolutions_without_extras_are_replaced() -> None:
    network = nn.Sequential(
        layer(),
        layer(bias=True),
        layer(groups=1),
        layer(dilation=2),
        layer(padding_mode="circular"),
        layer(padding="same"),
    )
    with_fast_gradients(network)
    assert [type(one) is DepthwiseConv3d for one in network] == [True, False, False, False, False, False]


@pytest.mark.parametrize(("name", "count"), [("x3d_xs", 27), ("csn_r101", 33)])
def test_the_networks_have_them(name: str, count: int) -> None:
    whole = BUILDERS[name](Wanted(3, Clip(frames=4).frames, 32)).whole
    assert sum(type(module) is DepthwiseConv3d for module in whole.modules()) == count
