"""What epochs train: layer after layer, or small images and then larger ones, against plain loops."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests import small
from toolkit.training.fit import fit
from toolkit.training.network import Network
from toolkit.training.optimize import LayerDecay, Layers, parameter_groups
from toolkit.training.stages import Fixres, Stage, Stages, at_size, smaller, trainable
from toolkit.training.state import Setup, State
from toolkit.transfer.classifier import Classifier
from toolkit_optim import optimizers

CPU = torch.device("cpu")
EPOCHS, STEPS, BATCH, RATE = 4, 3, 6, 0.05


def model(seed: int = 0) -> Classifier:
    """Three layers with batch norm, for images of any size."""
    torch.manual_seed(seed)
    blocks = [
        nn.Sequential(nn.Conv2d(3 if first else 4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        for first in (True, False, False)
    ]
    backbone = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Classifier(backbone, nn.Linear(4, 2))


def setup(stages: Stages, **changes: Any) -> Setup:
    return small.setup(
        small.Squares(BATCH * STEPS), small.Squares(9), augmentations=(), epochs=EPOCHS, stages=stages, **changes
    )


def fixres(built: nn.Module, **changes: Any) -> Stages:
    last = Stage(**{"layers": 1, **changes})
    return Stages(EPOCHS, fixres=Fixres(5, last, 2), trainable=trainable(built))


def gradual(built: nn.Module) -> Stages:
    return Stages(EPOCHS, layers=0, thaw_every=1, trainable=trainable(built))


def begun(built: Classifier, stages: Stages, **changes: Any) -> tuple[State, Setup]:
    asked = setup(stages)
    state = small.state(asked, network=Network(built, small.SPEC), **changes)
    groups = parameter_groups(
        {"model": built}, RATE, {}, decay_norms_and_biases=True, layer_decay=LayerDecay.of(built, 1.0)
    )
    state.optimizer = optimizers.sgd(list(groups), lr=RATE, momentum=0.9)
    return state, asked


def trained(built: Classifier, stages: Stages) -> State:
    state, asked = begun(built, stages)
    list(fit(state, asked))
    return state


def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Those of an epoch, as the loader makes them."""
    loader = small.setup(small.Squares(BATCH * STEPS), small.Squares(9)).train
    for share in loader.training(BATCH, (), seed=0, epoch=epoch, start=0):
        yield share.pixels, share.targets


def plain(built: Classifier, *, sizes: list[int], layers: list[int], rates: list[float] | None = None) -> Classifier:
    """A loop as one writes it by hand: SGD with momentum in three lines, one epoch after the other."""
    blocks = list(built.backbone.children())[:3]
    momenta: dict[int, Tensor] = {}
    normalise = Network(built, small.SPEC).normalize
    for epoch, (size, count) in enumerate(zip(sizes, layers, strict=True)):
        built.train()
        moving = [*built.head.parameters()]
        for block in blocks[: 3 - count]:
            block.eval()
        for block in blocks[3 - count :]:
            moving += block.parameters()
        for pixels, targets in batches(epoch):
            seen = functional.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
            loss = functional.cross_entropy(built(normalise(seen)), targets)
            gradients = torch.autograd.grad(loss, moving)
            with torch.no_grad():
                for one, gradient in zip(moving, gradients, strict=True):
                    before = momenta.get(id(one))
                    momenta[id(one)] = gradient if before is None else 0.9 * before + gradient
                    one.sub_((rates[epoch] if rates else RATE) * momenta[id(one)])
    return built


def assert_same(found: nn.Module, expected: nn.Module) -> None:
    for (name, one), other in zip(found.state_dict().items(), expected.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6, msg=name)


def test_fixres_is_small_images_and_then_the_last_layers_on_larger_ones() -> None:
    built = model()
    expected = plain(copy.deepcopy(built), sizes=[5, 5, 8, 8], layers=[3, 3, 1, 1])
    trained(built, fixres(built))
    assert_same(built, expected)


def test_its_last_epochs_may_have_a_rate_of_their_own() -> None:
    built = model()
    expected = plain(
        copy.deepcopy(built), sizes=[5, 5, 8, 8], layers=[3, 3, 0, 0], rates=[RATE, RATE, RATE / 4, RATE / 4]
    )
    state = trained(built, fixres(built, layers=0, factor=0.25))
    assert_same(built, expected)
    assert [record.lr["model"] for record in state.records] == pytest.approx([RATE, RATE, RATE / 4, RATE / 4])


