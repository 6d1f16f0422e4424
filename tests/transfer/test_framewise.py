from __future__ import annotations

import importlib
from collections.abc import Callable

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import toolkit_vision
from toolkit.api.clips import Clip
from toolkit.api.contracts import DataSpec, Grouped
from toolkit.transfer.framewise import Temporal
from toolkit_vision import backbones, cnn, small
from toolkit_vision.names import BACKBONES, RESNETS
from toolkit_vision.shift import TemporalShift

pytestmark = pytest.mark.usefixtures("seeded")

T, SIDE = 4, 16
SPEC = DataSpec(classes=tuple("abc"), size=SIDE, clip=Clip(frames=T))
IMAGES = DataSpec(classes=tuple("abc"), size=SIDE)
TINY = "shufflenet_v2_x0_5"
HEADS = ("average", "lstm", "gru", "attention")
OFFERED = {name: str(getattr(one, "factory", one)) for name, one in toolkit_vision.toolkit_models().items()}


def build(name: str, spec: DataSpec = SPEC, **arguments: object) -> nn.Module:
    module, _, attribute = OFFERED[name].partition(":")
    factory: Callable[..., nn.Module] = getattr(importlib.import_module(module), attribute)
    return factory(spec, **arguments)


def clips(batch: int = 2, frames: int = T, size: int = SIDE) -> Tensor:
    """Normalised clips with their channels innermost in memory, as the network gets them."""
    return torch.randn(batch, frames, size, size, 3).movedim(-1, 2)


def of_frames(head: str, frames: int = T, **arguments: int) -> nn.Module:
    """From 6 features of each frame to 3 logits of a clip."""
    return Temporal(head, **arguments).over_frames(frames, 6, lambda features: nn.Linear(features, 3))  # type: ignore[arg-type]


# Logits of clips


@pytest.mark.parametrize(
    ("name", "head"),
    [*((name, head) for name in ("cnn", TINY) for head in HEADS), ("resnet18", "average"), ("resnet34", "attention")],
)
def test_a_clip_has_one_row_of_logits(name: str, head: str) -> None:
    model = build(name, head=head)
    for training in (True, False):
        logits = model.train(training)(clips())
        assert logits.shape == (2, 3)
        assert logits.isfinite().all()


@settings(max_examples=12)
@given(
    head=st.sampled_from(HEADS), frames=st.integers(1, 9), batch=st.integers(1, 4), classes=st.integers(2, 5),
    layers=st.integers(1, 3), width=st.sampled_from([64, 128]),
)  # fmt: skip
def test_any_number_of_frames_layers_and_classes(
    head: str, frames: int, batch: int, classes: int, layers: int, width: int
) -> None:
    spec = DataSpec(classes=tuple(map(str, range(classes))), size=16, clip=Clip(frames=frames))
    sized = {} if head == "average" else {"head_layers": layers, "head_width": width}
    model = cnn.cnn(spec, widths=(4, 4), head=head, **sized).eval()  # type: ignore[arg-type]
    assert model(clips(batch, frames, 16)).shape == (batch, classes)


@pytest.mark.parametrize("head", HEADS)
def test_a_clip_is_answered_alike_alone_and_in_a_batch(head: str) -> None:
    model = build("cnn", head=head).eval()
    batch = clips(3)
    together = model(batch)
    for number in range(3):
        torch.testing.assert_close(model(batch[number : number + 1])[0], together[number])


def test_average_is_the_mean_of_the_frames_own_logits() -> None:
    framewise, images = build(TINY).eval(), build(TINY, IMAGES).eval()
    images.backbone.load_state_dict(framewise.backbone[1].state_dict())
    images.head.load_state_dict(framewise.head[0].state_dict())
    batch = clips()
    expected = torch.stack([images(batch[:, frame]) for frame in range(T)]).mean(0)
    torch.testing.assert_close(framewise(batch), expected)


