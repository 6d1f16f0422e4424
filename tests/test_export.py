"""Export: what leaves answers as what was trained, or does not leave."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from tests import toy_bundle
from toolkit import export
from toolkit.bundle import Bundle, read_manifest
from toolkit.bundle.views import average_views
from toolkit.cli import main
from toolkit.clips import Clip, evaluation_clips
from toolkit.contracts import DataSpec
from toolkit.errors import EXIT_DATA, EXIT_DONE, EXIT_PARITY, EXIT_USAGE
from toolkit.export import asking
from toolkit.export.asking import ask_raw
from toolkit.export.graph import Prepare, to_onnx
from toolkit.export.half import to_fp16
from toolkit.export.integers import to_int8
from toolkit.network import Network
from toolkit.pixels import centre_crop, to_square

RECIPE = """
[data]
name = "cifar10"
sample_images = 600
[model]
name = "cnn"
widths = [16, 32, 64]
[train]
epochs = 1
batch = 64
precision = "fp32"
[train.optimizer]
name = "adam"
lr = 0.003
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the sample, just good enough for its answers to differ."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.toml").write_text(RECIPE)
    assert main(["run", str(folder / "tiny.toml"), "--runs", str(folder)]) == EXIT_DONE
    (made,) = (folder / "tiny").iterdir()
    return made


@pytest.fixture(scope="module")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    exports = tmp_path_factory.mktemp("exports")
    words = ["export", str(run), "--exports", str(exports), "--set", 'export.precision=["fp32","fp16","int8"]']
    assert main([*words, "--set", "export.int8.max_drop=5"]) == EXIT_DONE
    return exports / "tiny"


def run_session(model: onnx.ModelProto | Path, frames: np.ndarray) -> np.ndarray:
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    answers: np.ndarray = session.run(["probabilities"], {"frames": frames})[0]
    return answers


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


# The graph


@pytest.mark.parametrize("fit", ["crop", "stretch"])
@pytest.mark.parametrize(("height", "width"), [(183, 275), (40, 31), (24, 24), (7, 90), (333, 24)])
def test_the_graph_resamples_as_training_does(fit: Any, height: int, width: int) -> None:
    frames = torch.from_numpy(noise(3, height, width, 3))
    trained = centre_crop(to_square(frames.movedim(-1, -3), 24, fit), 20).float()
    difference = (Prepare(24, 20, fit)(frames) - trained).abs()
    assert difference.max() <= 1  # training's uint8 kernel computes in fixed point
    assert difference.mean() < 0.3


@pytest.fixture(scope="module")
def graph() -> tuple[Network, DataSpec, onnx.ModelProto]:
    spec = DataSpec(classes=("dark", "bright", "other"), size=16, stored=20)
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    norm.running_mean.uniform_(-1, 1)  # type: ignore[union-attr]
    layers = nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 49, 3)
    network = Network(nn.Sequential(*layers), spec).eval()
    return network, spec, to_onnx(network, spec, {"classes": "[]"})


@pytest.mark.parametrize("shape", [(1, 20, 20), (2, 53, 61), (5, 20, 31), (3, 200, 21)])
def test_any_batch_height_and_width_is_answered_as_by_the_network(
    graph: tuple[Network, DataSpec, onnx.ModelProto], shape: tuple[int, int, int]
) -> None:
    network, spec, model = graph
    frames = noise(*shape, 3)
    with torch.no_grad():
        seen = Prepare(spec.stored_size, spec.size, spec.fit)(torch.from_numpy(frames))
        trained = network(seen).softmax(1).numpy()
    np.testing.assert_allclose(run_session(model, frames), trained, atol=1e-4)  # a pixel may round the other way


def test_batch_norm_is_folded_and_the_machine_is_not_told(graph: tuple[Network, DataSpec, onnx.ModelProto]) -> None:
    model = graph[2]
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert str(Path(export.__file__).parents[2]).encode() not in model.SerializeToString()
    assert {prop.key: prop.value for prop in model.metadata_props} == {"classes": "[]"}


