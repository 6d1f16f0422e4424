"""A bundle as Triton's model repository, held against Triton's schema."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from tests import toy_bundle, triton_schema
from toolkit.api.clips import Clip
from toolkit.api.errors import BundleError, RunFailed, UsageError
from toolkit.export.triton import configuration, write_triton
from toolkit.export.write import export_run
from toolkit.serving.bundle import Conformal, Rejection, Trust
from toolkit.serving.bundle.manifest import read_manifest

BOOL, UINT8, FP32, GPU = 1, 2, 11, 1
"""Numbers of Triton's TYPE_BOOL, TYPE_UINT8, TYPE_FP32 and KIND_GPU."""


def parsed(folder: Path) -> Any:
    return triton_schema.parse((folder / "config.pbtxt").read_text(encoding="utf-8"))


def served(tmp_path: Path, **options: Any) -> Path:
    bundle = toy_bundle.write(tmp_path / "toy", precisions=("fp32", "int8"))
    return write_triton(bundle, read_manifest(bundle), tmp_path / "models", **options)


def test_the_configuration_fits_the_schema_and_the_model(tmp_path: Path) -> None:
    folder = served(tmp_path)
    said = parsed(folder)
    assert (said.name, folder.name) == ("toy", "toy")
    assert said.backend == "onnxruntime"
    model = folder / "1" / said.default_model_filename
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (taken,), (given_back,) = session.get_inputs(), session.get_outputs()
    (frames,), (probabilities,) = said.input, said.output
    assert (frames.name, frames.data_type, taken.type) == (taken.name, UINT8, "tensor(uint8)")
    assert (probabilities.name, probabilities.data_type, given_back.type) == (given_back.name, FP32, "tensor(float)")
    assert list(frames.dims) == [-1 if isinstance(side, str) else side for side in taken.shape[1:]]
    assert list(probabilities.dims) == given_back.shape[1:] == [2]
    assert triton_schema.ENUMS["ModelInput.Format"][frames.format] == "FORMAT_NHWC"


def test_it_batches_on_a_gpu_and_is_warm(tmp_path: Path) -> None:
    said = parsed(served(tmp_path, max_batch=12))
    assert said.max_batch_size == 12
    assert said.WhichOneof("scheduling_choice") == "dynamic_batching"
    assert [(group.kind, group.count) for group in said.instance_group] == [(GPU, 1)]
    assert said.parameters["cudnn_conv_algo_search"].string_value == "1"
    assert [sample.batch_size for sample in said.model_warmup] == [1, 12]
    assert {tuple(sample.inputs["frames"].dims) for sample in said.model_warmup} == {(16, 16, 3)}


def test_what_is_warmed_up_is_what_the_model_takes(tmp_path: Path) -> None:
    folder = served(tmp_path, max_batch=3)
    session = onnxruntime.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    for sample in parsed(folder).model_warmup:
        frames = np.zeros([sample.batch_size, *sample.inputs["frames"].dims], np.uint8)
        assert session.run(["probabilities"], {"frames": frames})[0].shape == (sample.batch_size, 2)


def test_a_model_of_single_inputs_is_warmed_up_once(tmp_path: Path) -> None:
    assert [sample.batch_size for sample in parsed(served(tmp_path, max_batch=1)).model_warmup] == [1]


def test_labels_stand_in_the_order_of_the_output(tmp_path: Path) -> None:
    bundle = toy_bundle.write(tmp_path / "toy", classes=("z last", "größe", "a\nb"))
    folder = write_triton(bundle, read_manifest(bundle), tmp_path / "models")
    labels = folder / parsed(folder).output[0].label_filename
    assert labels.read_text(encoding="utf-8").splitlines() == ["z last", "größe", "a b"]


def test_thresholds_of_sets_are_in_the_configuration(tmp_path: Path) -> None:
    bundle = toy_bundle.write(tmp_path / "toy", thresholds=(0.25, 0.7))
    folder = write_triton(bundle, read_manifest(bundle), tmp_path / "models")
    assert json.loads(parsed(folder).parameters["thresholds"].string_value) == [0.25, 0.7]
    assert "on its own; at or above its threshold" in (folder / "config.pbtxt").read_text(encoding="utf-8")


