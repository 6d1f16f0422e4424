"""torchvision's video models: built as published, and answering as torchvision's own do."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.models import get_model, get_model_weights
from torchvision.models.video import MViT
from torchvision.ops import StochasticDepth

from toolkit.api.clips import Clip
from toolkit.api.contracts import DataSpec
from toolkit.api.errors import RecipeError
from toolkit.transfer.weights import fit_positions
from toolkit_video import models
from toolkit_video.designs import TORCHVISION, Wanted
from toolkit_video.kinetics import kinetics400
from toolkit_video.torchvision_networks import BUILDERS, PairsOfFrames

CLASSES = tuple("abc")


def build(name: str, size: int, frames: int, **arguments: Any) -> Any:
    return getattr(models, name)(DataSpec(CLASSES, size, clip=Clip(frames)), **arguments)


@pytest.fixture(scope="module", params=TORCHVISION)
def published(request: pytest.FixtureRequest) -> tuple[str, Any, Any]:
    """A name, what torchvision says of its weights, and our network for them, without memory for its values."""
    with torch.device("meta"):
        design = TORCHVISION[request.param].takes
        network = BUILDERS[request.param](Wanted(400, design.frames or 0, design.size))
    return request.param, get_model_weights(request.param).DEFAULT, network


def test_parameters_and_address_are_the_published_ones(published: tuple[str, Any, Any]) -> None:
    name, weights, network = published
    parameters = [*network.features.parameters(), *network.last.parameters()]
    assert sum(one.numel() for one in parameters) == pytest.approx(weights.meta["num_params"], rel=0.01)
    found = kinetics400(TORCHVISION[name])
    assert (found.url, found.licence) == (weights.url, "bsd-3-clause")
    assert found.sha256 == weights.url.rpartition("-")[2].removesuffix(".pth")
    assert len(found.sha256) == 8


def test_the_design_is_the_published_one(published: tuple[str, Any, Any]) -> None:
    name, weights, _ = published
    takes, shown = TORCHVISION[name].takes, weights.transforms()
    text = weights.meta["_docs"]
    assert f"clip_len={takes.frames}" in text
    assert f"frame_rate={30 / (takes.rate or 0):g}" in text
    assert (takes.size, takes.mean, takes.std) == (shown.crop_size[0], tuple(shown.mean), tuple(shown.std))
    assert takes.stored == shown.resize_size[0]


def test_names_and_shapes_are_torchvisions(published: tuple[str, Any, Any]) -> None:
    name, _, network = published
    with torch.device("meta"):
        theirs = get_model(name, weights=None).state_dict()
    ours = {key: value.shape for key, value in network.whole.state_dict().items()}
    assert ours == {key: value.shape for key, value in theirs.items() if not key.startswith(f"{network.last_name}.")}


def own(name: str, size: int, frames: int) -> Any:
    """torchvision's network for clips of this size; of MViT the class that the builder uses."""
    if not name.startswith("mvit"):
        return get_model(name, weights=None, num_classes=7)
    with pytest.MonkeyPatch.context() as patch:
        kept: list[Any] = []

        class Kept(MViT):  # type: ignore[misc]
            def __init__(self, *args: Any, **given: Any) -> None:
                super().__init__(*args, **{**given, "spatial_size": (size, size), "temporal_size": frames})
                kept.append(self)

        patch.setattr("torchvision.models.video.mvit.MViT", Kept)
        return get_model(name, weights=None, num_classes=7)


@pytest.mark.parametrize(("name", "size", "frames"), [("mc3_18", 32, 4), ("mvit_v2_s", 64, 4), ("swin3d_t", 32, 4)])
def test_logits_are_torchvisions(
    name: str, size: int, frames: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    torch.manual_seed(0)
    theirs = own(name, size, frames).eval()
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    request.getfixturevalue("undrawn")
    model = build(name, size, frames, weights=str(tmp_path / "weights.pth")).eval()
    last = [one for one in theirs.modules() if isinstance(one, nn.Linear)][-1]
    model.head[1] = nn.Linear(last.weight.shape[1], 7)
    model.head[1].weight.data = last.weight.data
    model.head[1].bias.data = last.bias.data
    clips = torch.randn(1, frames, 3, size, size)
    with torch.no_grad():
        expected = theirs(clips.movedim(1, 2))
        torch.testing.assert_close(model(clips), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "depend"),
    [("mvit_v1_b", 2), ("mvit_v2_s", 48), ("swin3d_t", 0), ("s3d", 0), ("r3d_18", 0), ("mc3_18", 0), ("mvit_b", 2)],
)
@pytest.mark.usefixtures("undrawn")
def test_weights_of_clips_of_another_size_and_length_fit(name: str, depend: int) -> None:
    def shapes(frames: int, size: int) -> dict[str, torch.Size]:
        network = models._builder(name)(Wanted(3, frames, size)).whole
        return {key: value.shape for key, value in network.state_dict().items()}

    given, wanted = shapes(16, 224), shapes(8, 96)
    assert sum(given[key] != shape for key, shape in wanted.items()) == depend
    tables = {key: torch.zeros(shape) for key, shape in given.items() if shape != wanted[key]}
    fitted, notes = fit_positions(tables, wanted, models.OF_MVIT.positions)
    assert {key: value.shape for key, value in fitted.items()} == {key: wanted[key] for key in tables}
    assert bool(notes) == bool(depend)


@pytest.mark.parametrize("name", [*models.DESIGNS])
def test_models_that_drop_branches_say_so(name: str) -> None:
    assert ("drop_path" in inspect.signature(getattr(models, name)).parameters) == name.startswith(models.DROPPING)


def test_drop_path_reaches_the_branches() -> None:
    with torch.device("meta"):
        model = build("swin3d_t", 64, 4, drop_path=0.5)
    assert max(one.p for one in model.modules() if isinstance(one, StochasticDepth)) == 0.5


def test_a_size_that_a_model_cannot_take() -> None:
    with pytest.raises(RecipeError) as raised:
        build("mvit_v2_s", 80, 4)
    (problem,) = raised.value.problems
    assert (problem.key, problem.message) == ("input.size", "mvit_v2_s takes a multiple of 32 px, got 80")
    assert raised.value.next_step == "--set input.size=224"


def test_features_of_s3d_are_pooled_as_torchvision_pools_them() -> None:
    theirs: Any = get_model("s3d", weights=None, num_classes=7).eval()
    features = torch.randn(2, 1024, 3, 7, 7)
    expected = theirs.classifier(theirs.avgpool(features)).mean(dim=(2, 3, 4))
    last = theirs.classifier[1]
    found = functional.linear(PairsOfFrames()(features), last.weight.flatten(1), last.bias)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
