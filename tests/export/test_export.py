"""Export: what leaves answers as what was trained, or does not leave."""

from __future__ import annotations

import csv
import json
import math
import threading
import tomllib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from tests import small, tiny, toy_bundle
from toolkit.api.clips import Clip, evaluation_clips
from toolkit.api.contracts import DataSpec
from toolkit.api.errors import EXIT_DATA, EXIT_DONE, EXIT_FAILED, EXIT_PARITY, EXIT_USAGE, DataError
from toolkit.cli.main import main
from toolkit.data.store import Corrupt, centre_crop, to_square
from toolkit.data.store.corrupt import LeftOut
from toolkit.export import asking
from toolkit.export import write as export
from toolkit.export.asking import ask_raw
from toolkit.export.gate import LISTED, Reference, Verdict, judge, reference
from toolkit.export.graph import Prepare, to_onnx
from toolkit.export.half import to_fp16
from toolkit.export.integers import to_int8
from toolkit.recipe.tables import LIMITS
from toolkit.serving.bundle import Bundle, FrameSampling, read_manifest
from toolkit.serving.bundle.session import Session
from toolkit.serving.bundle.views import average_views
from toolkit.training.evaluate import Answered
from toolkit.training.network import Network
from toolkit_tasks.classification import Classification

SOFTMAX = partial(torch.softmax, dim=-1)
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
    return network, spec, to_onnx(network, SOFTMAX, spec, {"classes": "[]"})


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


def test_batches_whose_items_were_all_left_out_do_not_change_the_ranges(
    graph: tuple[Network, DataSpec, onnx.ModelProto],
) -> None:
    model, frames = graph[2], noise(4, 20, 20, 3)
    nothing = frames[:0]
    wanted = to_int8(model, [frames[:2], frames[2:]])
    found = to_int8(model, iter([nothing, frames[:2], nothing, frames[2:], nothing]))
    assert found.SerializeToString() == wanted.SerializeToString()


def test_onnxruntime_pools_the_first_layer_in_float(
    graph: tuple[Network, DataSpec, onnx.ModelProto], tmp_path: Path
) -> None:
    model, frames = graph[2], noise(4, 20, 20, 3)
    integers = to_int8(model, iter([frames]))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "run.onnx")
    onnxruntime.InferenceSession(integers.SerializeToString(), options, providers=["CPUExecutionProvider"])
    run = [node.op_type for node in onnx.load(tmp_path / "run.onnx").graph.node]
    assert run.index("MaxPool") < run.index("QuantizeLinear")
    onnx.checker.check_model(integers, full_check=True)
    np.testing.assert_allclose(run_session(integers, frames), run_session(model, frames), atol=0.05)


def test_integers_need_an_item_to_take_ranges_from(graph: tuple[Network, DataSpec, onnx.ModelProto]) -> None:
    with pytest.raises(DataError, match="int8 has no ranges of values: every training item") as caught:
        to_int8(graph[2], iter([noise(0, 20, 20, 3)] * 2))
    assert "--set export.calibration=NUMBER" in (caught.value.next_step or "")


