from __future__ import annotations

import hashlib
import http.server
import importlib
import inspect
import io
import os
import re
import subprocess
import sys
import threading
import typing
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

import toolkit_vision
from toolkit.api.contracts import DataSpec, Noted, Staged
from toolkit.api.errors import RecipeError, WeightsError
from toolkit.transfer import pretrained as transfer
from toolkit.transfer.classifier import Classifier, classification_head
from toolkit.transfer.positions import Positions
from toolkit_vision import backbones, cnn, imagenet, small
from toolkit_vision.names import BACKBONES, DROPPING, LEFT_OUT

SPEC = DataSpec(classes=tuple("abc"), size=64)
TINY = "shufflenet_v2_x0_5"
OFFERED = {name: str(getattr(one, "factory", one)) for name, one in toolkit_vision.toolkit_models().items()}


pytestmark = pytest.mark.usefixtures("seeded")


def factory(name: str) -> Callable[..., nn.Module]:
    module, _, attribute = OFFERED[name].partition(":")
    found: Callable[..., nn.Module] = getattr(importlib.import_module(module), attribute)
    return found


def build(name: str, spec: DataSpec = SPEC, **arguments: object) -> nn.Module:
    return factory(name)(spec, **arguments)


def pixels(size: int = 64, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, size, size)


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


def train_one_step(model: nn.Module, size: int = 64) -> None:
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    nn.functional.cross_entropy(model(pixels(size, batch=4)).float(), torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()


# What is offered


def test_listing_imports_nothing_heavy() -> None:
    code = "import sys, toolkit_vision as v; v.toolkit_models(); print(*{m.partition('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "torchvision", "pydantic"} & set(done.stdout.split())


def test_every_torchvision_classifier_is_offered_or_omitted_for_a_reason() -> None:
    known = set(torchvision.models.list_models(module=torchvision.models))
    offered = {*BACKBONES, "resnet18", "vgg16_bn"}
    assert offered | LEFT_OUT.keys() <= known  # a newer torchvision may know more
    assert not offered & LEFT_OUT.keys()
    assert len(set(BACKBONES)) == len(BACKBONES)
    assert offered < OFFERED.keys()


@pytest.mark.parametrize("name", sorted(OFFERED))
def test_the_signature_is_a_schema(name: str) -> None:
    found = factory(name)
    hints = typing.get_type_hints(found, include_extras=True)
    parameters = list(inspect.signature(found).parameters.values())
    assert parameters[0].name == "spec"
    for parameter in parameters[1:]:
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.default is not inspect.Parameter.empty
        assert parameter.name in hints
        assert f"\n{parameter.name}: " in str(inspect.getdoc(found))
    assert found.__name__ == name


def test_an_unknown_backbone_is_not_an_attribute() -> None:
    assert not hasattr(backbones, "resnet49")


# Logits


@settings(max_examples=15)
@given(size=st.integers(16, 70), widths=st.lists(st.integers(1, 9), min_size=1, max_size=4), classes=st.integers(2, 12))
def test_cnn_takes_any_size_groups_and_classes(size: int, widths: list[int], classes: int) -> None:
    model = cnn.cnn(DataSpec(classes=tuple(map(str, range(classes))), size=size), widths=tuple(widths))
    assert model(pixels(size)).shape == (2, classes)


def test_cnn_starts_as_the_identity_where_it_can() -> None:
    layer = cnn.cnn(SPEC, widths=(5,)).backbone[0][0]
    image = pixels()
    torch.testing.assert_close(layer(image)[:, :3], image)


def test_cnn_scales_its_logits() -> None:
    model = cnn.cnn(SPEC, widths=(4,), logit_scale=0.5).eval()
    image = pixels()
    half = model(image)
    model.head.scale = 1.0
    torch.testing.assert_close(half * 2, model(image))


def test_cnn_with_more_groups_than_the_image_can_be_halved() -> None:
    with pytest.raises(ValueError, match="widths: at most 4 groups for 16 px, got 5"):
        cnn.cnn(DataSpec(classes=("a", "b"), size=16), widths=(1, 1, 1, 1, 1))


@pytest.mark.parametrize("name", ["cnn", "resnet18", "mobilenet_v3_small"])
def test_trains_in_bf16_and_channels_last(name: str) -> None:
    model = build(name, DataSpec(classes=tuple("abc"), size=32)).to(memory_format=torch.channels_last)
    before = snapshot(model)
    for _ in ("the branches of a residual network open", "their convolutions learn"):
        with torch.autocast("cpu", torch.bfloat16):
            train_one_step(model, size=32)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert changed(model, before) >= {name for name, _ in model.named_parameters() if name.endswith("conv1.weight")}


@pytest.mark.long  # compiles
def test_a_compiled_cnn_in_bf16_has_the_gradients_of_one_that_is_not() -> None:
    model, image = cnn.cnn(DataSpec(classes=("a", "b"), size=16), widths=(8, 8)), pixels(16, batch=16)
    norms = []
    for forward in (model, torch.compile(model)):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logits = forward(image)
        nn.functional.cross_entropy(logits.float(), torch.arange(16) % 2).backward()
        norms.append([float(parameter.grad.norm()) for parameter in model.parameters() if parameter.grad is not None])
    assert norms[0] == pytest.approx(norms[1], rel=0.1, abs=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_every_gradient_of_the_cnn_has_a_deterministic_form_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    model = build("cnn").cuda()
    torch.use_deterministic_algorithms(True)
    try:
        model(pixels().cuda()).sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)


def test_cnn_learns_a_batch_by_heart() -> None:
    model = cnn.cnn(DataSpec(classes=("a", "b"), size=16), widths=(8, 8))
    image, targets = pixels(16, batch=16), torch.arange(16) % 2
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(image), targets).backward()
        optimizer.step()
    assert (model(image).argmax(1) == targets).all()