def test_half_precision_is_the_models_alone(graph: tuple[Network, DataSpec, onnx.ModelProto]) -> None:
    model = graph[2]
    half = to_fp16(model)
    assert half.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert half.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    weights = {weight.name for weight in half.graph.initializer if weight.data_type == onnx.TensorProto.FLOAT16}
    assert len(weights) == 4
    frames = noise(3, 40, 30, 3)
    answers, exact = run_session(half, frames), run_session(model, frames)
    np.testing.assert_allclose(answers, exact, atol=5e-3)
    assert not np.array_equal(answers, exact)


def test_weights_beyond_half_precision_are_clamped(graph: tuple[Network, DataSpec, onnx.ModelProto]) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(graph[2])
    wide = next(weight for weight in model.graph.initializer if len(weight.dims) == 2)
    wide.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(wide) * np.float32(1e9), wide.name))
    halved = [weight for weight in to_fp16(model).graph.initializer if weight.name.startswith(wide.name)]
    assert np.isfinite(numpy_helper.to_array(halved[0])).all()


# The bundle


@pytest.mark.slow
def test_a_bundle_holds_all_that_its_use_needs(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    assert manifest.models == {"fp32": "model.onnx", "fp16": "model.fp16.onnx", "int8": "model.int8.onnx"}
    assert {path.name for path in bundle.iterdir()} == {*manifest.files, "bundle.json"}
    assert manifest.sample
    assert "SAMPLE" in (bundle / "README.md").read_text()
    assert manifest.scores.keys() == {"torch", "fp32", "fp16", "int8"}
    assert manifest.gate["fp32"]["squares"]["largest_difference"] < 1e-4
    assert manifest.gate["fp32"]["raw_files"]["batch_sizes"] == [1, 3, 7]
    assert json.loads(json.dumps(manifest.protocol)) == manifest.protocol


@pytest.mark.slow
def test_each_precision_answers_alike(bundle: Path) -> None:
    frames = noise(4, 32, 32, 3)
    exact = Bundle.load(bundle, device="cpu").predict(frames).probabilities
    for precision, tolerance in (("fp16", 0.01), ("int8", 0.2)):
        answers = Bundle.load(bundle, device="cpu", precision=precision).predict(frames).probabilities
        np.testing.assert_allclose(answers, exact, atol=tolerance)


@pytest.mark.slow
def test_integers_are_uint8_activations_and_int8_weights_a_channel(bundle: Path) -> None:
    model = onnx.load(bundle / "model.int8.onnx")
    kinds = {weight.name: weight.data_type for weight in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    made_by = {name: node for node in model.graph.node for name in node.output}
    assert convolutions[0].input[1] in kinds  # the first layer stays float
    for node in convolutions[1:]:
        activation, weight = (made_by[name] for name in node.input[:2])
        assert activation.op_type == weight.op_type == "DequantizeLinear"
        assert kinds[activation.input[2]] == onnx.TensorProto.UINT8
        assert kinds[weight.input[0]] == onnx.TensorProto.INT8
    assert len(convolutions) > 3


@pytest.mark.slow
def test_a_bundle_is_evaluated_as_a_run_is(
    bundle: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", str(bundle), "--precision", "fp32", "--device", "cpu"]) == EXIT_DONE
    (made,) = (tmp_path / "runs" / "tiny-bundle").iterdir()
    scores, trained = (json.loads((folder / "scores.json").read_text()) for folder in (made, run))
    assert scores["test"].keys() == trained["test"].keys()
    assert scores["test"]["accuracy"] == pytest.approx(trained["test"]["accuracy"], abs=0.02)
    assert "SAMPLE" in capsys.readouterr().out
    assert "SAMPLE" in (made / "report.html").read_text()


def test_options_for_bundles_are_refused_for_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(tmp_path), "--device", "cpu"]) == EXIT_USAGE
    assert "not a bundle; --device and --precision are for bundles" in capsys.readouterr().err


@pytest.mark.slow
def test_data_with_other_classes_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(bundle), "--set", 'data={name="har"}']) == EXIT_DATA
    told = capsys.readouterr().err
    assert "knows the classes arrow, ball" in told
    assert "next:  evaluate on data with the same classes" in told


# The gate


def tampered(model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> onnx.ModelProto:
    (weight,) = (weight for weight in model.graph.initializer if weight.name == name)
    weight.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(weight)).astype(np.float32), name))
    return model


def first_weight(model: onnx.ModelProto) -> str:
    convolution = next(node for node in model.graph.node if node.op_type == "Conv")
    return str(convolution.input[1])