def test_one_class_an_answer_has_no_thresholds(tmp_path: Path) -> None:
    folder = served(tmp_path)
    assert "thresholds" not in parsed(folder).parameters
    assert "# The probability of each class; together they are 1.\n" in (folder / "config.pbtxt").read_text()


@pytest.mark.parametrize("score", ["confidence", "energy", "similarity"])
def test_what_says_how_far_answers_go_is_configured_as_the_model_gives_it(tmp_path: Path, score: Any) -> None:
    trust = Trust(reject=Rejection(score, 0.5, 0.05), conformal=Conformal(0.2, 0.1))
    bundle = toy_bundle.write(tmp_path / "toy", trust=trust)
    folder = write_triton(bundle, read_manifest(bundle), tmp_path / "models")
    session = onnxruntime.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    kinds = {FP32: "tensor(float)", BOOL: "tensor(bool)"}
    configured = [(one.name, kinds[one.data_type], list(one.dims)) for one in parsed(folder).output]
    # what has no dimension of its own is reshaped from one
    given_back = [(one.name, one.type, list(one.shape[1:]) or [1]) for one in session.get_outputs()]
    assert configured == given_back
    assert [one.HasField("reshape") for one in parsed(folder).output if list(one.dims) == [1]] == [True] * (
        len(given_back) - 2
    )


def test_a_clip_has_its_frames_among_the_dimensions(tmp_path: Path) -> None:
    bundle = toy_bundle.write(tmp_path / "toy", clip=Clip(frames=5))
    said = parsed(write_triton(bundle, read_manifest(bundle), tmp_path / "models"))
    assert list(said.input[0].dims) == [5, -1, -1, 3]
    assert not said.input[0].format
    assert list(said.model_warmup[0].inputs["frames"].dims) == [5, 16, 16, 3]


def test_the_preferred_precision_is_served_unless_another_is_named(tmp_path: Path) -> None:
    bundle = toy_bundle.write(tmp_path / "toy", precisions=("fp32", "int8"))
    other = onnx.load(bundle / "model.int8.onnx")
    other.producer_name = "int8"
    onnx.save(other, bundle / "model.int8.onnx")
    manifest = replace(read_manifest(bundle), files=toy_bundle.digests(bundle))
    for precision, file in ((None, "model.onnx"), ("int8", "model.int8.onnx")):
        folder = write_triton(bundle, manifest, tmp_path / "models", precision=precision)
        assert (folder / "1" / "model.onnx").read_bytes() == (bundle / file).read_bytes()
        assert [path.name for path in (folder / "1").iterdir()] == ["model.onnx"]


def test_weights_outside_the_model_file_go_with_it(tmp_path: Path) -> None:
    bundle = toy_bundle.write(tmp_path / "toy")
    model = onnx.load(bundle / "model.onnx")
    (weight,) = (one for one in model.graph.initializer if one.name == "weight")
    onnx.external_data_helper.set_external_data(weight, "model.onnx.data")
    onnx.save(model, bundle / "model.onnx")
    manifest = replace(read_manifest(bundle), files=toy_bundle.digests(bundle))
    folder = write_triton(bundle, manifest, tmp_path / "models")
    assert sorted(path.name for path in (folder / "1").iterdir()) == ["model.onnx", "model.onnx.data"]
    assert onnxruntime.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])


def test_a_model_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = served(tmp_path)
    (folder / "2").mkdir()
    bundle = tmp_path / "toy"
    assert write_triton(bundle, read_manifest(bundle), tmp_path / "models", max_batch=7) == folder
    assert sorted(path.name for path in folder.iterdir()) == ["1", "config.pbtxt", "labels.txt"]
    assert parsed(folder).max_batch_size == 7
    assert [path.name for path in folder.parent.iterdir()] == ["toy"]