# Forms for small images


@pytest.mark.usefixtures("undrawn")
def test_the_cifar_stem_keeps_full_resolution() -> None:
    stem = small.resnet18(SPEC).backbone
    assert stem.maxpool(stem.conv1(pixels())).shape == (2, 64, 64, 64)


@pytest.mark.parametrize(
    ("size", "stem", "stride"), [(64, "auto", 1), (65, "auto", 2), (64, "imagenet", 2), (65, "cifar", 1)]
)
@pytest.mark.usefixtures("undrawn")
def test_stem_follows_size_unless_set(size: int, stem: small.Form, stride: int) -> None:
    model = small.resnet18(DataSpec(classes=("a", "b"), size=size), stem=stem)
    assert model.backbone.conv1.stride == (stride, stride)


@pytest.mark.parametrize(
    ("size", "stem", "said"),
    [(48, "auto", 0), (64, "auto", 1), (64, "cifar", 0), (64, "imagenet", 0), (224, "auto", 0)],
)
@pytest.mark.usefixtures("undrawn")
def test_a_costly_stem_that_nobody_chose_is_noted_with_the_key_that_changes_it(
    size: int, stem: small.Form, said: int
) -> None:
    model = small.resnet18(DataSpec(classes=("a", "b"), size=size), stem=stem)
    assert len(model.notes) == said
    assert all(f"{size} px" in note and 'model.stem = "imagenet"' in note for note in model.notes)


@pytest.mark.usefixtures("undrawn")
def test_vgg16_bn_for_small_images_has_no_wide_layers() -> None:
    model = small.vgg16_bn(DataSpec(classes=tuple("abc"), size=32))
    assert sum(parameter.numel() for parameter in model.parameters()) < 16e6
    assert model(pixels(32)).shape == (2, 3)


def test_imagenet_weights_with_the_cifar_stem() -> None:
    with pytest.raises(ValueError, match='stem: must be "imagenet"'):
        small.resnet18(SPEC, stem="cifar", weights="imagenet")


@pytest.mark.usefixtures("cache", "undrawn")
def test_imagenet_weights_choose_their_own_stem(monkeypatch: pytest.MonkeyPatch) -> None:
    serve_from(monkeypatch, "http://127.0.0.1:1/tiny-01234567.pth")
    model = small.resnet18(DataSpec(classes=("a", "b"), size=64, sample=True), weights="imagenet")
    assert model.backbone.conv1.stride == (2, 2)
    assert [note for note in model.notes if "stem" in note] == []