@pytest.mark.parametrize(("head", "sees"), [("average", False), ("lstm", True), ("gru", True), ("attention", True)])
def test_which_heads_see_the_order_of_frames(head: str, sees: bool) -> None:
    model = of_frames(head).eval()
    frames = torch.randn(T, 6)
    same = torch.allclose(model(frames), model(frames.flip(0)), atol=1e-6)
    assert same is not sees


@pytest.mark.parametrize("head", HEADS)
def test_every_frame_counts(head: str) -> None:
    frames = torch.randn(2 * T, 6, requires_grad=True)
    of_frames(head).eval()(frames).square().sum().backward()
    assert frames.grad is not None
    assert (frames.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize(("head", "layers"), [("lstm", 1), ("gru", 1), ("attention", 2)])
def test_defaults_of_the_temporal_heads(head: str, layers: int) -> None:
    unset, spelled_out = of_frames(head), of_frames(head, width=256, layers=layers)
    assert [p.shape for p in unset.parameters()] == [p.shape for p in spelled_out.parameters()]


def test_hidden_and_dropout_keep_their_meaning() -> None:
    classify = build(TINY, head="gru", hidden=7, dropout=0.4).head[-1]
    assert classify[0].out_features == 7
    assert classify[3].p == 0.4


# On images


@pytest.mark.parametrize("name", ["cnn", TINY])
def test_images_have_the_head_they_always_had(name: str) -> None:
    assert build(name, IMAGES)(clips()[:, 0]).shape == (2, 3)


@pytest.mark.parametrize("head", ["lstm", "gru", "attention"])
@pytest.mark.parametrize("name", ["cnn", "resnet18", "vgg16_bn", "resnet50", TINY])
def test_a_temporal_head_on_images(name: str, head: str) -> None:
    with pytest.raises(ValueError, match=rf'head: "{head}" needs clips, and these are images: add a \[clip\] table'):
        build(name, IMAGES, head=head)


@pytest.mark.parametrize("name", ["resnet18", "resnet34"])
def test_shift_on_images(name: str) -> None:
    with pytest.raises(ValueError, match=r"shift: needs clips, and these are images: add a \[clip\] table"):
        build(name, IMAGES, shift=True)


@pytest.mark.parametrize("key", ["head_width", "head_layers"])
def test_an_average_has_no_width_and_no_layers(key: str) -> None:
    with pytest.raises(ValueError, match=f'{key}: needs head = "lstm", "gru" or "attention"'):
        build(TINY, **{key: 64})


def test_a_width_that_attention_cannot_divide() -> None:
    with pytest.raises(ValueError, match="head_width: must be a multiple of 64 for attention, got 100"):
        build(TINY, head="attention", head_width=100)


# Training


@pytest.mark.parametrize(
    ("name", "arguments", "precision"), [("resnet18", {"shift": True}, torch.float32), ("cnn", {}, torch.bfloat16)]
)
@pytest.mark.parametrize("head", HEADS)
def test_a_step_reaches_every_parameter(
    name: str, arguments: dict[str, bool], head: str, precision: torch.dtype
) -> None:
    model = build(name, head=head, **arguments)
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        nn.functional.cross_entropy(model(clips()).float(), torch.tensor([0, 2])).backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_frozen_framewise_backbones_train_the_head_alone() -> None:
    model = build(TINY, head="attention", freeze=True).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    nn.functional.cross_entropy(model(clips()), torch.tensor([0, 2])).backward()
    optimizer.step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert "head.3.position" in moved
    assert all(name.startswith("head.") for name in moved)


@pytest.mark.parametrize(("name", "head"), [*(("cnn", head) for head in HEADS), (TINY, "attention")])
def test_parts_and_state_dict(name: str, head: str) -> None:
    first, second = build(name, head=head), build(name, head=head)
    assert isinstance(first, Grouped)
    in_parts = [id(parameter) for part in first.parts().values() for parameter in part.parameters()]
    assert sorted(in_parts) == sorted(id(parameter) for parameter in first.parameters())
    second.load_state_dict(first.state_dict())
    batch = clips()
    torch.testing.assert_close(first.eval()(batch), second.eval()(batch), rtol=0, atol=0)


@pytest.mark.parametrize("head", ["lstm", "gru", "attention"])
def test_temporal_heads_learn_which_way_a_square_moves(head: str) -> None:
    """Left or right: no single frame shows the direction, nor does the average of frames."""
    torch.manual_seed(0)
    spec = DataSpec(classes=("left", "right"), size=16, clip=Clip(frames=T))
    model = cnn.cnn(spec, widths=(8, 16), logit_scale=1.0, head=head, head_width=64)  # type: ignore[arg-type]
    batch, targets = moving_squares()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(100):
        logits = model(batch)
        if (logits.argmax(1) == targets).all():
            return
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, targets).backward()
        optimizer.step()
    pytest.fail("some directions are still wrong after 100 steps")