def test_there_must_be_items_to_compare_on() -> None:
    nothing = SimpleNamespace(pixels=())
    recipe = SimpleNamespace(data=SimpleNamespace(name="har"))
    with pytest.raises(DataError, match="nothing to compare the exported model on") as caught:
        reference(SimpleNamespace(loaders=lambda: {"valid": nothing, "test": nothing}, recipe=recipe))  # type: ignore[arg-type]
    assert str(caught.value.next_step).endswith("the keys are told by: python -m toolkit plugins show har")


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
    assert scores["protocol"] == trained["protocol"]
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


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Class folders of images, where the command finds a toy bundle that knows their classes."""
    monkeypatch.chdir(tmp_path)
    root = tiny.write_images(tmp_path / "images")
    recipe = tiny.write_recipe(tmp_path, root).read_text(encoding="utf-8")
    toy_bundle.write(tmp_path / "toy", classes=tiny.CLASSES, recipe=recipe)
    return root


def evaluated(*overrides: str) -> int:
    return main(["evaluate", "toy", "--device", "cpu", *tiny.overridden(overrides)])


def spoil(root: Path, *items: str) -> None:
    for item in items:
        (root / item).write_bytes(b"\x89PNG\r\n\x1a\n cut short")


def test_corrupt_images_are_left_out_of_a_bundles_scores(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(pictures, "test/blue/01.png", "test/red/03.png")
    assert evaluated("input.on_corrupt=skip", "input.corrupt_limit=0.2") == EXIT_DONE
    made = tiny.only_run(pictures.parent / "runs", "toy-bundle")
    assert json.loads((made / "scores.json").read_text())["protocol"]["skipped"] == {"train": 0, "valid": 0, "test": 2}
    with (made / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    left = [f"{name}/{number:02}" for name in tiny.CLASSES for number in range(4)]
    left = [item for item in left if item not in ("blue/01", "red/03")]
    assert [(row["id"], row["target"]) for row in rows] == [(f"test/{item}.png", item.split("/")[0]) for item in left]
    (note,) = (note for note in json.loads((made / "facts.json").read_text())["notes"] if "left out" in note)
    assert note.startswith("test: 2 of 12 items were left out because they cannot be read: ")
    assert all(str(pictures / item) in note for item in ("test/blue/01.png", "test/red/03.png"))
    assert f"note: {note}" in capsys.readouterr().out
    assert "2 of 12 items were left out" in (made / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("overrides", "problem", "advice"),
    [
        ([], "test/blue/01.png: cannot be decoded", "--set input.on_corrupt=skip"),
        (
            ["input.on_corrupt=skip"],
            "1 of 12 items cannot be read, more than input.corrupt_limit = 0.01 allows",
            "--set input.corrupt_limit=SHARE",
        ),
    ],
)
def test_a_corrupt_image_that_may_not_be_left_out_ends_a_bundles_evaluation(
    overrides: list[str], problem: str, advice: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(pictures, "test/blue/01.png")
    assert evaluated(*overrides) == EXIT_DATA
    told = capsys.readouterr().err
    assert problem in told
    assert advice in told
    assert not Path("runs").exists()


def test_a_bundle_is_not_scored_on_a_split_that_is_all_corrupt(
    pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(pictures, *(f"test/{name}/{number:02}.png" for name in tiny.CLASSES for number in range(4)))
    assert evaluated("input.on_corrupt=skip", "input.corrupt_limit=1") == EXIT_DATA
    assert "nothing can be scored: every item of a split was left out" in capsys.readouterr().err


def test_the_protocol_of_a_bundles_scores_is_of_the_data_that_was_seen(tmp_path: Path, pictures: Path) -> None:
    protocol = {"dataset": "har", "sample": True, "grouping": "of har", "size": 24, "views": "1 centre crop"}
    recipe = tiny.RECIPE.replace("cifar10", "har")
    toy_bundle.write(tmp_path / "other" / "toy", classes=tiny.CLASSES, recipe=recipe, protocol=protocol)
    words = tiny.overridden(["data.name=cifar10", f'data.root="{pictures}"'])
    assert main(["evaluate", "other/toy", "--device", "cpu", *words]) == EXIT_DONE
    made = tiny.only_run(tmp_path / "runs", "toy-bundle")
    told = json.loads((made / "scores.json").read_text())["protocol"]
    assert (told["dataset"], told["sample"]) == ("cifar10", False)
    assert "grouping" not in told
    assert (told["size"], told["views"]) == (24, "1 centre crop")


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


def overflowing(model: onnx.ModelProto) -> onnx.ModelProto:
    return tampered(model, first_weight(model), lambda values: values * 1e38)


@pytest.mark.slow
def test_a_model_that_overflows_does_not_leave(
    run: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export, "to_onnx", lambda *_: overflowing(onnx.load(bundle / "model.onnx")))
    assert main(["export", str(run), "--exports", str(tmp_path)]) == EXIT_PARITY
    printed = capsys.readouterr()
    items = read_manifest(bundle).gate["fp32"]["items"]
    assert f"squares: {items} answers are not finite numbers, to " in printed.err
    assert f"raw_files: {items} answers are not finite numbers, to " in printed.err
    assert "a probability differs by nan, max_difference allows 0.001" in printed.err
    assert "flipped" not in printed.err
    assert "gate fp32: FAILED" in printed.out
    assert list(tmp_path.iterdir()) == []


class _Judged:
    """A toy bundle, and a trained model of dark and bright squares that answers as it does."""

    def __init__(self, folder: Path, count: int = 8) -> None:
        self.bundle = Bundle.load(toy_bundle.write(folder / "toy"), device="cpu")
        split = small.Squares(count, side=10)  # stored at 8: the raw files have another size
        loader, index = small.loader(split), torch.arange(count)
        frames = loader.at(range(count)).pixels.movedim(-3, -1).numpy()
        logits = torch.from_numpy(self.bundle.session.run(frames)).log()
        train = SimpleNamespace(metric="accuracy", direction="maximize")
        self.assembly: Any = SimpleNamespace(
            loaders=lambda: {"valid": loader},
            metrics=small.metrics,
            spec=small.SPEC,
            objective=Classification(0.0, None),
            recipe=SimpleNamespace(train=train),
        )
        targets = torch.tensor(split.targets)
        self.evaluation = Answered(index, logits, targets).scored(self.assembly.objective, small.metrics())
        self.ids = split.ids

    def verdict(self, precision: str = "fp32") -> Verdict:
        expected = Reference(self.assembly, "valid", self.evaluation)
        return judge(self.bundle, expected, LIMITS[precision], progress=lambda _: None)


def dark_becomes(value: float, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the exported model answer dark frames of this height with `value`: class 0, which NaN looks like."""
    run = Session.run

    def overflown(self: Session, pixels: np.ndarray) -> np.ndarray:
        answers = run(self, pixels)
        if pixels.shape[1] == side:
            answers[pixels.mean((1, 2, 3)) < 128] = value
        return answers

    monkeypatch.setattr(Session, "run", overflown)


