"""Files of OpenVINO: what they hold, and that they leave only if OpenVINO answers as the trained model does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests import resizing_bundle
from toolkit.api.errors import EXIT_DONE, EXIT_PARITY, BundleError, ParityError, UsageError
from toolkit.cli.main import main
from toolkit.export.folders import LABELS
from toolkit.export.openvino import MODEL, write_openvino
from toolkit.serving.bundle import Bundle, openvino_session, read_manifest
from toolkit.serving.bundle.openvino_session import is_installed, library

pytestmark = pytest.mark.skipif(not is_installed(), reason="openvino is not installed")
PASSED: Any = SimpleNamespace(problems=(), findings=list)
FAILED: Any = SimpleNamespace(problems=("squares: worse",), findings=lambda: ["squares: worse"])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return resizing_bundle.write(tmp_path_factory.mktemp("ov") / "toy", classes=("dark", "a  b"))


def test_the_files_answer_as_the_bundle(bundle: Path, tmp_path: Path) -> None:
    asked: list[Bundle] = []

    def gate(candidate: Bundle) -> Any:
        asked.append(candidate)
        return PASSED

    place = write_openvino(bundle, read_manifest(bundle), tmp_path / "toy-openvino", gate)
    assert {path.name for path in place.iterdir()} == {MODEL, "model.bin", LABELS}
    assert (place / LABELS).read_text() == "dark\na b\n"
    squares = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    expected = Bundle.load(bundle, device="cpu").rows(squares)
    np.testing.assert_allclose(asked[0].rows(squares), expected, rtol=1e-6)
    model = library().Core().read_model(place / MODEL)
    assert json.loads(model.get_rt_info(["vision_toolkit", "classes"]).astype(str)) == ["dark", "a  b"]
    compiled = library().Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(compiled({"frames": squares})["probabilities"], expected, rtol=1e-6)


def test_a_model_that_answers_otherwise_is_not_written(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"not written: OpenVINO .* answers otherwise") as caught:
        write_openvino(bundle, read_manifest(bundle), tmp_path / "toy-openvino", lambda _: FAILED)
    assert [*caught.value.details] == ["squares: worse"]
    assert caught.value.next_step == (
        f"use the bundle, which ONNX Runtime computes: python -m toolkit predict {bundle} INPUT"
    )
    assert list(tmp_path.iterdir()) == []


def test_only_such_files_are_replaced(bundle: Path, tmp_path: Path) -> None:
    manifest = read_manifest(bundle)
    for _ in range(2):
        write_openvino(bundle, manifest, tmp_path / "toy-openvino", lambda _: PASSED)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work.txt").touch()
    with pytest.raises(UsageError, match="exists and is not a model of OpenVINO"):
        write_openvino(bundle, manifest, tmp_path / "mine", lambda _: PASSED)


def test_a_model_that_openvino_cannot_convert_is_named(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library(), "save_model", lambda *_, **__: 1 / 0)
    with pytest.raises(BundleError, match=r"model.onnx: openvino [\d.]+ cannot convert it: division by zero"):
        write_openvino(bundle, read_manifest(bundle), tmp_path / "toy-openvino", lambda _: PASSED)


def test_a_changed_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    manifest = read_manifest(bundle)
    other = replace(manifest, files={**manifest.files, "model.onnx": "0" * 64})
    with pytest.raises(BundleError, match="changed or cut short"):
        write_openvino(bundle, other, tmp_path / "toy-openvino", lambda _: PASSED)


def test_without_openvino_the_flag_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the run is opened."""
    library.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    monkeypatch.setattr(openvino_session, "is_installed", lambda: False)
    main(["export", str(tmp_path / "run"), "--exports", str(tmp_path), "--format", "openvino"])
    printed = capsys.readouterr().err
    library.cache_clear()
    assert "--format openvino: needs openvino, which is not installed" in printed
    assert "pip install 'vision-toolkit[openvino]'" in printed


@pytest.mark.slow
def test_an_export_asks_openvino_about_the_whole_split(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(run), "--exports", str(tmp_path), "--format", "openvino"]
    assert main(words) == EXIT_DONE
    printed = capsys.readouterr().out
    assert "gate fp32 by openvino: passed" in printed
    assert f"openvino {tmp_path / 'tiny-openvino'}" in printed
    asked = openvino_session.OpenVinoSession.run
    monkeypatch.setattr(openvino_session.OpenVinoSession, "run", lambda self, pixels: asked(self, 255 - pixels))
    (tmp_path / "tiny-openvino" / MODEL).touch()
    assert main(words) == EXIT_PARITY
    assert "gate fp32 by openvino: FAILED" in capsys.readouterr().out
    assert (tmp_path / "tiny-openvino" / MODEL).stat().st_size > 0
