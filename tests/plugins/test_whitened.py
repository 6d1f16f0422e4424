"""The network that reaches 94 % on CIFAR-10: whitening, views, what is trained when, and what it looks at."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests import tiny
from tests.resuming import stopped_and_resumed
from toolkit.api.contracts import DataSpec
from toolkit.build.assemble import assemble, training
from toolkit.build.plan import plan
from toolkit.host.registry import discover
from toolkit.recipe.read import parse
from toolkit.training.fit import fit
from toolkit_cifar.whitened import WhitenedCnn, whitened_cnn, whitening_filters

SPEC = DataSpec(tuple("abcdefghij"), size=32)
SMALL = DataSpec(("a", "b"), size=16)


def small(**arguments: object) -> WhitenedCnn:
    torch.manual_seed(0)
    return whitened_cnn(SMALL, widths=(4, 4), **arguments)  # type: ignore[arg-type]


def pixels(count: int = 3, side: int = 16) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_it_has_the_published_number_of_parameters() -> None:
    count = sum(parameter.numel() for parameter in whitened_cnn(SPEC).parameters())
    assert count == pytest.approx(2.0e6, rel=0.02)


def test_whitened_patches_are_uncorrelated() -> None:
    # Neighbours that are alike, as in images; large values, so that what is added to variances does not show.
    images = 100 * functional.avg_pool2d(pixels(8, 40), 3, stride=1) + 50 * pixels(8, 38)
    filters = whitening_filters(images, 2)
    assert filters.shape == (24, 3, 2, 2)
    assert torch.equal(filters[:12], -filters[12:])
    answers = functional.conv2d(images, filters[:12]).movedim(1, 0).flatten(1)
    assert torch.allclose(answers @ answers.T / answers.shape[1], torch.eye(12), atol=1e-3)


def test_views_are_averaged_by_their_weights() -> None:
    model, images = small(views=6).eval(), pixels()
    alone = small(views=1).eval()
    padded = functional.pad(images, [1] * 4, mode="reflect")
    shifted = [padded[..., :16, :16], padded[..., 2:, 2:]]
    expected = torch.zeros(3, 2)
    for view, weight in ((images, 0.25), (shifted[0], 0.125), (shifted[1], 0.125)):
        expected += weight * (alone(view) + alone(view.flip(-1)))
    assert torch.allclose(model(images), expected, atol=1e-6)
    two = small(views=2).eval()
    assert torch.allclose(two(images), (alone(images) + alone(images.flip(-1))) / 2, atol=1e-6)
    torch.testing.assert_close(model.train()(images), alone.train()(images))


def test_the_bias_of_the_whitening_layer_is_trained_in_the_first_epochs() -> None:
    model = small(bias_epochs=2)
    trained = []
    for epoch in range(4):
        model.begin_epoch(epoch)
        trained.append(model.whitening.bias.requires_grad)
    assert trained == [True, True, False, False]
    scales = [module.weight for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert not any(scale.requires_grad for scale in scales)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widths": (4,) * 5}, r"^widths: too many groups for 16 px, got 5"),
        ({"kernel": 9, "widths": (4,) * 4}, "^widths: "),
    ],
)
def test_a_size_that_cannot_be_halved_so_often_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        whitened_cnn(SMALL, **arguments)  # type: ignore[arg-type]


RECIPE = """
[data]
name = "cifar10"
valid_share = 0.2

[model]
name = "whitened_cnn"
widths = [4, 4]

[[augment]]
name = "alternating_flip"

[train]
epochs = 2
batch = 8
device = "cpu"
precision = "fp32"

[train.optimizer]
name = "muon"
lr = 0.1
others = 10.0

[train.schedule]
name = "linear"
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return tiny.write_recipe(tmp_path, tiny.write_images(tmp_path / "images"), text=RECIPE)


def test_it_whitens_what_it_trains_on_and_resumes_without_a_look(recipe: Path) -> None:
    planned = plan(parse(recipe), discover())
    assembly = assemble(planned)
    model = assembly.network.model
    assert isinstance(model, WhitenedCnn)
    images = assembly.network.normalize(assembly.train.first(5000))
    assert len(images) == len(assembly.data.train)
    assert torch.allclose(model.whitening.filters, whitening_filters(images, 2), atol=1e-4)
    again = assemble(planned, notes=()).network.model
    assert isinstance(again, WhitenedCnn)
    assert not torch.allclose(again.whitening.filters, model.whitening.filters)


def test_training_resumes_exactly(recipe: Path) -> None:
    planned = plan(parse(recipe), discover())
    state, setup = training(assemble(planned))
    list(fit(state, setup))
    resumed = stopped_and_resumed(planned, after=5)
    assert all(torch.equal(weight, resumed[name]) for name, weight in state.network.state_dict().items())