def test_what_is_not_a_model_of_triton_is_never_replaced(tmp_path: Path) -> None:
    """Above all the bundle itself, when both are written to one folder."""
    bundle = toy_bundle.write(tmp_path / "toy")
    with pytest.raises(UsageError, match=r"exists and is not a model of Triton \(it has no config\.pbtxt\)"):
        write_triton(bundle, read_manifest(bundle), tmp_path)
    assert read_manifest(bundle)


def test_a_changed_file_is_refused_and_the_old_model_stays(tmp_path: Path) -> None:
    folder = served(tmp_path)
    bundle = tmp_path / "toy"
    with (bundle / "model.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match=r"model\.onnx: not the file that was exported \(its SHA-256 differs\)"):
        write_triton(bundle, read_manifest(bundle), tmp_path / "models", max_batch=7)
    assert parsed(folder).max_batch_size == 32
    assert [path.name for path in folder.parent.iterdir()] == ["toy"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    bundle = toy_bundle.write(tmp_path / "toy")
    (bundle / "model.onnx").unlink()
    with pytest.raises(BundleError, match=r"model\.onnx: missing"):
        write_triton(bundle, read_manifest(bundle), tmp_path / "models")


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "/etc", ".hidden", "a\\b", "line\nbreak"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    bundle = toy_bundle.write(tmp_path / "toy")
    with pytest.raises(UsageError, match="cannot be the name of a model in Triton"):
        write_triton(bundle, replace(read_manifest(bundle), name=name), tmp_path / "models" / "inner")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(("name", "in_the_way"), [(".hidden", False), ("toy", True)])
def test_what_triton_cannot_serve_is_refused_before_the_run_is_exported(
    tmp_path: Path, name: str, in_the_way: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    monkeypatch.setattr("toolkit.export.write.open_answering", opened.append)
    if in_the_way:
        (tmp_path / f"{name}-triton" / name / "mine").mkdir(parents=True)
    use: dict[str, Any] = {"overrides": (), "form": "triton", "console": Console(quiet=True)}
    with pytest.raises(UsageError, match=r"Triton"):
        export_run(tmp_path / "run", name=name, exports=tmp_path, **use)
    assert not opened


def test_a_precision_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r'no precision "int4", only fp32, int8; did you mean "int8"\?'):
        served(tmp_path, precision="int4")


def test_a_precision_unlike_any_is_to_be_exported(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        served(tmp_path, precision="best")
    assert caught.value.next_step == "export the run again with export.precision=best"


def test_a_batch_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="max_batch: must be at least 1, got 0"):
        served(tmp_path, max_batch=0)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="file modes are not kept here")
def test_a_repository_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")
    with pytest.raises(RunFailed, match="/models: cannot be written: Not a directory"):
        served(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(name=st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=12))
def test_any_name_is_in_the_configuration_as_it_is(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    manifest = read_manifest(toy_bundle.write(tmp_path_factory.mktemp("any") / "toy"))
    said: Any = triton_schema.parse(configuration(replace(manifest, name=name)))
    assert said.name == name


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("data_type: TYPE_UINT8", "data_type: UINT8"),
        ("max_batch_size: 32", 'max_batch_size: "32"'),
        ("label_filename", "labels_filename"),
        ("kind: KIND_GPU", "kind: GPU"),
        ("max_queue_delay_microseconds: 500", "max_queue_delay_microseconds: -500"),
        ("string_value: ", "value: "),
    ],
)
def test_the_schema_finds_what_triton_would_refuse(tmp_path: Path, right: str, wrong: str) -> None:
    text = (served(tmp_path) / "config.pbtxt").read_text(encoding="utf-8")
    assert right in text
    with pytest.raises(text_format.ParseError):
        triton_schema.parse(text.replace(right, wrong))


def test_the_model_still_says_what_it_is(tmp_path: Path) -> None:
    folder = served(tmp_path)
    session = onnxruntime.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == ["dark", "bright"]