def other_mean(model: onnx.ModelProto) -> onnx.ModelProto:
    shift = next(weight for weight in model.graph.initializer if weight.name.endswith("normalize.shift"))
    return tampered(model, shift.name, lambda values: values + 0.5)


def swapped_channels(model: onnx.ModelProto) -> onnx.ModelProto:
    return tampered(model, first_weight(model), lambda values: values[:, ::-1].copy())


def one_weight(model: onnx.ModelProto) -> onnx.ModelProto:
    def change(values: np.ndarray) -> np.ndarray:
        values = values.copy()
        values.flat[0] += 3
        return values

    return tampered(model, first_weight(model), change)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [other_mean, swapped_channels, one_weight])
def test_a_twin_that_is_wrong_does_not_leave(
    wrong: Callable[[onnx.ModelProto], onnx.ModelProto],
    run: Path,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(export, "to_onnx", lambda *_: wrong(onnx.load(bundle / "model.onnx")))
    assert main(["export", str(run), "--exports", str(tmp_path)]) == EXIT_PARITY
    told = capsys.readouterr().err
    assert "tiny: not written: the exported model does not answer as the trained one" in told
    assert "max_difference allows 0.001" in told
    flipped = [line for line in told.splitlines() if "fp32: flipped" in line]
    assert flipped
    assert all("became" in line for line in flipped[:-1])
    assert "next:" in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_bundle_in_place_stays_when_a_later_export_fails(
    run: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in bundle.iterdir()}
    monkeypatch.setattr(export, "to_onnx", lambda *_: other_mean(onnx.load(bundle / "model.onnx")))
    assert main(["export", str(run), "--exports", str(bundle.parent)]) == EXIT_PARITY
    assert {path.name: path.stat().st_mtime_ns for path in bundle.iterdir()} == before
    assert [path.name for path in bundle.parent.iterdir()] == ["tiny"]


@pytest.mark.slow
def test_limits_are_the_recipes(
    run: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export, "to_onnx", lambda *_: onnx.load(bundle / "model.onnx"))
    words = ["export", str(run), "--exports", str(tmp_path), "--set", "export.fp32.max_difference=0.0"]
    assert main(words) == EXIT_PARITY
    assert "max_difference allows 0" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", "..", "a/b"])
def test_a_bundle_has_a_plain_name(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path), "--name", name]) == EXIT_USAGE
    assert f'"{name}" cannot name a bundle' in capsys.readouterr().err