@pytest.mark.parametrize("precision", LIMITS)
def test_a_model_that_answers_as_the_trained_one_has_no_problems(precision: str, tmp_path: Path) -> None:
    assert _Judged(tmp_path).verdict(precision).findings() == []


@pytest.mark.parametrize("precision", LIMITS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(("side", "what"), [(8, "squares"), (10, "raw_files")])
def test_answers_that_are_no_numbers_fail_the_gate(
    precision: str, value: float, side: int, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = _Judged(tmp_path)
    dark_becomes(value, side, monkeypatch)
    verdict = judged.verdict(precision)
    assert verdict.problems[0] == f"{what}: 4 answers are not finite numbers, to {', '.join(judged.ids[::2])}"
    assert verdict.squares.flips == verdict.raw.flips == ()
    assert all(problem.startswith(what) for problem in verdict.problems)


def test_many_answers_that_are_no_numbers_are_not_all_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged = _Judged(tmp_path, count=2 * LISTED + 4)
    dark_becomes(math.nan, 8, monkeypatch)
    assert judged.verdict().problems[0].endswith(f"{judged.ids[2 * LISTED - 2]}, and 2 more")


def test_a_score_that_is_no_number_fails_the_gate(tmp_path: Path) -> None:
    judged = _Judged(tmp_path)
    judged.evaluation.scores["accuracy"] = math.nan
    problems = judged.verdict("int8").problems
    assert [problem.partition(":")[0] for problem in problems] == ["squares", "raw_files"]
    assert all("accuracy 1.0000 where the trained model has nan" in problem for problem in problems)


def test_a_trained_model_that_gives_no_numbers_fails_the_gate(tmp_path: Path) -> None:
    judged = _Judged(tmp_path)
    judged.evaluation.answers[0] = math.nan
    (problem,) = judged.verdict("int8").problems
    assert problem == "squares: a probability differs by nan, max_difference allows 1"


@pytest.mark.parametrize("name", ["", "..", "a/b"])
def test_a_bundle_has_a_plain_name(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path), "--name", name]) == EXIT_USAGE
    assert f'"{name}" cannot name a bundle' in capsys.readouterr().err


def test_a_bundle_tells_how_it_was_trained_whatever_overrides_say(run: Path, tmp_path: Path) -> None:
    overrides = ["train.epochs=99", "export.fp32.max_flips=3"]
    assert main(["export", str(run), "--exports", str(tmp_path), *tiny.overridden(overrides)]) == EXIT_DONE
    told = tomllib.loads(read_manifest(tmp_path / "tiny").recipe)
    own = tomllib.loads((run / "recipe.toml").read_text(encoding="utf-8"))
    assert told["train"] == own["train"]
    assert told["export"]["fp32"]["max_flips"] == 3