@pytest.mark.usefixtures("undrawn")
def test_a_file_trained_with_the_other_stem(tmp_path: Path) -> None:
    torch.save(small.resnet18(SPEC, stem="imagenet").backbone.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(WeightsError) as caught:
        small.resnet18(SPEC, weights=str(tmp_path / "weights.pt"))
    assert caught.value.mis_shaped == ("conv1.weight (64x3x7x7 given, 64x3x3x3 wanted)",)
    assert caught.value.next_step == "these weights have the 7x7 stem for large images: --set model.stem=imagenet"
    torch.save(small.resnet18(SPEC, stem="cifar").backbone.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(WeightsError) as caught:
        small.resnet18(SPEC, stem="imagenet", weights=str(tmp_path / "weights.pt"))
    assert caught.value.next_step == "these weights have the 3x3 stem for small images: --set model.stem=cifar"


# The head, freezing, parts


def test_the_head_standardises_features() -> None:
    head = classification_head(5, 3, hidden=None, dropout=0.1)
    assert [type(layer) for layer in head] == [nn.BatchNorm1d, nn.Dropout, nn.Linear]
    assert head[1].p == 0.1


def test_the_hidden_head_is_fully_connected_batch_norm_dropout() -> None:
    head = classification_head(5, 3, hidden=7, dropout=0.1)
    assert [type(layer) for layer in head] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout, nn.Linear]
    assert head(torch.randn(2, 5)).shape == (2, 3)


def test_hidden_and_dropout_reach_the_head() -> None:
    model = build(TINY, hidden=7, dropout=0.4)
    assert model.head[0].out_features == 7
    assert model.head[3].p == 0.4


def test_the_replaced_layers_own_dropout_goes_with_it() -> None:
    model = build("mobilenet_v3_small")
    assert not any(isinstance(module, nn.Dropout) for module in model.backbone.modules())


def test_classifiers_are_staged_and_noted() -> None:
    model = build(TINY)
    assert isinstance(model, Staged)
    assert isinstance(model, Noted)
    assert model.notes == ()


def test_a_frozen_backbone_keeps_weights_and_statistics() -> None:
    model = build(TINY, freeze=True)
    before = snapshot(model)
    train_one_step(model)
    moved = changed(model, before)
    assert moved
    assert all(name.startswith("head.") for name in moved)
    assert model.training
    assert not any(module.training for module in model.backbone.modules())
    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())


def test_a_backbone_thaws_at_its_epoch() -> None:
    model = build(TINY, freeze=True, thaw_epoch=2)
    assert isinstance(model, Classifier)
    for epoch in (0, 1):
        model.begin_epoch(epoch)
        before = snapshot(model.backbone)
        train_one_step(model)
        assert not changed(model.backbone, before)
    model.begin_epoch(2)
    before = snapshot(model.backbone)
    train_one_step(model)
    assert changed(model.backbone, before) == before.keys()


def test_a_run_resumed_after_the_thaw_is_thawed_at_once() -> None:
    model = build(TINY, freeze=True, thaw_epoch=2)
    model.train()
    model.begin_epoch(7)
    assert all(module.training for module in model.backbone.modules())
    model.begin_epoch(1)
    assert not any(module.training for module in model.backbone.modules())


def test_one_optimizer_serves_both_stages() -> None:
    model = build(TINY, freeze=True, thaw_epoch=1)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_begin_epoch_leaves_eval_mode_alone() -> None:
    model = build(TINY, freeze=True, thaw_epoch=1).eval()
    model.begin_epoch(1)
    assert not any(module.training for module in model.modules())


def test_thaw_epoch_needs_freeze() -> None:
    with pytest.raises(ValueError, match="thaw_epoch: needs freeze = true"):
        build(TINY, thaw_epoch=3)


def test_a_backbone_frozen_at_random_weights_is_noted() -> None:
    (note,) = build(TINY, freeze=True).notes
    assert "frozen at random weights" in note


@pytest.mark.parametrize(("name", "size"), [("vit_b_32", 80), ("alexnet", 32), ("densenet121", 16)])
@pytest.mark.usefixtures("undrawn")
def test_a_size_the_model_cannot_take(name: str, size: int) -> None:
    with pytest.raises(RecipeError, match=f"model {name}") as caught:
        build(name, DataSpec(classes=("a", "b"), size=size))
    (problem,) = caught.value.problems
    assert problem.key == "input.size"
    assert f"{name} cannot take images of {size} px" in problem.message
    assert caught.value.next_step == "--set input.size=224"