@pytest.mark.parametrize("inside", ["file", "folder", "link"])
def test_nothing_but_a_bundle_is_replaced(inside: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The default name is the recipe's, and so is that of the folder that holds its runs."""
    place = tmp_path / "runs" / "tiny"
    run_directory = place / "2026-11-28_10-00-00"
    run_directory.mkdir(parents=True)
    (run_directory / "best.pt").write_bytes(b"precious")
    if inside == "link":
        (tmp_path / "exports").mkdir()
        (tmp_path / "exports" / "tiny").symlink_to(place)
    exports = {"file": place.parent, "folder": tmp_path, "link": tmp_path / "exports"}[inside]
    name = "runs" if inside == "folder" else "tiny"
    assert main(["export", str(run_directory), "--exports", str(exports), "--name", name]) == EXIT_USAGE
    told = capsys.readouterr().err
    assert f"error: {exports / name}: in the way, and no bundle (it has no bundle.json)" in told
    assert "--name NAME" in told
    assert (run_directory / "best.pt").read_bytes() == b"precious"


# Clips

CLIP_RECIPE = """
[data]
name = "har"
sample_clips = 6
[clip]
frames = 4
rate = 6
clips = 2
crops = {crops}
average = "{average}"
[model]
name = "cnn"
widths = [8, 8]
[train]
epochs = 2
batch = 16
device = "cpu"
precision = "fp32"
[train.optimizer]
name = "adam"
lr = 0.01
"""


@pytest.fixture(scope="module")
def clip_graph() -> tuple[Network, DataSpec, onnx.ModelProto]:
    clip = Clip(frames=4)
    spec = DataSpec(classes=("dark", "bright", "other"), size=16, stored=20, clip=clip)
    torch.manual_seed(0)
    layers = nn.Conv3d(3, 16, (1, 3, 3)), nn.BatchNorm3d(16), nn.ReLU(), nn.Conv3d(16, 16, 3), nn.BatchNorm3d(16)
    network = Network(_TimeSecond(nn.Sequential(*layers, nn.ReLU(), nn.Conv3d(16, 16, (1, 3, 3)))), spec).eval()
    return network, spec, to_onnx(network, spec, {"classes": "[]"})


class _TimeSecond(nn.Module):
    """Convolutions over time, as models of clips have them, and a pooling that wants to know what it pools."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers
        self.head = nn.Linear(16, 3)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        features = torch.nn.functional.adaptive_avg_pool3d(self.layers(pixels.movedim(1, 2)), 1)
        logits: torch.Tensor = self.head(features.view(features.shape[0], -1))
        return logits


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize(("height", "width"), [(20, 20), (53, 61), (20, 47), (200, 21)])
def test_clips_of_any_batch_height_and_width_are_answered_as_by_the_network(
    clip_graph: tuple[Network, DataSpec, onnx.ModelProto], batch: int, height: int, width: int
) -> None:
    network, spec, model = clip_graph
    frames = noise(batch, 4, height, width, 3)
    with torch.no_grad():
        seen = Prepare(spec.stored_size, spec.size, spec.fit)(torch.from_numpy(frames))
        trained = network(seen).softmax(1).numpy()
    assert seen.shape == (batch, 4, 3, 16, 16)
    answered = run_session(model, frames)
    np.testing.assert_allclose(answered, trained, atol=1e-4)
    assert np.ptp(answered, axis=1).min() > 1e-3


def test_a_clip_is_prepared_as_its_frames_are() -> None:
    frames = torch.from_numpy(noise(2, 3, 41, 30, 3))
    prepare = Prepare(24, 20, "crop")
    assert torch.equal(prepare(frames), torch.stack([prepare(clip) for clip in frames]))


def test_a_model_of_clips_in_half_precision_and_in_integers(
    clip_graph: tuple[Network, DataSpec, onnx.ModelProto],
) -> None:
    model, frames = clip_graph[2], noise(3, 4, 20, 20, 3)
    exact = run_session(model, frames)
    np.testing.assert_allclose(run_session(to_fp16(model), frames), exact, atol=5e-3)
    integers = to_int8(model, iter([frames]))
    made_by = {name: node for node in integers.graph.node for name in node.output}
    convolutions = [node for node in integers.graph.node if node.op_type == "Conv"]
    assert [made_by[node.input[0]].op_type == "DequantizeLinear" for node in convolutions] == [False, True, True]
    np.testing.assert_allclose(run_session(integers, frames), exact, atol=0.05)


WHOLE, SQUARES = ("1", "logits"), ("3", "probabilities")


@pytest.fixture(scope="module", params=[WHOLE, SQUARES], ids=["whole", "squares"])
def clip_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the sample's clips."""
    folder = tmp_path_factory.mktemp("clips")
    crops, average = request.param
    (folder / "tiny.toml").write_text(CLIP_RECIPE.format(crops=crops, average=average))
    assert main(["run", str(folder / "tiny.toml"), "--runs", str(folder)]) == EXIT_DONE
    (made,) = (folder / "tiny").iterdir()
    return made


@pytest.mark.slow
def test_a_run_on_clips_is_exported_evaluated_and_used(
    clip_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(clip_run), "--exports", str(tmp_path), "--set", 'export.precision=["fp32","int8"]']
    assert main([*words, "--set", "export.int8.max_drop=50"]) == EXIT_DONE
    manifest = read_manifest(tmp_path / "tiny")
    assert manifest.clip is not None
    assert (manifest.clip.frames, manifest.clip.clips, manifest.input.frames) == (4, 2, 4)
    found = manifest.gate["fp32"]
    assert found["squares"]["largest_difference"] < 1e-4
    assert found["raw_files"]["batch_sizes"] == found["squares"]["batch_sizes"] == [1, 2, 3]
    assert manifest.scores["fp32"]["accuracy"] == pytest.approx(manifest.scores["torch"]["accuracy"], abs=0.05)
    assert "video clips" in (tmp_path / "tiny" / "README.md").read_text(encoding="utf-8")

    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "tiny", "--precision", "fp32", "--device", "cpu"]) == EXIT_DONE
    (made,) = (tmp_path / "runs" / "tiny-bundle").iterdir()
    scores, trained = (json.loads((folder / "scores.json").read_text()) for folder in (made, clip_run))
    assert scores["test"]["accuracy"] == pytest.approx(trained["test"]["accuracy"], abs=0.02)
    assert scores["protocol"]["views"] == trained["protocol"]["views"]

    capsys.readouterr()
    assert main(["evaluate", "tiny", "--set", "clip.clips=5"]) == EXIT_DATA
    told = capsys.readouterr().err
    assert "was exported to see clips (frames 4, rate 6" in told
    assert "clips 2" in told
    assert "clips 5" in told
    assert "next:  leave out the overrides of clip" in told