def moving_squares() -> tuple[Tensor, Tensor]:
    batch, targets = torch.zeros(16, T, 3, 16, 16), torch.arange(16) % 2
    for number, target in enumerate(targets.tolist()):
        for frame in range(T):
            place = 3 * (frame if target else T - 1 - frame)
            batch[number, frame, :, number // 2 : number // 2 + 4, place : place + 4] = 1
    return batch, targets


# Temporal shift


def test_shift_moves_an_eighth_each_way_and_fills_with_zeros() -> None:
    features = torch.arange(1.0, 1 + 2 * T * 16).view(2 * T, 16, 1, 1)
    shifted = TemporalShift(T)(features).view(2, T, 16)
    still = features.view(2, T, 16)
    torch.testing.assert_close(shifted[:, :-1, :2], still[:, 1:, :2])
    torch.testing.assert_close(shifted[:, 1:, 2:4], still[:, :-1, 2:4])
    torch.testing.assert_close(shifted[:, :, 4:], still[:, :, 4:])
    assert (shifted[:, -1, :2] == 0).all()
    assert (shifted[:, 0, 2:4] == 0).all()


def test_shift_leaves_channels_innermost() -> None:
    features = torch.randn(2 * T, 16, 5, 5).to(memory_format=torch.channels_last)
    assert TemporalShift(T)(features).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("name", "branches"), [("resnet18", 8), ("resnet34", 16), ("resnet50", 16)])
@pytest.mark.usefixtures("undrawn")
def test_every_residual_branch_is_shifted(name: str, branches: int) -> None:
    model = build(name, shift=True)
    assert sum(isinstance(module, TemporalShift) for module in model.modules()) == branches
    assert not any(isinstance(module, TemporalShift) for module in build(name).modules())


def test_shift_costs_no_parameters_and_mixes_frames() -> None:
    plain, shifted = build("resnet18").eval(), build("resnet18", shift=True).eval()
    assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in shifted.parameters())
    for module in (*plain.modules(), *shifted.modules()):
        if isinstance(module, torchvision.models.resnet.BasicBlock):
            nn.init.ones_(module.bn2.weight)  # open the branches, which begin at zero
    batch = clips()
    torch.testing.assert_close(plain(batch), plain(batch.flip(1)))
    assert not torch.allclose(shifted(batch), shifted(batch.flip(1)))


def test_weights_of_images_fit_a_shifted_resnet(tmp_path: object) -> None:
    source = build("resnet34", IMAGES).backbone.state_dict()
    torch.save(source, f"{tmp_path}/weights.pt")
    model = build("resnet34", shift=True, weights=f"{tmp_path}/weights.pt")
    taken = model.backbone[1].layer1[0].conv1[1].weight
    torch.testing.assert_close(taken, source["layer1.0.conv1.weight"], rtol=0, atol=0)


def test_resnets_alone_can_be_shifted() -> None:
    made = {name: torchvision.models.get_model_builder(name).__module__ for name in BACKBONES}
    assert set(RESNETS) == {name for name, module in made.items() if module == "torchvision.models.resnet"}
    with pytest.raises(TypeError, match="shift"):
        backbones.densenet121(SPEC, shift=True)
    with pytest.raises(TypeError, match="shift"):
        small.vgg16_bn(SPEC, shift=True)  # type: ignore[call-arg]