# Weights from files


def pretrained(name: str) -> dict[str, Tensor]:
    model = torchvision.models.get_model(name, weights=None)
    return snapshot(model)


@pytest.mark.parametrize("name", [TINY, "mobilenet_v3_small"])
def test_weights_from_a_file_fill_the_backbone(tmp_path: Path, name: str) -> None:
    weights = pretrained(name)
    torch.save(weights, tmp_path / "weights.pt")
    model = build(name, weights=str(tmp_path / "weights.pt"))
    (note,) = model.notes
    assert note.startswith(f"starting from the weights of {tmp_path / 'weights.pt'}; dropped ")
    assert "weight (1000x" in note
    for key, value in model.backbone.state_dict().items():
        torch.testing.assert_close(value, weights[key], rtol=0, atol=0)


def test_a_file_without_the_last_layer_fits(tmp_path: Path) -> None:
    weights = {name: value for name, value in pretrained(TINY).items() if not name.startswith("fc.")}
    torch.save(weights, tmp_path / "weights.pt")
    build(TINY, weights=str(tmp_path / "weights.pt"))


def test_weights_of_another_model(tmp_path: Path) -> None:
    torch.save(pretrained("shufflenet_v2_x1_0"), tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match=f"weights.pt for {TINY}: the weights do not fit") as caught:
        build(TINY, weights=str(tmp_path / "weights.pt"))
    assert caught.value.mis_shaped
    assert not any(name.startswith("fc.") for name in caught.value.mis_shaped)
    owner = "these are weights of shufflenet_v2_x1_0: --set model.name=shufflenet_v2_x1_0"
    assert caught.value.next_step == owner


def test_positions_of_a_vision_transformer_are_fitted_to_the_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchvision.models, "get_model", tiny_transformer)
    weights = snapshot(tiny_transformer("vit_b_16", image_size=64))
    torch.save(weights, tmp_path / "weights.pt")
    model = build("vit_b_16", DataSpec(classes=tuple("abc"), size=96), weights=str(tmp_path / "weights.pt"))
    assert "; positions encoder.pos_embedding interpolated from 4x4 to 6x6" in model.notes[0]
    given = weights["encoder.pos_embedding"]
    assert torch.equal(model.backbone.encoder.pos_embedding[:, 0], given[:, 0])
    expected = Positions("").fitted(given, torch.Size([1, 37, 16]))
    assert expected
    assert torch.equal(model.backbone.encoder.pos_embedding, expected.value)
    assert model.eval()(pixels(96)).shape == (2, 3)


def test_drop_path_reaches_the_branches() -> None:
    with torch.device("meta"):
        model = build("convnext_tiny", drop_path=0.5)
    assert max(one.p for one in model.modules() if isinstance(one, StochasticDepth)) == 0.5


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_models_that_drop_branches_say_so(name: str) -> None:
    assert ("drop_path" in inspect.signature(factory(name)).parameters) == name.startswith(DROPPING)


@pytest.mark.parametrize(
    "name",
    ["resnet50", "densenet121", "efficientnet_b0", "convnext_tiny", "vit_b_16", "swin_t", "maxvit_t", "vgg16_bn"],
)
@pytest.mark.usefixtures("undrawn")
def test_the_published_number_of_parameters(name: str) -> None:
    published = torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"]
    model: typing.Any = build(name, DataSpec(classes=tuple(map(str, range(1000))), size=224), **PUBLISHED.get(name, {}))
    count = sum(one.numel() for one in model.parameters())
    assert count == pytest.approx(published, rel=0.01)


PUBLISHED = {"vgg16_bn": {"layers": "imagenet"}}
"""Arguments of a model that is usually built otherwise."""


def tiny_transformer(name: str, *, weights: None = None, image_size: int = 224) -> nn.Module:
    """torchvision's own class, small."""
    del name, weights
    network: nn.Module = torchvision.models.VisionTransformer(image_size, 16, 1, 2, 16, 16)
    nn.init.normal_(network.encoder.pos_embedding)  # type: ignore[union-attr, arg-type]
    return network