def test_a_folder_that_cannot_be_written_is_told_before_the_slow_part(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("toolkit.export.write.reference", lambda assembly: pytest.fail("scored"))
    (tmp_path / "file").touch()
    assert main(["export", str(run), "--exports", str(tmp_path / "file")]) == EXIT_FAILED
    assert f"error: {tmp_path / 'file'}: Not a directory" in capsys.readouterr().err


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
    return network, spec, to_onnx(network, SOFTMAX, spec, {"classes": "[]"})


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
    assert scores["protocol"] == trained["protocol"]

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


@pytest.mark.parametrize("size", [1, 3, 100])
def test_pixels_that_wait_for_others_of_their_size_are_bounded(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "WAITING_BYTES", 1000)
    waiting, most = 0, 0

    def mixed() -> Iterator[asking._View]:
        nonlocal waiting, most
        for row in range(60):
            pixels = np.zeros((1, 10 * (1 + row % 7), 3), np.uint8)
            waiting += pixels.nbytes
            most = max(most, waiting)
            yield asking._View(row, 0, pixels)

    rows = []
    for group in asking._grouped(mixed(), (size,)):
        assert len({view.pixels.shape for view in group}) == 1
        assert len(group) <= size
        waiting -= sum(view.pixels.nbytes for view in group)
        rows += [view.row for view in group]
    assert sorted(rows) == list(range(60))
    assert most <= 1000 + 210


def test_of_what_waits_too_much_the_largest_group_is_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "WAITING_BYTES", 50)
    widths = [6, 4, 4, 3]
    views = (asking._View(row, 0, np.zeros((1, width, 3), np.uint8)) for row, width in enumerate(widths))
    assert [[view.row for view in group] for group in asking._grouped(views, (9,))] == [[1, 2], [0], [3]]


class _Pictures:
    """A split of images in memory: image n is of `sizes[n]` and all 10 n."""

    def __init__(self, sizes: Sequence[tuple[int, int]], broken: frozenset[int] = frozenset()) -> None:
        self.sizes, self.broken = sizes, broken
        self.ids = self.keys = [str(number) for number in range(len(sizes))]
        self.targets = [0] * len(sizes)

    def __len__(self) -> int:
        return len(self.sizes)

    def read(self, index: int) -> torch.Tensor:
        if index in self.broken:
            raise DataError(f"image {index} cannot be decoded")
        return torch.full((3, *self.sizes[index]), 10 * index % 256, dtype=torch.uint8)


def grey(bundle: Bundle, numbers: Sequence[int]) -> np.ndarray:
    """Answers to the images of `_Pictures` with these numbers, each asked alone."""
    frames = [np.full((1, 16, 16, 3), 10 * number, np.uint8) for number in numbers]
    return np.concatenate([bundle.session.run(frame) for frame in frames])


@pytest.mark.parametrize("bound", [1, 3000, 1 << 30])
def test_images_of_mixed_sizes_are_answered_in_order(
    bound: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "WAITING_BYTES", bound)
    bundle = Bundle.load(toy_bundle.write(tmp_path / "toy"), device="cpu")
    split = _Pictures([(16, 16 + number % 5) for number in range(25)])
    order, told = [*range(24, -1, -2), *range(1, 25, 2)], list[int]()
    found = ask_raw(bundle, split, order, (1, 3, 7), progress=told.append)
    assert sum(told) == 25
    np.testing.assert_allclose(found, grey(bundle, order), atol=1e-5)


