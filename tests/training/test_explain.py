"""Where answers come from: networks whose reasons are known by construction."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer

from toolkit.api.clips import Clip
from toolkit.api.contracts import DataSpec
from toolkit.training.explain import Maps, explain, map_layer
from toolkit.training.network import Network
from toolkit.transfer.classifier import Classifier
from toolkit_tasks.classification import Classification
from toolkit_tasks.regression import Regression

COLOURS = ("red", "green", "blue")
SIDE, FRAMES = 32, 4
SPEC = DataSpec(classes=COLOURS, size=SIDE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
CLIPS = DataSpec(classes=COLOURS, size=SIDE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), clip=Clip(frames=FRAMES))
OBJECTIVE = Classification(0.0, None)


class Colours(nn.Module):
    """The mean of each colour: a class for each."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Conv2d(3, 3, 4, stride=4, bias=False)
        nn.init.zeros_(self.filters.weight)
        for channel in range(3):
            self.filters.weight.data[channel, channel] = 1 / 16
        self.last = nn.Linear(3, 3)
        nn.init.eye_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.last(self.filters(pixels).mean(dim=(-2, -1)))


class Framewise(nn.Module):
    """The mean over frames."""

    def __init__(self, model: nn.Module, frames: int = FRAMES) -> None:
        super().__init__()
        self.model, self.frames = model, frames

    def forward(self, clips: Tensor) -> Tensor:
        return self.model(clips.flatten(0, 1)).unflatten(0, (-1, self.frames)).mean(dim=1)


class InTime(nn.Module):
    """As `Colours`, by convolutions over time too, on two pathways: the slow one sees every other frame."""

    def __init__(self) -> None:
        super().__init__()
        self.paths = Paths()
        self.last = nn.Linear(6, 3)
        self.last.weight.data = torch.eye(3).repeat(1, 2)

    def forward(self, clips: Tensor) -> Tensor:
        slow, fast = self.paths(clips.movedim(1, 2))
        return self.last(torch.cat([slow.mean(dim=(2, 3, 4)), fast.mean(dim=(2, 3, 4))], dim=1))


class Paths(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.slow, self.fast = (nn.Conv3d(3, 3, (1, 4, 4), stride=(1, 4, 4), bias=False) for _ in range(2))
        for one in (self.slow, self.fast):
            nn.init.zeros_(one.weight)
            for channel in range(3):
                one.weight.data[channel, channel] = 1 / 16

    def forward(self, clips: Tensor) -> list[Tensor]:
        return [self.slow(clips[:, :, ::2]), self.fast(clips)]


class Ungraded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3 * SIDE * SIDE, 3)

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        return self.last(pixels.flatten(1))


def picture(*squares: tuple[str, int, int]) -> Tensor:
    """uint8 `[3, 32, 32]`: black, with squares of 8 pixels of a colour at (top, left)."""
    pixels = torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)
    for colour, top, left in squares:
        pixels[COLOURS.index(colour), top : top + 8, left : left + 8] = 255
    return pixels


def explained(model: nn.Module, pixels: Tensor, classes: Sequence[int] | None = None, spec: DataSpec = SPEC) -> Maps:
    maps = explain(Network(model, spec), OBJECTIVE, pixels, classes)
    assert maps is not None
    return maps


def peak(map_: Tensor) -> tuple[int, int]:
    row, column = divmod(int(map_.argmax()), map_.shape[-1])
    return row, column


def inside(place: tuple[int, int], top: int, left: int) -> bool:
    return top <= place[0] < top + 8 and left <= place[1] < left + 8


def test_the_peak_lies_on_what_speaks_for_the_class() -> None:
    both = picture(("red", 2, 4), ("blue", 20, 22))
    maps = explained(Colours(), torch.stack([both, both]), [0, 2])
    assert maps.values.shape == (2, SIDE, SIDE)
    assert maps.values.dtype == torch.float32
    assert inside(peak(maps.values[0]), 2, 4)
    assert inside(peak(maps.values[1]), 20, 22)
    assert (maps.method, maps.layer, maps.classes.tolist()) == ("Grad-CAM", "filters", [0, 2])
    assert maps.values.amax(dim=(1, 2)).tolist() == [1, 1]
    assert maps.values.min() >= 0


def test_without_classes_the_likeliest_is_explained_and_its_logits_are_the_networks() -> None:
    pixels = torch.stack([picture(("green", 0, 0)), picture(("blue", 8, 8), ("blue", 16, 16), ("red", 0, 0))])
    model = Colours()
    maps = explained(model, pixels)
    assert maps.classes.tolist() == [1, 2]
    assert torch.allclose(maps.logits, Network(model, SPEC)(pixels))


def test_a_map_is_the_formula_of_the_paper() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 15 * 15, 3)).eval()
    pixels = torch.randint(0, 256, (1, 3, SIDE, SIDE), dtype=torch.uint8)
    features = model[:2](Network(model, SPEC).normalize(pixels)).detach().requires_grad_()
    model[2:](features)[0, 1].backward()
    assert features.grad is not None
    weighted = (features.grad.mean(dim=(2, 3), keepdim=True) * features).sum(dim=1, keepdim=True).detach()
    wanted = nn.functional.interpolate(weighted, size=(SIDE, SIDE), mode="bilinear").relu()[0, 0]
    assert torch.allclose(explained(model, pixels, [1]).values[0], wanted / wanted.max(), atol=1e-5)