def test_densenet_files_of_2017(tmp_path: Path) -> None:
    weights = pretrained("densenet121")
    first = "features.denseblock1.denselayer1"
    old = {}
    for name, value in weights.items():
        for layer in ("norm1", "norm2", "conv1", "conv2"):
            name = name.replace(f"denselayer1.{layer}.", f"denselayer1.{layer[:-1]}.{layer[-1]}.")  # noqa: PLW2901
        if not name.endswith("num_batches_tracked"):
            old[name] = value
    assert f"{first}.norm.1.weight" in old
    torch.save(old, tmp_path / "weights.pth")
    model = build("densenet121", weights=str(tmp_path / "weights.pth"))
    for name in (f"{first}.norm1.weight", f"{first}.conv2.weight"):
        torch.testing.assert_close(model.backbone.state_dict()[name], weights[name])


def test_a_misspelt_choice_of_weights() -> None:
    with pytest.raises(WeightsError, match="imagnet: no such weights file") as caught:
        build(TINY, weights="imagnet")
    assert caught.value.next_step == 'did you mean weights = "imagenet"?'


def test_weights_that_nobody_publishes() -> None:
    with pytest.raises(WeightsError, match="nobody publishes weights of cnn") as caught:
        build("cnn", weights="imagenet")
    assert caught.value.next_step == "start from random weights: --set model.weights=none"


def test_a_missing_weights_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.pt: no such weights file"):
        build(TINY, weights=str(tmp_path / "absent.pt"))


@pytest.mark.real
def test_the_real_densenet121_weights() -> None:
    path = Path(os.environ.get("TOOLKIT_DATA", "")) / "densenet121-imagenet-fp16.safetensors"
    if not path.is_file():
        pytest.skip("TOOLKIT_DATA names no folder with densenet121-imagenet-fp16.safetensors")
    model = build("densenet121", weights=str(path), freeze=True)
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    features = model.eval().backbone(pixels())
    assert features.shape == (2, 1024)
    assert features.isfinite().all()
    assert (features >= 0).all()


# ImageNet weights


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "cache" / "weights"


@pytest.fixture
def content() -> bytes:
    stream = io.BytesIO()
    torch.save(pretrained(TINY), stream)
    return stream.getvalue()


@pytest.fixture
def name_of_file(content: bytes) -> str:
    return f"tiny-{hashlib.sha256(content).hexdigest()[:8]}.pth"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a server on this machine, and the folder it serves."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: typing.Any) -> None:
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", folder
        running.shutdown()
        thread.join()