@pytest.mark.parametrize("broken", [frozenset[int](), frozenset({0, 1, 2})])
@pytest.mark.parametrize("first", [1, 9])
def test_images_that_are_read_ahead_are_bounded_by_their_bytes(
    first: int, broken: frozenset[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was read before: the size of an image is known only once it is there."""
    side, small, room = 100, 40, 5
    monkeypatch.setattr(asking, "WAITING_BYTES", room * side * side * 3)
    split = _Pictures([(1, 1)] * small + [(side, side)] * 60, broken=broken)
    reads, too_many = [], threading.Event()

    def read(index: int) -> torch.Tensor:
        reads.append(index)
        if len(reads) > small + room + asking.READERS:
            too_many.set()
        return _Pictures.read(split, index)

    monkeypatch.setattr(split, "read", read)
    left_out = LeftOut(Corrupt(skip=True, limit=1), len(split))
    views = asking._images(split, range(len(split)), left_out)
    rows = [next(views).row for _ in range(first)]
    assert not too_many.wait(0.3)
    rows += [view.row for view in views]
    assert rows == [row for row in range(100) if row not in broken]


def test_images_larger_than_all_that_may_wait_are_read_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "WAITING_BYTES", 10)
    views = asking._images(_Pictures([(20, 20)] * 30), range(30), None)
    assert [view.row for view in views] == list(range(30))


def test_reading_ahead_ends_with_who_asked_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "WAITING_BYTES", 10)
    threads = set(threading.enumerate())
    views = asking._images(_Pictures([(20, 20)] * 30), range(30), None)
    next(views)
    views.close()  # type: ignore[attr-defined]
    assert set(threading.enumerate()) <= threads


def test_images_that_cannot_be_read_have_no_row(tmp_path: Path) -> None:
    bundle = Bundle.load(toy_bundle.write(tmp_path / "toy"), device="cpu")
    split = _Pictures([(16, 16 + number % 2) for number in range(10)], broken=frozenset({0, 4, 7}))
    left_out, told = LeftOut(Corrupt(skip=True, limit=0.3), len(split)), list[int]()
    found = ask_raw(bundle, split, [7, 9, 4, 1, 2], (3,), progress=told.append, left_out=left_out)
    np.testing.assert_allclose(found, grey(bundle, [9, 1, 2]), atol=1e-5)
    assert left_out.reasons == {7: "image 7 cannot be decoded", 4: "image 4 cannot be decoded"}
    assert sum(told) == 3
    with pytest.raises(DataError, match="image 7 cannot be decoded"):
        ask_raw(bundle, split, [7, 9], (3,), progress=told.append)


class _CutShort(_Videos):
    """Videos of which those in `broken` end in an error: after their last frame where they are even."""

    broken = frozenset({1, 2})

    def read(self, index: int, frames: Sequence[int]) -> Iterator[torch.Tensor]:
        whole = index not in self.broken
        yield from super().read(index, frames if whole or index % 2 == 0 else frames[:-1])
        if not whole:
            raise DataError(f"video {index} is cut short")


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_a_video_that_cannot_be_read_to_its_end_is_left_out_whole(tmp_path: Path, average: Any) -> None:
    clip = Clip(frames=3, rate=2, fps=10, clips=3, average=average)
    bundle = Bundle.load(toy_bundle.write(tmp_path / "toy", clip=clip), device="cpu")
    split = _CutShort([20, 18, 25, 14], [(24, 32)] * 4)
    left_out, told = LeftOut(Corrupt(skip=True, limit=0.5), len(split)), list[int]()
    found = ask_raw(bundle, split, range(4), (2,), progress=told.append, left_out=left_out)
    assert left_out.reasons == {1: "video 1 is cut short", 2: "video 2 is cut short"}
    assert sum(told) <= 4
    whole = _Videos(split.lengths, split.sizes)
    np.testing.assert_allclose(found, ask_raw(bundle, whole, [0, 3], (2,), progress=told.append), atol=1e-5)


def test_segments_are_as_long_as_training_videos_usually_are() -> None:
    split = _Videos([10, 30, 20, 40, 1000], [(2, 2)] * 5)
    assert export._usual_length(split) == pytest.approx(3.0)


@pytest.mark.parametrize(("said", "frames"), [(3, 3), (None, 8)])
def test_a_video_is_answered_by_as_many_frames_as_the_dataset_took(said: int | None, frames: int) -> None:
    """The dataset says so in its spec, whatever it calls the argument."""
    spec = DataSpec(("a", "b"), size=8, frames_per_video=said)
    recipe = SimpleNamespace(data=SimpleNamespace(args={"stills": 3, "frames_per_video": 5}))
    trained = SimpleNamespace(assembly=SimpleNamespace(spec=spec, recipe=recipe))
    assert export._sampling(trained) == FrameSampling(frames)  # type: ignore[arg-type]