def test_where_nothing_speaks_for_a_class_the_map_is_empty() -> None:
    maps = explained(Colours(), torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8))
    assert not maps.values.any()
    assert not maps.values.isnan().any()


@pytest.mark.parametrize("model", [Framewise(Colours()), InTime()], ids=["framewise", "in time"])
def test_of_a_clip_the_frame_that_decides_counts_most(model: nn.Module) -> None:
    clip = torch.stack([picture(("red", 2, 4)) if frame == 2 else picture() for frame in range(FRAMES)])[None]
    maps = explained(model, clip, [0], CLIPS)
    assert maps.values.shape == (1, FRAMES, SIDE, SIDE)
    assert int(maps.frames[0].argmax()) == 2
    assert maps.frames[0, 2] == 1
    assert inside(peak(maps.values[0, 2]), 2, 4)


def test_each_pathway_adds_to_the_map() -> None:
    clip = torch.stack([picture(("red", 2, 4)) if frame == 1 else picture() for frame in range(FRAMES)])[None]
    assert explained(InTime(), clip, [0], CLIPS).layer == "paths"
    assert int(explained(InTime(), clip, [0], CLIPS).frames[0].argmax()) == 1  # which the slow pathway does not see


def test_a_recurrent_head_in_evaluation_mode_has_maps() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.filters, self.cells, self.last = (
                nn.Conv2d(3, 4, 4, stride=4),
                nn.LSTM(4, 3, batch_first=True),
                nn.ReLU(),
            )

        def forward(self, clips: Tensor) -> Tensor:
            frames = self.filters(clips.flatten(0, 1)).mean(dim=(2, 3)).unflatten(0, (-1, FRAMES))
            return self.cells(frames)[0].mean(dim=1)

    clip = torch.randint(0, 256, (1, FRAMES, 3, SIDE, SIDE), dtype=torch.uint8)
    assert explained(Recurrent(), clip, [0], CLIPS).values.shape == (1, FRAMES, SIDE, SIDE)


def transformer() -> nn.Module:
    torch.manual_seed(0)
    return VisionTransformer(SIDE, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=3)


def test_a_transformer_is_explained_by_its_input_gradients() -> None:
    model = transformer()
    nn.init.normal_(model.heads.head.weight)
    maps = explained(model, torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8))
    assert (maps.method, maps.layer) == ("input gradients", "")
    assert maps.values.shape == (2, SIDE, SIDE)
    assert maps.values.amax(dim=(1, 2)).tolist() == [1, 1]


def test_input_gradients_peak_where_the_answer_depends_on_the_picture() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 3))
    nn.init.zeros_(model[1].weight)
    model[1].weight.data.view(3, 3, SIDE, SIDE)[0, :, 20:28, 4:12] = 1
    assert inside(peak(explained(model, picture()[None], [0]).values[0]), 20, 4)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(inplace=True))

    def forward(self, features: Tensor) -> Tensor:
        return features + self.branch(features)


@pytest.mark.parametrize(
    ("model", "layer"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)), "0"),
        (nn.Sequential(Residual(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 3, 1), nn.Flatten()), "0"),
        (nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 3)), None),
        (transformer(), None),
    ],
    ids=["last convolution", "what skips it too", "no convolution", "patches"],
)
def test_the_layer_that_is_looked_at(model: nn.Module, layer: str | None) -> None:
    assert map_layer(model.eval(), torch.rand(1, 3, SIDE, SIDE)) == layer


@pytest.mark.parametrize(
    "backbone", [nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Flatten()]
)
def test_a_frozen_backbone_has_maps_and_stays_as_it_was(backbone: nn.Module) -> None:
    features = 4 if isinstance(backbone, nn.Sequential) else 3 * SIDE * SIDE
    model = Classifier(backbone, nn.Sequential(nn.BatchNorm1d(features), nn.Linear(features, 3)), freeze=True)
    network = Network(model, SPEC).train()
    modes = {name: module.training for name, module in network.named_modules()}
    grads = [parameter.requires_grad for parameter in network.parameters()]
    maps = explain(network, OBJECTIVE, torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8))
    assert maps is not None
    assert maps.values.any()
    assert model.frozen
    assert modes == {name: module.training for name, module in network.named_modules()}
    assert grads == [parameter.requires_grad for parameter in network.parameters()]
    assert not any(module._forward_hooks for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.is_grad_enabled()


def test_features_that_are_changed_in_place_have_maps() -> None:
    model = nn.Sequential(Residual(), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert explained(model, torch.randint(0, 256, (1, 3, SIDE, SIDE), dtype=torch.uint8)).layer == "1"


def test_a_model_without_gradients_has_no_map() -> None:
    network = Network(Ungraded(), SPEC)
    assert explain(network, OBJECTIVE, picture()[None]) is None


def test_a_number_is_explained_by_what_raises_it() -> None:
    network, both = Network(Colours(), SPEC), picture(("red", 2, 4), ("blue", 20, 22))
    maps = explain(network, Regression(torch.zeros(3), torch.ones(3), "mse", 1.0), both[None], [2])
    assert maps is not None
    assert inside(peak(maps.values[0]), 20, 22)