def serve_from(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr(imagenet, "weights_url", lambda name: url)


def test_downloads_once_then_reads_the_cache(
    cache: Path, content: bytes, name_of_file: str, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = server
    (folder / name_of_file).write_bytes(content)
    serve_from(monkeypatch, f"{address}/{name_of_file}")
    first = build(TINY, weights="imagenet")
    assert (cache / name_of_file).read_bytes() == content
    (folder / name_of_file).unlink()
    second = build(TINY, weights="imagenet")
    for model in (first, second):
        assert not changed(model.backbone, torch.load(io.BytesIO(content), weights_only=True))
        assert model.notes == (
            f"starting from ImageNet weights of {TINY}, licence bsd-3-clause ({address}/{name_of_file})",
        )


def test_finds_what_torch_hub_fetched(
    cache: Path, tmp_path: Path, content: bytes, name_of_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_from(monkeypatch, f"http://127.0.0.1:1/{name_of_file}")
    checkpoints = tmp_path / "torch" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / name_of_file).write_bytes(content)
    found = imagenet.imagenet(TINY).fetch(timeout=1)
    assert found.keys() == pretrained(TINY).keys()


@pytest.mark.parametrize("sample", [False, True])
def test_a_download_with_the_wrong_hash_is_refused(
    cache: Path, name_of_file: str, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, sample: bool
) -> None:
    address, folder = server
    (folder / name_of_file).write_bytes(b"something else")
    serve_from(monkeypatch, f"{address}/{name_of_file}")
    with pytest.raises(WeightsError, match="damaged: its SHA-256 begins with") as caught:
        build(TINY, DataSpec(classes=("a", "b"), size=64, sample=sample), weights="imagenet")
    assert "try again" in str(caught.value.next_step)
    assert list(cache.iterdir()) == []


def test_a_damaged_file_in_the_cache(cache: Path, name_of_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir(parents=True)
    (cache / name_of_file).write_bytes(b"half a fi")
    serve_from(monkeypatch, f"http://127.0.0.1:1/{name_of_file}")
    with pytest.raises(WeightsError, match="damaged: its SHA-256") as caught:
        build(TINY, weights="imagenet")
    assert caught.value.next_step == f"delete {cache / name_of_file} and try again"


def assert_says_where_to_put(error: WeightsError, cache: Path, name: str) -> None:
    assert "cannot be downloaded" in error.message
    assert f"put {name} into {cache}" in str(error.next_step)
    assert "--set model.weights=PATH" in str(error.next_step)


def test_a_refused_connection_says_where_to_put_the_file(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve_from(monkeypatch, "http://127.0.0.1:1/tiny-01234567.pth")
    with pytest.raises(WeightsError) as caught:
        build(TINY, weights="imagenet")
    assert_says_where_to_put(caught.value, cache, "tiny-01234567.pth")


def test_a_file_the_server_does_not_have(
    cache: Path, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_from(monkeypatch, f"{server[0]}/tiny-01234567.pth")
    with pytest.raises(WeightsError, match="404") as caught:
        build(TINY, weights="imagenet")
    assert_says_where_to_put(caught.value, cache, "tiny-01234567.pth")


def test_a_server_that_does_not_answer(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: released.wait(30))
    monkeypatch.setattr(transfer, "TIMEOUT", 0.05)
    serve_from(monkeypatch, "http://127.0.0.1:1/tiny-01234567.pth")
    with pytest.raises(WeightsError, match=r"no answer within 0\.05 s") as caught:
        build(TINY, weights="imagenet")
    released.set()
    assert_says_where_to_put(caught.value, cache, "tiny-01234567.pth")


def test_a_sample_run_goes_on_without_the_weights(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve_from(monkeypatch, "http://127.0.0.1:1/tiny-01234567.pth")
    sample = DataSpec(classes=tuple("abc"), size=64, sample=True)
    model = build(TINY, sample, weights="imagenet")
    note = "ImageNet weights could not be downloaded: starting from random weights (sample run)"
    assert model.notes == (note,)
    frozen = build(TINY, sample, weights="imagenet", freeze=True)
    assert frozen.notes == (f"{note}; the backbone is not frozen",)
    assert all(module.training for module in frozen.train().modules())


class Flaky(http.server.BaseHTTPRequestHandler):
    """Sends at most `piece` bytes an answer; from where it is asked to, if it `resumes`."""

    content = b""
    piece = 1
    resumes = True
    asked: typing.ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.resumes else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(self.content) - start))
        self.end_headers()
        self.wfile.write(self.content[start : start + self.piece])

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def flaky(content: bytes) -> Iterator[tuple[str, type[Flaky]]]:
    class Handler(Flaky):
        pass

    Handler.content, Handler.asked = content, []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", Handler
        running.shutdown()
        thread.join()


def test_a_download_that_breaks_off_goes_on_where_it_stopped(
    cache: Path,
    content: bytes,
    name_of_file: str,
    flaky: tuple[str, type[Flaky]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address, handler = flaky
    handler.piece = len(content) // 2 - 1
    serve_from(monkeypatch, f"{address}/{name_of_file}")
    build(TINY, weights="imagenet")
    assert (cache / name_of_file).read_bytes() == content
    assert handler.asked == [None, f"bytes={handler.piece}-", f"bytes={2 * handler.piece}-"]


def test_a_server_that_breaks_off_and_cannot_go_on(
    cache: Path, name_of_file: str, flaky: tuple[str, type[Flaky]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, handler = flaky
    handler.piece, handler.resumes = 1000, False
    serve_from(monkeypatch, f"{address}/{name_of_file}")
    with pytest.raises(WeightsError, match="cannot be downloaded: it broke off after 1000 of") as caught:
        build(TINY, weights="imagenet")
    assert_says_where_to_put(caught.value, cache, name_of_file)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("name", [*BACKBONES, "resnet18", "vgg16_bn"])
def test_every_address_carries_a_hash(name: str) -> None:
    found = imagenet.imagenet(name)
    assert re.fullmatch("[0-9a-f]{8,64}", str(found.sha256))
    assert found.url.startswith("https://")
    assert found.file_name.endswith(f"-{found.sha256}.pth")