def test_gradual_unfreezing_trains_one_layer_more_in_each_epoch() -> None:
    built = model()
    expected = plain(copy.deepcopy(built), sizes=[8] * 4, layers=[0, 1, 2, 3])
    trained(built, gradual(built))
    assert_same(built, expected)


@pytest.mark.parametrize("make", [fixres, gradual])
def test_resume_at_any_event_is_exact(make: Any) -> None:
    def start(seed: int) -> tuple[State, Setup]:
        built = model(seed)
        return begun(built, make(built), ema=0.8)

    whole, asked = start(0)
    events = len(list(fit(whole, asked)))
    for stop_after in range(1, events, 3):
        stopped, asked = start(0)
        for _ in islice(fit(stopped, asked), stop_after):
            pass
        file = io.BytesIO()
        torch.save(stopped.state_dict(), file)
        file.seek(0)
        resumed, asked = start(7)
        resumed.load_state_dict(torch.load(file, weights_only=True))
        list(fit(resumed, asked))
        for one, other in zip(whole.judged.state_dict().values(), resumed.judged.state_dict().values(), strict=True):
            assert torch.equal(one, other), stop_after


@pytest.mark.parametrize(
    ("stages", "layers", "sizes"),
    [
        (Stages(4), [None] * 4, [None] * 4),
        (Stages(4, layers=1), [1] * 4, [None] * 4),
        (Stages(4, layers=1, thaw_every=2), [1, 1, 2, 2], [None] * 4),
        (Stages(4, fixres=Fixres(5, Stage(1), 1)), [None, None, None, 1], [5, 5, 5, None]),
        (Stages(4, layers=0, thaw_every=1, fixres=Fixres(5, Stage(0), 2)), [0, 1, 0, 0], [5, 5, None, None]),
    ],
)
def test_the_stage_of_each_epoch(stages: Stages, layers: list[int | None], sizes: list[int | None]) -> None:
    found = [stages.of(epoch) for epoch in range(4)]
    assert [one.layers for one in found] == layers
    assert [one.size for one in found] == sizes


@pytest.mark.parametrize(
    ("stages", "thaw"),
    [
        (Stages(4, layers=1), False),
        (Stages(4, layers=1, thaw_every=1), True),
        (Stages(4, fixres=Fixres(5, Stage(1), 1)), False),
        (Stages(4, layers=0, fixres=Fixres(5, Stage(1), 1)), True),
    ],
)
def test_whether_layers_join_later(stages: Stages, thaw: bool) -> None:
    assert stages.thaw is thaw


def test_what_a_model_has_frozen_itself_stays_frozen() -> None:
    built = model()
    built.backbone[1][0].weight.requires_grad_(False)  # type: ignore[index]
    stages = gradual(built)
    for epoch in range(4):
        held = stages.begin(built, epoch)
        layers = Layers.of(built)
        for name, one in built.named_parameters():
            own = name == "backbone.1.0.weight"
            assert one.requires_grad == (not own and layers.depth(name) >= 3 - epoch)
        assert (built.backbone[2] in held) == (epoch == 0)  # type: ignore[index]


@pytest.mark.parametrize("shape", [(2, 3, 12, 12), (2, 4, 3, 12, 12)])
def test_smaller_items_are_the_means_of_their_neighbours(shape: tuple[int, ...]) -> None:
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8)
    found = smaller(pixels, 5)
    assert (found.dtype, found.shape) == (torch.uint8, (*shape[:-2], 5, 5))
    scale = 12 / 5
    distance = ((np.arange(5) + 0.5) * scale)[:, None] - (np.arange(12) + 0.5)
    triangle = np.maximum(1 - np.abs(distance) / scale, 0)
    triangle /= triangle.sum(axis=1, keepdims=True)
    expected = np.einsum("ai,bj,...ij->...ab", triangle, triangle, pixels.double().numpy())
    assert np.abs(found.numpy() - expected).max() <= 1.01  # rows and columns are rounded


def test_without_a_size_batches_are_as_they_are() -> None:
    share = next(iter(small.setup(small.Squares(6), small.Squares(2)).train.training(6, (), seed=0, epoch=0, start=0)))
    assert next(at_size([share], None)) is share
