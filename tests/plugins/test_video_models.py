from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import io
import subprocess
import sys
import typing
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import toolkit_video
from tests.loopback import serving
from toolkit.api.clips import Clip
from toolkit.api.contracts import DataSpec, InputDesign
from toolkit.api.errors import RecipeError, WeightsError
from toolkit.recipe.reading import read_signature
from toolkit.transfer import published
from toolkit_video import kinetics, models
from toolkit_video.designs import DESIGNS, PYTORCHVIDEO, Design, Wanted
from toolkit_video.networks import BUILDERS, Pathways

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # as in toolkit_video.networks
    from pytorchvideo.models import csn, hub, r2plus1d, resnet, slowfast, vision_transformers, x3d

SPEC = DataSpec(classes=tuple("abc"), size=64, clip=Clip(frames=8))
SMALL = DataSpec(classes=tuple("abc"), size=32, clip=Clip(frames=4))


pytestmark = pytest.mark.usefixtures("seeded")
OFFERED = toolkit_video.toolkit_models()


def factory(name: str) -> Callable[..., nn.Module]:
    module, _, attribute = str(OFFERED[name].factory).partition(":")
    found: Callable[..., nn.Module] = getattr(importlib.import_module(module), attribute)
    return found


def build(name: str, spec: DataSpec = SPEC, **arguments: object) -> nn.Module:
    return factory(name)(spec, **arguments)


def clips(spec: DataSpec = SPEC, batch: int = 2) -> Tensor:
    """Normalised clips with their channels innermost in memory, as the network gets them."""
    return torch.randn(batch, spec.frames or 1, spec.size, spec.size, 3).movedim(-1, 2)


# What is offered


