"""Writing a bundle: what it holds, what it replaces, and what ends it before the slow part."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from tests import tiny
from tests.export.models import Videos, other_mean
from toolkit.api.contracts import DataSpec
from toolkit.api.errors import EXIT_DATA, EXIT_DONE, EXIT_FAILED, EXIT_PARITY, EXIT_USAGE
from toolkit.cli.main import main
from toolkit.export import write as export
from toolkit.serving.bundle import Bundle, FrameSampling, read_manifest
from toolkit_cifar.sample import draw_objects


@pytest.mark.slow
def test_a_bundle_holds_all_that_its_use_needs(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    assert manifest.models == {"fp32": "model.onnx", "fp16": "model.fp16.onnx", "int8": "model.int8.onnx"}
    assert {path.name for path in bundle.iterdir()} == {*manifest.files, "bundle.json"}
    assert manifest.sample
    assert "SAMPLE" in (bundle / "README.md").read_text()
    assert manifest.scores.keys() == {"torch", "fp32", "fp16", "int8"}
    assert max(manifest.gate["fp32"][side]["largest_difference"] for side in ("squares", "raw_files")) < 1e-5
    assert manifest.gate["fp32"]["raw_files"]["batch_sizes"] == [1, 3, 7]
    assert json.loads(json.dumps(manifest.protocol)) == manifest.protocol


@pytest.mark.slow
def test_each_precision_answers_alike(bundle: Path) -> None:
    frames = draw_objects("test", 2).pixels.numpy().transpose(0, 2, 3, 1)
    exact = Bundle.load(bundle, device="cpu").predict(frames).probabilities
    apart = float(np.abs(exact - exact.mean(axis=0)).mean())
    for precision, share in (("fp16", 0.01), ("int8", 0.3)):
        answers = Bundle.load(bundle, device="cpu", precision=precision).predict(frames).probabilities
        # One item near a border may differ by much, on some processors more than on others.
        assert np.abs(answers - exact).mean() < share * apart, precision


@pytest.mark.slow
def test_a_bundle_in_place_stays_when_a_later_export_fails(
    run: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in bundle.iterdir()}
    monkeypatch.setattr(export, "to_onnx", lambda *_: other_mean(onnx.load(bundle / "model.onnx")))
    assert main(["export", str(run), "--exports", str(bundle.parent)]) == EXIT_PARITY
    assert {path.name: path.stat().st_mtime_ns for path in bundle.iterdir()} == before
    assert [path.name for path in bundle.parent.iterdir()] == ["tiny"]


@pytest.mark.parametrize("name", ["", "..", "a/b"])
def test_a_bundle_has_a_plain_name(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path), "--name", name]) == EXIT_USAGE
    assert f'"{name}" cannot name a bundle' in capsys.readouterr().err


def test_a_bundle_records_how_it_was_trained_whatever_overrides_say(run: Path, tmp_path: Path) -> None:
    overrides = ["train.epochs=99", "export.fp32.max_flips=3"]
    assert main(["export", str(run), "--exports", str(tmp_path), *tiny.overridden(overrides)]) == EXIT_DONE
    recipe = tomllib.loads(read_manifest(tmp_path / "tiny").recipe)
    own = tomllib.loads((run / "recipe.toml").read_text(encoding="utf-8"))
    assert recipe["train"] == own["train"]
    assert recipe["export"]["fp32"]["max_flips"] == 3


def test_a_folder_that_cannot_be_written_is_reported_before_the_slow_part(
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
    messages = capsys.readouterr().err
    assert f"error: {exports / name}: exists and is not a bundle (it has no bundle.json)" in messages
    assert "--name NAME" in messages
    assert (run_directory / "best.pt").read_bytes() == b"precious"


def test_a_run_of_a_series_is_exported_under_the_name_of_its_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    series, mine = tmp_path / "runs" / "tiny" / "2026-11-28_10-00-00", tmp_path / "tiny"
    (series / "seed_1").mkdir(parents=True)
    (series / "series.json").write_text("{}")
    mine.mkdir()
    (mine / "work.txt").touch()
    assert main(["export", str(series / "seed_1"), "--exports", str(tmp_path)]) == EXIT_USAGE
    assert f"error: {mine}: exists and is not a bundle" in capsys.readouterr().err


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
    assert max(found[side]["largest_difference"] for side in ("squares", "raw_files")) < 1e-5
    assert found["raw_files"]["batch_sizes"] == found["squares"]["batch_sizes"] == [1, 2, 3]
    assert manifest.scores["fp32"]["accuracy"] == manifest.scores["torch"]["accuracy"]
    assert "video clips" in (tmp_path / "tiny" / "README.md").read_text(encoding="utf-8")

    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "tiny", "--precision", "fp32", "--device", "cpu"]) == EXIT_DONE
    (made,) = (tmp_path / "runs" / "tiny-bundle").iterdir()
    scores, trained = (json.loads((folder / "scores.json").read_text()) for folder in (made, clip_run))
    assert scores["test"]["accuracy"] == pytest.approx(trained["test"]["accuracy"], abs=0.02)
    assert scores["protocol"] == trained["protocol"]

    capsys.readouterr()
    assert main(["evaluate", "tiny", "--set", "clip.clips=5"]) == EXIT_DATA
    messages = capsys.readouterr().err
    assert "was exported to see clips (frames 4, rate 6" in messages
    assert "clips 2" in messages
    assert "clips 5" in messages
    assert "next:  remove the overrides of clip" in messages


def test_segments_are_as_long_as_training_videos_usually_are() -> None:
    split = Videos([10, 30, 20, 40, 1000], [(2, 2)] * 5)
    assert export._usual_length(split) == pytest.approx(3.0)


@pytest.mark.parametrize(("said", "frames"), [(3, 3), (None, 8)])
def test_a_video_is_answered_by_as_many_frames_as_the_dataset_took(said: int | None, frames: int) -> None:
    """The dataset says so in its spec, whatever it calls the argument."""
    spec = DataSpec(("a", "b"), size=8, frames_per_video=said)
    recipe = SimpleNamespace(data=SimpleNamespace(args={"stills": 3, "frames_per_video": 5}))
    assert export._sampling(SimpleNamespace(spec=spec, recipe=recipe)) == FrameSampling(frames)  # type: ignore[arg-type]
