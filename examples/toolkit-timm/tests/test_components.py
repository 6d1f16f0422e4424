"""The components by the toolkit's rules, and what those cannot know: names, weights and messages."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.layers.drop import DropPath
from toolkit.api.clips import Clip
from toolkit.api.contracts import Batch, DataSpec
from toolkit.api.errors import RecipeError, WeightsError
from toolkit.kit.testing import Case, conformance, draws
from torch import Tensor

from toolkit_timm.erasing import random_erasing
from toolkit_timm.mixup import mixup
from toolkit_timm.models import image_model

RECIPE = Path(__file__).parents[1] / "toolkit_timm.toml"
SPEC = DataSpec(("cat", "dog"), size=64)

FROZEN = {"model": "test_resnet", "drop_path": 0.1, "dropout": 0.5, "freeze": True}

test_components = conformance(
    Case("model", "toolkit-timm:timm", {"model": "test_efficientnet"}),
    Case("model", "toolkit-timm:timm", {"model": "test_vit"}),
    Case("augmentation", "toolkit-timm:timm_mixup"),
    Case("augmentation", "toolkit-timm:timm_random_erasing", {"p": 0.8, "mode": "const"}),
    Case("augmentation", "toolkit-timm:timm_random_erasing", {"p": 0.8, "mode": "rand", "max_count": 3}),
    Case("augmentation", "toolkit-timm:timm_random_erasing", {"p": 0.8}),
)
# Without the slow rule: an export has no part that drops, skips or freezes in training.
test_a_frozen_model = conformance(Case("model", "toolkit-timm:timm", FROZEN), slow=False)


def test_the_recipe_runs(tmp_path: Path) -> None:
    smaller = ("model.model=test_efficientnet", "input.size=32", "data.sample_clips=6", "train.epochs=1")
    changes = [word for change in smaller for word in ("--set", change)]
    subprocess.run([sys.executable, "-m", "toolkit", "run", RECIPE, "--runs", tmp_path, *changes], check=True)
    assert next(tmp_path.glob("*/*/report.html")).is_file()


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ({"model": "efficientnet_b00"}, 'has no model "efficientnet_b00"; did you mean "efficientnet_b0"?'),
        ({"model": "resnet18.a1_in1"}, 'no weights "a1_in1" of resnet18; did you mean "a1_in1k"?'),
        ({"model": "vgg11", "drop_path": 0.1}, "drop_path: vgg11 has no branches that could be dropped"),
        ({"model": "botnet50ts_256", "weights": "pretrained"}, "weights: timm publishes none for botnet50ts_256"),
    ],
)
def test_what_timm_does_not_have_is_told(asked: dict[str, Any], meant: str) -> None:
    with pytest.raises(ValueError, match=re.escape(meant)):
        image_model(SPEC, **asked)


def test_clips_are_refused() -> None:
    with pytest.raises(RecipeError) as raised:
        image_model(DataSpec(("cat", "dog"), size=64, clip=Clip(frames=4)), model="resnet18")
    assert raised.value.lines() == ["model resnet18: clip: timm's models see images, and these are clips"]


def test_a_size_that_a_model_cannot_see_is_told() -> None:
    with pytest.raises(RecipeError) as raised:
        image_model(DataSpec(("cat", "dog"), size=8), model="inception_v3")
    assert "inception_v3 cannot take images of 8 px" in raised.value.lines()[0]
    assert raised.value.next_step == "--set input.size=224"


def test_a_vision_transformer_is_built_for_the_size_of_the_recipe() -> None:
    model = image_model(DataSpec(("cat", "dog"), size=96), model="test_vit")
    assert model(torch.zeros(2, 3, 96, 96)).shape == (2, 2)


def test_drop_path_reaches_the_model() -> None:
    model = image_model(SPEC, model="test_resnet", drop_path=0.5)
    rates = [module.drop_prob for module in model.modules() if isinstance(module, DropPath)]
    assert max(rates) == 0.5


def test_a_frozen_backbone_stays_as_it_is() -> None:
    model = image_model(SPEC, model="test_resnet", freeze=True)
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    model.train()(torch.randn(4, 3, 64, 64)).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in model.backbone.state_dict().items())
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    assert all(parameter.grad is not None for parameter in model.head.parameters())
    assert model.notes == ('the backbone is frozen at random weights: set model.weights = "pretrained" or a path',)


def test_weights_come_from_a_file_with_names_of_timm(tmp_path: Path) -> None:
    whole: Any = timm.create_model("test_resnet", num_classes=7)
    torch.save(whole.state_dict(), tmp_path / "whole.pt")
    model = image_model(SPEC, model="test_resnet", weights=str(tmp_path / "whole.pt"))
    pixels = torch.randn(2, 3, 64, 64)
    whole.eval()
    model.eval()
    assert torch.equal(model.backbone(pixels), whole.forward_head(whole.forward_features(pixels), pre_logits=True))


def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_efficientnet").state_dict(), tmp_path / "other.pt")
    with pytest.raises(WeightsError, match="the weights do not fit the model"):
        image_model(SPEC, model="test_resnet", weights=str(tmp_path / "other.pt"))


def test_a_misspelt_word_for_weights_is_told() -> None:
    with pytest.raises(WeightsError) as raised:
        image_model(SPEC, model="test_resnet", weights="pretraind")
    assert raised.value.next_step == 'did you mean weights = "pretrained"?'


def test_pretrained_weights_that_cannot_be_had_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise FileNotFoundError("the Hub cannot be reached\nand more")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(WeightsError) as raised:
        image_model(SPEC, model="resnet18", weights="pretrained")
    assert raised.value.lines()[0].endswith("weights of resnet18 could not be downloaded: the Hub cannot be reached")
    assert "--set model.weights=PATH" in str(raised.value.next_step)


def test_what_published_weights_were_trained_with_is_told_where_it_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    made = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=64)
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: made)
    (note,) = image_model(SPEC, model="vit_tiny_patch16_224.augreg_in21k_ft_in1k", weights="pretrained").notes
    assert note.endswith("trained with input.size = 224, input.mean = [0.5, 0.5, 0.5], input.std = [0.5, 0.5, 0.5]")


def a_batch(count: int, *shape: int) -> Batch:
    pixels = torch.randint(0, 256, (count, *shape, 3, 16, 16), dtype=torch.uint8)
    return Batch(pixels, torch.arange(count) % 2, torch.arange(count))


def test_an_image_is_mixed_as_timm_mixes_it() -> None:
    batch = a_batch(2)
    found = mixup(SPEC, cutmix_alpha=0)(batch, draws(range(2), 3))
    for image, (kept, given) in enumerate(((0, 1), (1, 0))):
        share = found.targets[image, kept]
        assert 0 < share < 1
        assert found.targets[image, given] == pytest.approx(1 - float(share))
        own, other = batch.pixels[kept].float(), batch.pixels[given].float()
        assert ((own * share + other * (1 - share)) - found.pixels[image].float()).abs().max() <= 0.51


def test_an_image_without_a_partner_stays() -> None:
    batch = a_batch(1)
    found = mixup(SPEC)(batch, draws(range(1)))
    assert torch.equal(found.pixels, batch.pixels)
    assert found.targets.tolist() == [[1.0, 0.0]]


def test_a_box_has_the_share_that_its_target_tells() -> None:
    batch = Batch(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 16, 16), *pair())
    for seed in range(8):
        found = mixup(SPEC, mixup_alpha=0)(batch, draws(range(2), seed))
        shown = (found.pixels[0] == 0).float().mean()
        assert found.targets[0, 0] == pytest.approx(float(shown), abs=1e-5)


def pair() -> tuple[Tensor, Tensor]:
    return torch.tensor([0, 1]), torch.tensor([0, 1])


def test_mixup_without_a_strength_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^mixup_alpha: "):
        mixup(SPEC, mixup_alpha=0, cutmix_alpha=0)


def test_areas_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^min_area: must be at most max_area = 0\.1, got 0\.2"):
        random_erasing(SPEC, min_area=0.2, max_area=0.1)


@pytest.mark.parametrize("clip", [(), (4,)])
def test_a_box_within_the_bounds_is_hidden_by_the_mean_colour(clip: tuple[int, ...]) -> None:
    batch = Batch(torch.full((32, *clip, 3, 40, 40), 255, dtype=torch.uint8), torch.zeros(32), torch.arange(32))
    found = random_erasing(SPEC, p=1, mode="const", min_area=0.1, max_area=0.2)(batch, draws(range(32))).pixels
    hidden = found != 255
    assert set(found[hidden].tolist()) == {round(255 * mean) for mean in SPEC.mean}
    shares = hidden.flatten(1).float().mean(dim=1)
    assert shares.min() > 0.08
    assert shares.max() < 0.22


def test_the_global_generators_are_given_back() -> None:
    random.seed(1)
    np.random.seed(1)
    expected = random.random(), np.random.random()
    random.seed(1)
    np.random.seed(1)
    for augment in (mixup(SPEC), random_erasing(SPEC)):
        augment(a_batch(4), draws(range(4)))
    assert (random.random(), np.random.random()) == expected