def test_listing_imports_nothing_heavy() -> None:
    """What each takes among it."""
    code = (
        "import sys, toolkit_video as v; print(*{one.takes.frames for one in v.toolkit_models().values()}); "
        "print(*{m.partition('.')[0] for m in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "pytorchvideo", "pydantic"} & set(done.stdout.split())


def test_signatures_need_no_pytorchvideo(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("toolkit_video.", "pytorchvideo"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pytorchvideo", None)
    monkeypatch.delattr(toolkit_video, "models")
    assert callable(importlib.import_module("toolkit_video.models").x3d_s)
    with pytest.raises(ImportError):
        importlib.import_module("toolkit_video.networks")


@pytest.mark.parametrize("name", DESIGNS)
def test_the_signature_is_a_schema(name: str) -> None:
    found = factory(name)
    hints = typing.get_type_hints(found, include_extras=True)
    first, *others = inspect.signature(found).parameters.values()
    assert first.name == "spec"
    assert all(one.kind is inspect.Parameter.KEYWORD_ONLY and one.name in hints for one in others)
    arguments = read_signature(found).arguments
    assert [one.name for one in arguments] == [one.name for one in others]
    assert all(one.doc for one in arguments)
    assert found.__name__ == name


def test_an_unknown_model_is_not_an_attribute() -> None:
    assert not hasattr(models, "x3d_xxl")


@pytest.mark.parametrize(
    ("name", "frames", "rate", "size", "stored"),
    [
        ("x3d_xs", 4, 12, 160, 182),
        ("x3d_s", 13, 6, 160, 182),
        ("x3d_m", 16, 5, 224, 256),
        ("x3d_l", 16, 5, 312, 356),
        ("slow_r50", 8, 8, 224, 256),
        ("slowfast_r50", 32, 2, 224, 256),
        ("r2plus1d_r50", 16, 4, 224, 256),
        ("csn_r101", 32, 2, 224, 256),
        ("mvit_b", 16, 4, 224, 256),
    ],
)
def test_what_each_model_was_designed_for(name: str, frames: int, rate: int, size: int, stored: int) -> None:
    takes = InputDesign(frames, rate, size, stored, mean=(0.45, 0.45, 0.45), std=(0.225, 0.225, 0.225))
    assert OFFERED[name].takes == takes
    assert f"{frames} x {rate} frames of {size} px" in str(factory(name).__doc__)


# The networks, compared with the published ones


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("x3d_xs", 3.79),
        ("x3d_s", 3.79),
        ("x3d_m", 3.79),
        ("x3d_l", 6.15),
        ("slow_r50", 32.45),
        ("slowfast_r50", 34.57),
        ("r2plus1d_r50", 28.11),
        ("csn_r101", 22.21),
        ("mvit_b", 36.61),
    ],
)
@pytest.mark.usefixtures("undrawn")
def test_the_published_number_of_parameters(name: str, millions: float) -> None:
    takes = DESIGNS[name].takes
    spec = DataSpec(tuple(map(str, range(400))), takes.size, clip=Clip(takes.frames))
    parameters = sum(parameter.numel() for parameter in build(name, spec).parameters())
    assert parameters / 1e6 == pytest.approx(millions, rel=0.01)


PUBLISHED = {name: getattr(hub, {"mvit_b": "mvit_base_16x4"}.get(name, name)) for name in PYTORCHVIDEO}


@pytest.mark.parametrize("name", PYTORCHVIDEO)
@pytest.mark.usefixtures("undrawn")
def test_names_and_shapes_are_those_of_the_zoo(name: str) -> None:
    takes = DESIGNS[name].takes
    network = BUILDERS[name](Wanted(400, takes.frames, takes.size))
    ours = {key: value.shape for key, value in network.whole.state_dict().items()}
    for key, value in network.last.state_dict().items():
        ours[f"{network.last_name}.{key}"] = value.shape
    assert ours == {key: value.shape for key, value in PUBLISHED[name]().state_dict().items()}


AS_PUBLISHED = {
    "x3d_s": functools.partial(x3d.create_x3d, input_clip_length=8, input_crop_size=64, head_activation=None),
    "x3d_l": functools.partial(
        x3d.create_x3d, input_clip_length=8, input_crop_size=64, head_activation=None, depth_factor=5.0
    ),
    "slow_r50": functools.partial(
        resnet.create_resnet, stem_conv_kernel_size=(1, 7, 7), head_pool_kernel_size=(8, 2, 2)
    ),
    "slowfast_r50": functools.partial(slowfast.create_slowfast, head_pool_kernel_sizes=((2, 2, 2), (8, 2, 2))),
    "r2plus1d_r50": functools.partial(r2plus1d.create_r2plus1d, head_pool_kernel_size=(2, 2, 2), head_activation=None),
    "csn_r101": functools.partial(
        csn.create_csn, model_depth=101, stem_pool=nn.MaxPool3d, head_pool_kernel_size=(1, 2, 2)
    ),
    "mvit_b": functools.partial(
        vision_transformers.create_multiscale_vision_transformers,
        **{**hub.vision_transformers.mvit_video_base_config, "spatial_size": 64, "temporal_size": 8},
    ),
}
"""PyTorchVideo's own networks for clips of `SPEC`: kernels of the head as large as the map, and no softmax."""


LIKE_ANOTHER = {"x3d_l": "x3d_s", "slow_r50": "slowfast_r50"}
"""Made of the same blocks; their shapes are compared all the same."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] if name in LIKE_ANOTHER else []) for name in AS_PUBLISHED]
)
def test_logits_are_those_of_the_published_network(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    reference = AS_PUBLISHED[name]().eval()
    for module in reference.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1)  # open the branches, which begin at zero
    last = reference.head.proj if name == "mvit_b" else reference.blocks[-1].proj
    nn.init.normal_(last.weight)
    torch.save({"model_state": reference.state_dict()}, tmp_path / "weights.pyth")
    request.getfixturevalue("undrawn")
    model = build(name, weights=str(tmp_path / "weights.pyth")).eval()
    model.head[1] = last
    batch = clips(batch=1)
    inputs = batch.movedim(1, 2)
    with torch.no_grad():
        expected = reference(Pathways(8)(inputs) if name == "slowfast_r50" else inputs)
        torch.testing.assert_close(model(batch), expected, rtol=1e-4, atol=1e-5)
    assert expected.std() > 0.01


def test_slowfast_sees_every_fourth_frame_as_the_zoo_does() -> None:
    inputs = torch.arange(32.0).view(1, 1, 32, 1, 1)
    slow, fast = Pathways(32)(inputs)
    assert slow.flatten().tolist() == [0, 4, 8, 13, 17, 22, 26, 31]
    torch.testing.assert_close(fast, inputs, rtol=0, atol=0)


# Training


@pytest.mark.parametrize("name", ["x3d_xs", "mvit_b"])
def test_trains_in_bf16(name: str) -> None:
    model = build(name, SMALL)
    with torch.autocast("cpu", torch.bfloat16):
        nn.functional.cross_entropy(model(clips(SMALL)).float(), torch.tensor([0, 2])).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@settings(max_examples=10)
@given(frames=st.integers(1, 7), size=st.integers(16, 50), batch=st.integers(1, 3), classes=st.integers(2, 5))
def test_x3d_takes_any_clip(frames: int, size: int, batch: int, classes: int) -> None:
    spec = DataSpec(tuple(map(str, range(classes))), size, clip=Clip(frames))
    with torch.no_grad():
        assert build("x3d_xs", spec).eval()(clips(spec, batch)).shape == (batch, classes)


@pytest.mark.parametrize(("frames", "size"), [(4, 16), (12, 48)])
@pytest.mark.parametrize("name", ["slow_r50", "slowfast_r50", "r2plus1d_r50", "csn_r101", "mvit_b"])
@pytest.mark.usefixtures("undrawn")
def test_small_clips_are_taken(name: str, frames: int, size: int) -> None:
    spec = DataSpec(tuple("ab"), size, clip=Clip(frames))
    with torch.no_grad():
        assert build(name, spec).eval()(clips(spec, 1)).shape == (1, 2)


def test_a_frozen_backbone_until_it_thaws() -> None:
    model = build("x3d_xs", SMALL, freeze=True, thaw_epoch=1)
    (note,) = model.notes
    assert 'set model.weights = "kinetics400" or a path' in note
    before = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    for epoch, moves in ((0, False), (1, True)):
        model.begin_epoch(epoch)
        optimizer = torch.optim.SGD(model.train().parameters(), lr=0.1)
        nn.functional.cross_entropy(model(clips(SMALL)), torch.tensor([0, 2])).backward()
        optimizer.step()
        moved = [key for key, value in model.backbone.state_dict().items() if not torch.equal(value, before[key])]
        assert bool(moved) is moves


def test_dropout_reaches_the_head() -> None:
    assert build("x3d_xs", dropout=0.1).head[0].p == 0.1


# Clips that a model cannot take


@pytest.mark.parametrize("name", DESIGNS)
def test_a_model_of_clips_on_images(name: str) -> None:
    with pytest.raises(RecipeError, match=f"model {name}") as caught:
        build(name, DataSpec(classes=("a", "b"), size=64))
    takes = DESIGNS[name].takes
    (problem,) = caught.value.problems
    assert problem.key == "clip"
    assert problem.message == (
        f"{name} takes clips: add a [clip] table (published with frames = {takes.frames}, rate = {takes.rate})"
    )
    assert caught.value.next_step == f"--set clip.frames={takes.frames} --set clip.rate={takes.rate}"


@pytest.mark.parametrize(
    ("name", "frames", "size", "key", "message", "usual"),
    [
        ("slowfast_r50", 10, 64, "clip.frames", "slowfast_r50 takes a multiple of 4 frames, got 10", 32),
        ("mvit_b", 7, 64, "clip.frames", "mvit_b takes a multiple of 2 frames, got 7", 16),
        ("mvit_b", 8, 66, "input.size", "mvit_b takes a multiple of 4 px, got 66", 224),
    ],
)
def test_clips_that_do_not_divide(name: str, frames: int, size: int, key: str, message: str, usual: int) -> None:
    with pytest.raises(RecipeError) as caught:
        build(name, DataSpec(classes=("a", "b"), size=size, clip=Clip(frames)))
    (problem,) = caught.value.problems
    assert (problem.key, problem.message) == (key, message)
    assert caught.value.next_step == f"--set {key}={usual}"


# Weights

FILE = "X3D_XS.pyth"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(kinetics, "ZOO", "http://127.0.0.1:1")
    return tmp_path / "cache" / "weights"


@pytest.fixture
def zoo(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a server that stands in for the zoo."""
    folder = tmp_path / "zoo"
    folder.mkdir()
    with serving(folder) as address:
        monkeypatch.setattr(kinetics, "ZOO", address)
        yield folder


@functools.cache
def as_in_the_zoo(seed: int = 0) -> tuple[dict[str, Tensor], bytes]:
    """The weights of a network of PyTorchVideo, and the file that the zoo would make of them."""
    torch.manual_seed(seed)
    weights: dict[str, Tensor] = PUBLISHED["x3d_xs"]().state_dict()
    stream = io.BytesIO()
    torch.save({"epoch": 300, "model_state": weights, "optimizer_state": {}, "cfg": "MODEL: x3d"}, stream)
    return weights, stream.getvalue()


def assert_loaded(model: nn.Module, weights: dict[str, Tensor], note: str = "") -> None:
    taken = f"starting from Kinetics-400 weights of x3d_xs, licence apache-2.0 ({kinetics.ZOO}/{FILE})"
    assert model.notes == (note or taken,)
    stem = model.backbone[1].conv.conv_t.weight
    torch.testing.assert_close(stem, weights["blocks.0.conv.conv_t.weight"], rtol=0, atol=0)
    assert model.head[1].out_features == 3


@pytest.mark.parametrize("name", PYTORCHVIDEO)
def test_the_address_is_the_zoos(name: str) -> None:
    paths = {path for of in ZOO_FILES for path in of.values()}
    assert kinetics.kinetics400(DESIGNS[name]).url in paths


ZOO_FILES = [
    importlib.import_module(f"pytorchvideo.models.hub.{module}").checkpoint_paths
    for module in ("csn", "r2plus1d", "resnet", "slowfast", "vision_transformers", "x3d")
]


def test_kinetics_weights_are_downloaded_once_and_then_read_from_the_cache(zoo: Path, cache: Path) -> None:
    weights, content = as_in_the_zoo()
    (zoo / FILE).write_bytes(content)
    assert_loaded(build("x3d_xs", weights="kinetics400"), weights)
    (zoo / FILE).unlink()
    assert_loaded(build("x3d_xs", weights="kinetics400"), weights)
    assert (cache / FILE).read_bytes() == content
    assert (cache / f"{FILE}.sha256").read_text() == f"{hashlib.sha256(content).hexdigest()}  {FILE}\n"


def test_a_download_that_is_not_the_file_used_first(zoo: Path, cache: Path) -> None:
    (zoo / FILE).write_bytes(as_in_the_zoo()[1])
    build("x3d_xs", weights="kinetics400")
    (cache / FILE).unlink()
    (zoo / FILE).write_bytes(as_in_the_zoo(seed=1)[1])
    with pytest.raises(WeightsError, match=f"/{FILE}: changed since its first use: its SHA-256 was") as caught:
        build("x3d_xs", weights="kinetics400")
    assert f"if the change is meant, delete {cache / FILE}.sha256" in str(caught.value.next_step)
    assert not (cache / FILE).exists()


def test_a_cached_file_that_is_not_the_file_used_first(zoo: Path, cache: Path) -> None:
    (zoo / FILE).write_bytes(as_in_the_zoo()[1])
    build("x3d_xs", weights="kinetics400")
    (cache / FILE).write_bytes(as_in_the_zoo(seed=1)[1])
    with pytest.raises(WeightsError, match="changed since its first use") as caught:
        build("x3d_xs", weights="kinetics400")
    assert str(caught.value.next_step).startswith(f"delete {cache / FILE} and try again; ")


def test_a_file_whose_checksum_is_known(zoo: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, content = as_in_the_zoo()
    (zoo / FILE).write_bytes(content)
    known = functools.partial(with_checksum, sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(models, "kinetics400", known)
    assert_loaded(build("x3d_xs", weights="kinetics400"), weights)
    assert [path.name for path in cache.iterdir()] == [FILE]


def test_the_wrong_checksum(zoo: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (zoo / FILE).write_bytes(as_in_the_zoo()[1])
    monkeypatch.setattr(models, "kinetics400", functools.partial(with_checksum, sha256="0123456789abcdef"))
    with pytest.raises(WeightsError, match=r'damaged: its SHA-256 begins with ".*", not with "0123456789abcdef"'):
        build("x3d_xs", weights="kinetics400")
    assert list(cache.iterdir()) == []


def with_checksum(design: Design, sha256: str) -> published.Published:
    found = kinetics.kinetics400(design)
    return replace(found, sha256=sha256)


def test_weights_of_the_wrong_shape(zoo: Path, cache: Path) -> None:
    weights, _ = as_in_the_zoo()
    name = "blocks.0.conv.conv_t.weight"
    torch.save({"model_state": {**weights, name: torch.zeros(24, 3, 1, 5, 5)}}, zoo / FILE)
    with pytest.raises(WeightsError, match="Kinetics-400 weights of x3d_xs: the weights do not fit") as caught:
        build("x3d_xs", weights="kinetics400")
    assert caught.value.mis_shaped == (f"{name} (24x3x1x5x5 given, 24x3x1x3x3 wanted)",)


def test_a_server_out_of_reach(cache: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be downloaded") as caught:
        build("x3d_xs", weights="kinetics400")
    assert f"put {FILE} into {cache}" in str(caught.value.next_step)


def test_a_sample_run_goes_on_without_the_weights(cache: Path) -> None:
    sample = DataSpec(classes=tuple("abc"), size=32, clip=Clip(4), sample=True)
    model = build("x3d_xs", sample, weights="kinetics400", freeze=True)
    assert model.notes == (
        "Kinetics-400 weights could not be downloaded: starting from random weights (sample run); "
        "the backbone is not frozen",
    )
    assert all(module.training for module in model.train().modules())


def test_weights_from_a_path(tmp_path: Path) -> None:
    weights, content = as_in_the_zoo()
    (tmp_path / FILE).write_bytes(content)
    torch.save(weights, tmp_path / "plain.pt")
    for name in (FILE, "plain.pt"):
        dropped = "dropped blocks.5.proj.weight (400x2048), blocks.5.proj.bias (400)"
        note = f"starting from the weights of {tmp_path / name}; {dropped}"
        assert_loaded(build("x3d_xs", weights=str(tmp_path / name)), weights, note)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model_state": {}}, "holds no state dict"),
        ({"model_state": {"a": 1}}, "holds no state dict"),
        ({"epoch": 3}, "holds no state dict"),
        ([torch.zeros(1)], "holds no state dict"),
        ({"model_state": Path()}, "holds pathlib.*Path besides tensors, and reading that could run code"),
    ],
)
def test_files_that_are_none_of_the_zoos(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / FILE)
    with pytest.raises(WeightsError, match=message):
        build("x3d_xs", weights=str(tmp_path / FILE))


def test_half_a_file(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(as_in_the_zoo()[1][:1000])
    with pytest.raises(WeightsError, match="damaged, or not a weights file: "):
        build("x3d_xs", weights=str(tmp_path / FILE))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such weights file"):
        build("x3d_xs", weights=str(tmp_path / FILE))
    with pytest.raises(WeightsError) as caught:
        build("x3d_xs", weights="kinetics")
    assert caught.value.next_step == 'did you mean weights = "kinetics400"?'