@pytest.mark.slow
@pytest.mark.parametrize("clip_run", [WHOLE], indirect=True, ids=["whole"])
def test_a_clip_model_that_is_wrong_does_not_leave(
    clip_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = export.to_onnx
    monkeypatch.setattr(export, "to_onnx", lambda *given: other_mean(honest(*given)))
    assert main(["export", str(clip_run), "--exports", str(tmp_path)]) == EXIT_PARITY
    assert "max_difference allows 0.001" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# Views as they were decoded


class _Videos:
    """A split of videos in memory: video n has `lengths[n]` frames of `sizes[n]`, frame f is all 10 n + f."""

    def __init__(self, lengths: Sequence[int], sizes: Sequence[tuple[int, int]]) -> None:
        self.lengths, self.sizes = lengths, sizes
        self.ids = self.keys = [str(number) for number in range(len(lengths))]
        self.targets = [0] * len(lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def times(self, index: int) -> list[float]:
        return [frame / 10 for frame in range(self.lengths[index])]

    def read(self, index: int, frames: Sequence[int]) -> Iterator[torch.Tensor]:
        for frame in frames:
            yield torch.full((3, *self.sizes[index]), 30 * index + 3 * frame, dtype=torch.uint8)


@pytest.mark.parametrize("crops", [1, 3])
@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_every_view_of_every_video_is_asked_once(tmp_path: Path, crops: int, average: Any) -> None:
    clip = Clip(frames=3, rate=2, fps=10, clips=2, crops=crops, average=average)
    bundle = Bundle.load(toy_bundle.write(tmp_path / "toy", clip=clip), device="cpu")
    split = _Videos([12, 3, 20, 9, 15], [(24, 32), (24, 32), (40, 20), (24, 32), (16, 16)])
    told: list[int] = []
    found = ask_raw(bundle, split, [4, 0, 1, 3, 2], (1, 2, 3), progress=told.append)
    assert sum(told) == 5
    for row, item in enumerate([4, 0, 1, 3, 2]):
        clips = evaluation_clips(clip, split.times(item))
        levels = np.array([[30 * item + 3 * frame for frame in numbers] for numbers in clips], np.uint8)
        frames = np.broadcast_to(levels[:, :, None, None, None], (2, 3, 16, 16, 3)).copy()
        wanted = average_views(bundle.predict(frames).probabilities, average)
        np.testing.assert_allclose(found[row], wanted, atol=1e-5)


def test_frames_too_large_for_one_call_are_cut_to_squares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.load(toy_bundle.write(tmp_path / "toy", clip=Clip(frames=3)), device="cpu")
    seen: list[tuple[int, ...]] = []
    run = type(bundle.session).run

    def noted(self: Any, pixels: np.ndarray) -> np.ndarray:
        seen.append(pixels.shape)
        return run(self, pixels)

    monkeypatch.setattr(type(bundle.session), "run", noted)
    monkeypatch.setattr(asking, "LARGEST_BYTES", 3 * 24 * 32 * 3)
    ask_raw(bundle, _Videos([5, 5], [(24, 32), (25, 32)]), [0, 1], (1,), progress=lambda _: None)
    assert seen == [(1, 3, 24, 32, 3), (1, 3, 16, 16, 3)]


def test_segments_are_as_long_as_training_videos_usually_are() -> None:
    split = _Videos([10, 30, 20, 40, 1000], [(2, 2)] * 5)
    assert export._usual_length(split) == pytest.approx(3.0)
