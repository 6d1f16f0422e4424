"""bundle.json: what is written is read, and what cannot be true is refused before anything else is opened."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import toy_bundle
from tests.toy_bundle import edit
from toolkit.api.clips import Clip
from toolkit.api.errors import EXIT_DATA, BundleError
from toolkit.serving.bundle import MANIFEST, FrameSampling, Maps, Searched, read_manifest


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return toy_bundle.write(tmp_path / "toy", precisions=("int8", "fp32"))


NO_NAMES = ("", ".", "..", "../x", "/etc/x", "a/b", "a\\b", "a\0b")


def refusal(bundle: Path) -> BundleError:
    with pytest.raises(BundleError) as caught:
        read_manifest(bundle)
    assert caught.value.exit_code == EXIT_DATA
    assert caught.value.next_step
    return caught.value


def test_what_is_written_is_read(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    assert manifest.classes == ("dark", "bright")
    assert list(manifest.models) == ["int8", "fp32"]
    assert (bundle / MANIFEST).read_text(encoding="utf-8") == manifest.to_json()
    other = replace(manifest, name="größe", sampling=FrameSampling(3))
    (bundle / MANIFEST).write_text(other.to_json(), encoding="utf-8")
    assert read_manifest(bundle) == other


def test_a_folder_without_a_manifest_names_the_bundles_near_it(bundle: Path) -> None:
    assert refusal(bundle.parent).message == f"{bundle.parent}: not a bundle (it has no bundle.json)"
    assert refusal(bundle.parent).next_step == f"name one of its bundles: {bundle}"
    assert refusal(bundle.parent / "tyo").next_step == f"did you mean {bundle}?"
    assert "python -m toolkit export RUN" in str(refusal(bundle.parent / "elsewhere" / "x").next_step)
    bundle.rename(bundle.with_name(".toy.unfinished-1"))
    assert "python -m toolkit export RUN" in str(refusal(bundle.parent).next_step)


def test_a_file_is_no_bundle(bundle: Path) -> None:
    error = refusal(bundle / "model.onnx")
    assert "a bundle is a folder, this is a file" in error.message
    assert error.next_step == f"give its folder: {bundle}"
    (bundle.parent / "alone.onnx").touch()
    assert refusal(bundle.parent / "alone.onnx").next_step == f"name one of its bundles: {bundle}"


def test_a_bundle_that_lost_its_manifest_is_to_be_copied_again(bundle: Path) -> None:
    (bundle / MANIFEST).unlink()
    assert str(refusal(bundle).next_step).startswith("copy the whole bundle again")


def test_a_run_is_to_be_exported_first(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "my run"
    run.mkdir(parents=True)
    (run / "best.pt").touch()
    assert refusal(run).next_step == f"export it first: python -m toolkit export '{run}'"


def test_a_folder_of_runs_names_the_latest(tmp_path: Path) -> None:
    for name in ("2031-01-01_10-00-00", "2031-01-02_10-00-00"):
        (tmp_path / "tiny" / name).mkdir(parents=True)
        (tmp_path / "tiny" / name / "best.pt").touch()
    latest = tmp_path / "tiny" / "2031-01-02_10-00-00"
    for folder in (tmp_path, tmp_path / "tiny"):
        assert refusal(folder).next_step == f"name one of its runs, the latest is {latest}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not valid JSON"),
        ("[1]", "not a JSON object"),
        ('{"name": "a", "name": "b"}', 'not valid JSON: the key "name" is there twice'),
        ("[" * 100_000, "not valid JSON"),
        ("\x80", "not valid"),
    ],
)
def test_what_is_not_json_is_refused(bundle: Path, text: str, said: str) -> None:
    (bundle / MANIFEST).write_text(text, encoding="latin-1")
    assert said in refusal(bundle).message


def test_a_manifest_that_cannot_be_read_is_refused(bundle: Path) -> None:
    (bundle / MANIFEST).unlink()
    (bundle / MANIFEST).mkdir()
    assert "expected a regular file, got a folder" in refusal(bundle).message


@pytest.mark.parametrize(
    ("version", "next_step"),
    [
        (5, "export the run again: python -m toolkit export RUN"),
        (7, "install a newer toolkit; bundle.json says under versions which one wrote it"),
        ("4", "copy the whole bundle again, or export the run again"),
        (None, "copy the whole bundle again, or export the run again"),
        (True, "copy the whole bundle again, or export the run again"),
    ],
)
def test_another_schema_version_is_refused(bundle: Path, version: object, next_step: str) -> None:
    error = refusal(edit(bundle, lambda claimed: claimed.update(schema=version)))
    assert f"schema version {version!r}; this toolkit reads version 6" in error.message
    assert error.next_step == next_step


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("bright", "wright"),
        lambda text: text.replace('"square": 16', '"square": 17'),
        lambda text: text.replace('"sha256"', '"sha255"'),
        lambda text: text.replace('"accuracy": 1.0', '"accuracy": 1.1', 1),
        lambda text: text.replace("{", '{"classes": ["a", "b"],', 1).replace('"classes": [\n', '"classen": [\n'),
    ],
)
def test_what_was_changed_since_the_export_is_refused(bundle: Path, change: Callable[[str], str]) -> None:
    path = bundle / MANIFEST
    text = path.read_text(encoding="utf-8")
    assert change(text) != text
    path.write_text(change(text), encoding="utf-8")
    said = f'{path}: changed since the export: it does not match its "sha256" (only thresholds may be edited)'
    assert refusal(bundle).message == said


def test_thresholds_and_the_form_of_the_file_may_be_edited(tmp_path: Path) -> None:
    path = toy_bundle.write(tmp_path / "sets", thresholds=(0.25, 0.5)) / MANIFEST
    claimed = json.loads(path.read_text(encoding="utf-8"))
    claimed["thresholds"] = [0.75, 0.5]
    path.write_text(json.dumps(claimed, indent=8, sort_keys=True), encoding="utf-8")
    assert read_manifest(path.parent).thresholds == (0.75, 0.5)


def nest(claimed: dict[str, Any], name: str) -> None:
    claimed["files"][name] = "0"
    claimed["models"]["fp32"] = name


def test_what_the_search_found_and_the_maps_are_read(bundle: Path) -> None:
    searched = Searched("int8", ("layer4.0",), 53, 1.5, 20.0)
    edit(bundle, lambda claimed: claimed.update(searched=asdict(searched), maps=MAP))
    manifest = read_manifest(bundle)
    assert manifest.searched == searched
    assert manifest.maps == Maps("Grad-CAM", "last", (2, 2))
    assert manifest.graph_outputs == ("probabilities", "maps")


MAP = {"method": "Grad-CAM", "layer": "last", "extent": [2, 2]}


@pytest.mark.parametrize("special", ["fifo", "device", "sparse"])
def test_a_manifest_that_would_never_end_is_refused_unread(bundle: Path, special: str) -> None:
    path = bundle / MANIFEST
    path.unlink()
    if special == "fifo":
        os.mkfifo(path)
    elif special == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(200 << 30)
    said = {"fifo": "got a FIFO", "device": "got a device", "sparse": "has 214,748,364,800 bytes; the limit is"}
    assert said[special] in refusal(bundle).message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.pop("classes"), "classes: missing or of a wrong type"),
        (lambda m: m.update(sample="no"), "sample: missing or of a wrong type"),
        (lambda m: m.update(searched="int8"), "'str' object is not a mapping"),
        (lambda m: m.update(searched={"precision": "int8"}), "missing 3 required positional arguments"),
        (lambda m: m.update(maps=[2, 2]), "'list' object is not a mapping"),
        (lambda m: m.update(maps=MAP | {"extent": [2]}), "maps.extent: must be sizes of a map, got [2]"),
        (lambda m: m.update(maps=MAP | {"extent": [0, 2]}), "maps.extent: must be sizes of a map, got [0, 2]"),
        (lambda m: m.update(maps=MAP | {"extent": ["2", 2]}), "maps.extent: must be sizes of a map, got ['2', 2]"),
        (lambda m: m.update(extra=1), "unexpected keyword argument 'extra'"),
        (lambda m: m["input"].pop("fit"), "missing 1 required positional argument: 'fit'"),
        (lambda m: m.update(classes=[]), "classes: must be names"),
        (lambda m: m.update(classes=[1, 2]), "classes: must be names"),
        (lambda m: m.pop("form"), "form: missing or of a wrong type"),
        (lambda m: m.update(form="rank"), "form: must be index or set or number, got 'rank'"),
        (lambda m: m.update(form="set"), "thresholds: required for a model of label sets, and only for such a model"),
        (lambda m: m.update(form="number", thresholds=[0.5, 0.5]), "thresholds: required for a model of label sets"),
        (lambda m: m["input"].update(size=17), "size at most square"),
        (lambda m: m["input"].update(square=True), "sizes must be from 1 to 8192"),
        (lambda m: m["input"].update(square=100_000), "sizes must be from 1 to 8192"),
        (lambda m: m["input"].update(frames=0), "sizes must be from 1 to 8192"),
        (lambda m: m["input"].update(frames=4), "sampling: expected a clip for a model of clips"),
        (lambda m: m["sampling"].update(frames=0), "sampling: expected a clip for a model of clips, else from 1"),
        (lambda m: m["sampling"].update(rule="even"), "unexpected keyword argument 'rule'"),
        (lambda m: m["input"].update(fit="fill"), 'input.fit: must be "crop" or "stretch", got \'fill\''),
        *((lambda m, name=name: m.update(name=name), "name: must name a folder") for name in NO_NAMES),
        (lambda m: m.update(models={}), "models: must name at least one"),
        (lambda m: m.update(models={"fp32": ["model.onnx"]}), "models and files: must be names and digests"),
        (lambda m: m["files"].update({"model.onnx": 1}), "models and files: must be names and digests"),
        (lambda m: m.update(models={"fp8": "model.onnx"}), 'models: unknown precision "fp8"'),
        (lambda m: m.update(models={"fp32": "other.onnx"}), "models.fp32: other.onnx is not among files"),
        *(
            (lambda m, name=name: m["files"].update({name: "0"}), "expected one inside the bundle")
            for name in ("../x", "/etc/passwd", "a/../../x", "C:x", "a\\b", "a\0b", "./x", "x/", "a//b", ".", "")
        ),
        (lambda m: nest(m, "a/model.onnx"), "models.fp32: invalid name 'a/model.onnx'"),
    ],
)
def test_what_cannot_be_true_is_refused(bundle: Path, change: Callable[[dict[str, Any]], Any], said: str) -> None:
    error = refusal(edit(bundle, change))
    assert str(bundle / MANIFEST) in error.message
    assert said in error.message


def test_thresholds_make_answers_sets(tmp_path: Path, bundle: Path) -> None:
    assert (read_manifest(bundle).thresholds, read_manifest(bundle).form) == (None, "index")
    sets = toy_bundle.write(tmp_path / "sets", thresholds=(0.1, float(np.float32(0.3))))
    manifest = read_manifest(sets)
    assert (manifest.thresholds, manifest.form) == ((0.1, float(np.float32(0.3))), "set")
    assert (sets / MANIFEST).read_text(encoding="utf-8") == manifest.to_json()


@pytest.mark.parametrize(
    "thresholds", [[], [0.5], [0.5] * 3, [0.5, 1.0], [0, 0.5], [0.5, True], [0.5, "0.5"], [0.5, float("nan")], "ab", {}]
)
def test_thresholds_are_one_for_each_class_between_0_and_1(bundle: Path, thresholds: object) -> None:
    error = refusal(edit(bundle, lambda claimed: claimed.update(form="set", thresholds=thresholds)))
    assert "thresholds: must be numbers between 0 and 1, one for each class" in error.message


def test_thresholds_that_are_no_list_are_refused(bundle: Path) -> None:
    assert "'int' object is not iterable" in refusal(edit(bundle, lambda m: m.update(thresholds=1))).message


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    return toy_bundle.write(tmp_path / "clips", clip=Clip(frames=4, rate=2, clips=10, crops=3, average="logits"))


def test_how_a_video_becomes_clips_is_read(clips: Path) -> None:
    manifest = read_manifest(clips)
    assert manifest.clip == Clip(frames=4, rate=2, clips=10, crops=3, average="logits")
    assert (clips / MANIFEST).read_text(encoding="utf-8") == manifest.to_json()


def test_a_model_of_images_has_no_clip(bundle: Path) -> None:
    assert read_manifest(bundle).clip is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s["clip"].pop("average"), "sampling.clip: must have frames, rate, fps, sampling, clips, crops,"),
        (lambda s: s["clip"].update(speed=2), "sampling.clip: must have frames, rate,"),
        (lambda s: s.update(clip=7), "sampling.clip: must have frames, rate,"),
        (lambda s: s.pop("span"), "missing 1 required positional argument: 'span'"),
        (lambda s: s["clip"].update(frames=5), "sampling.clip.frames: 5, where input.frames is 4"),
        (lambda s: s["clip"].update(rate=0), "sampling.clip.rate: must be from 1 to 8192, got 0"),
        (lambda s: s["clip"].update(clips=True), "sampling.clip.clips: must be from 1 to 8192, got True"),
        (lambda s: s["clip"].update(clips_per_video="2"), "sampling.clip.clips_per_video: must be from 1 to 8192"),
        (lambda s: s["clip"].update(crops=2), "sampling.clip.crops: must be 1 or 3, got 2"),
        (lambda s: s["clip"].update(sampling="random"), "sampling.clip.sampling: must be strided or segments, got"),
        (lambda s: s["clip"].update(average="votes"), "sampling.clip.average: must be probabilities or logits, got"),
        (lambda s: s["clip"].update(short="pad"), "sampling.clip.short: must be loop or hold, got 'pad'"),
        (lambda s: s["clip"].update(short=["loop"]), "sampling.clip.short: must be loop or hold, got"),
        (lambda s: s["clip"].update(fps=0), "sampling.clip.fps: must be a number above 0, got 0"),
        (lambda s: s["clip"].update(fps="30"), "sampling.clip.fps: must be a number above 0, got '30'"),
        (lambda s: s.update(span=-1.0), "sampling.span: must be a number above 0, got -1.0"),
        (lambda s: s.update(span=float("nan")), "sampling.span: must be a number above 0, got nan"),
    ],
)
def test_clips_that_cannot_be_are_refused(clips: Path, change: Callable[[dict[str, Any]], Any], said: str) -> None:
    assert said in refusal(edit(clips, lambda claimed: change(claimed["sampling"]))).message
