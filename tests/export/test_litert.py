"""Files of LiteRT: what they hold, that they leave only if LiteRT answers as the trained model does, and what is said
where it is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests import toy_bundle
from tests.export.models import noise
from tests.test_docs import DOCS, titled
from toolkit.api.clips import Clip
from toolkit.api.contracts import DataSpec
from toolkit.api.errors import EXIT_DONE, EXIT_PARITY, EXIT_USAGE, BundleError, ParityError, UsageError
from toolkit.cli.main import main
from toolkit.export import litert
from toolkit.export.folders import LABELS
from toolkit.export.litert import (
    ABOUT,
    CONVERTER,
    INTERPRETER,
    MODEL,
    LiteRtSession,
    check_litert,
    write_litert,
)
from toolkit.serving.bundle import Bundle, Rejection, Trust, read_manifest
from toolkit.training.network import Network
from toolkit_tasks.classification import Classification

PASSED: Any = SimpleNamespace(problems=(), findings=list)
FAILED: Any = SimpleNamespace(problems=("squares: worse",), findings=lambda: ["squares: worse"])
CLASSES = ("dark", "a  b", "other")
real = pytest.mark.skipif(
    find_spec(CONVERTER) is None, reason="litert-torch is not installed: it needs an older pydantic than other extras"
)


class Brightness:
    """Stands for LiteRT's interpreter: of one square of 16 pixels, the share of its brightness and what is left."""

    def __init__(self, path: str, num_threads: int) -> None:
        os.write(2, b"INFO: a word of the C++ library\n")
        if not Path(path).read_bytes():
            raise ValueError("the file\n  cannot be read")
        assert num_threads >= 1

    def allocate_tensors(self) -> None:
        pass

    def get_signature_runner(self) -> Any:
        def run(frames: np.ndarray) -> dict[str, np.ndarray]:
            assert frames.shape == (1, 16, 16, 3)
            share = frames.mean(dtype=np.float32, keepdims=True).reshape(1, 1) / 255
            return {"probabilities": np.concatenate([1 - share, share], 1), "energy": share[:, 0]}

        return run


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType(f"{INTERPRETER}.interpreter")
    module.Interpreter = Brightness  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, INTERPRETER, ModuleType(INTERPRETER))
    monkeypatch.setitem(sys.modules, f"{INTERPRETER}.interpreter", module)
    monkeypatch.setattr(litert, "find_spec", lambda name: name)
    monkeypatch.setattr(litert, "version", lambda name: version(name) if name == "torch" else "9.9")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return toy_bundle.write(tmp_path / "toy", classes=("dark", "a  b"))


def converted(_expected: object, _manifest: object, target: Path) -> None:
    target.write_bytes(b"model")


@pytest.mark.usefixtures("installed")
def test_the_files_say_what_the_numbers_mean(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litert, "_convert", converted)
    asked: list[Bundle] = []

    def gate(candidate: Bundle) -> Any:
        asked.append(candidate)
        return PASSED

    unused: Any = None
    for _ in range(2):  # over earlier files
        place = write_litert(bundle, read_manifest(bundle), unused, tmp_path / "toy-litert", gate)
    assert {path.name for path in place.iterdir()} == {MODEL, LABELS, ABOUT}
    assert (place / LABELS).read_text() == "dark\na b\n"
    about = json.loads((place / ABOUT).read_text())
    assert about == {"classes": ["dark", "a  b"], "thresholds": None, "fit": "crop", "recipe_digest": "0" * 64}
    assert (asked[0].precision, asked[0].runtime) == ("fp32", "litert")


@pytest.mark.usefixtures("installed")
def test_a_model_that_answers_otherwise_is_not_written(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(litert, "_convert", converted)
    unused: Any = None
    with pytest.raises(ParityError, match=r"not written: LiteRT 9\.9 answers otherwise") as caught:
        write_litert(bundle, read_manifest(bundle), unused, tmp_path / "toy-litert", lambda _: FAILED)
    assert [*caught.value.details] == ["squares: worse"]
    assert f"python -m toolkit predict {bundle} INPUT" in str(caught.value.next_step)
    assert not (tmp_path / "toy-litert").exists()


@pytest.mark.usefixtures("installed")
def test_inputs_are_asked_one_by_one_as_squares(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """LiteRT would answer the first of a batch alone."""
    declining = Trust(reject=Rejection("energy", 0.5, 0.05))
    manifest = read_manifest(toy_bundle.write(tmp_path / "toy", trust=declining))
    (tmp_path / "model.tflite").write_bytes(b"model")
    session = LiteRtSession(tmp_path / "model.tflite", manifest, 1)
    frames = np.stack([np.full((20, 40, 3), level, np.uint8) for level in (0, 51, 255)])
    np.testing.assert_allclose(session.run(frames), [[1, 0, 0], [0.8, 0.2, 0.2], [0, 1, 1]], atol=1e-6)
    with pytest.raises(BundleError, match="has no heat maps"):
        session.maps(frames)
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("installed")
def test_a_file_that_litert_cannot_open_is_named(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "model.tflite").touch()
    with pytest.raises(BundleError, match=r"model\.tflite: LiteRT 9\.9 cannot open it: the file cannot be read"):
        LiteRtSession(tmp_path / "model.tflite", read_manifest(bundle), 1)


@pytest.mark.usefixtures("installed")
def test_a_converter_that_fails_is_an_error(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs in a process of its own, and its last lines are the cause."""
    monkeypatch.setattr(litert, "_save_program", lambda *_: None)
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / f"{CONVERTER}.py").write_text("raise ValueError('no lowering of aten.odd')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    expected: Any = SimpleNamespace(assembly=None)
    with pytest.raises(BundleError, match=r"litert-torch 9\.9 cannot convert the model: .*no lowering of aten\.odd$"):
        write_litert(bundle, read_manifest(bundle), expected, tmp_path / "toy-litert", lambda _: PASSED)
    assert not (tmp_path / "toy-litert").exists()


@pytest.mark.usefixtures("installed")
def test_only_such_files_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    check_litert(tmp_path / "mine")
    (tmp_path / "mine" / "work.txt").touch()
    with pytest.raises(UsageError, match="exists and is not a model of LiteRT"):
        check_litert(tmp_path / "mine")


@pytest.mark.parametrize("name", ["litert", "tflite"])
def test_without_litert_the_flag_says_what_to_install(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the run is opened."""
    monkeypatch.setattr(litert, "find_spec", lambda _: None)
    words = ["export", str(tmp_path / "run"), "--exports", str(tmp_path), "--format", name]
    assert main(words) == EXIT_USAGE
    printed = " ".join(capsys.readouterr().err.split())
    assert "--format litert: needs litert-torch and ai-edge-litert: not installed" in printed
    assert "pip install 'vision-toolkit[litert]'" in printed


@real
@pytest.mark.long
@pytest.mark.parametrize("frames", [None, 4])
def test_the_converted_model_answers_as_the_trained_one(frames: int | None, tmp_path: Path) -> None:
    clip = None if frames is None else Clip(frames=frames)
    spec = DataSpec(classes=CLASSES, size=16, stored=20, clip=clip)
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14**2, 3)
    network = Network(nn.Sequential(*(layers if frames is None else [_Frames(nn.Sequential(*layers))])), spec).eval()
    trust = Trust(temperature=2.0, reject=Rejection("energy", 0.5, 0.05))
    manifest = read_manifest(
        toy_bundle.write(tmp_path / "toy", classes=CLASSES, square=20, size=16, clip=clip, trust=trust)
    )
    objective = Classification(0.0, None)
    assembly: Any = SimpleNamespace(network=network, objective=objective, spec=spec, device=torch.device("cpu"))
    expected: Any = SimpleNamespace(assembly=assembly)
    squares = noise(3, *(() if frames is None else (frames,)), 20, 20, 3)

    def gate(candidate: Bundle) -> Any:
        logits = network(torch.from_numpy(squares).movedim(-1, -3)[..., 2:18, 2:18])
        wanted = torch.cat([(logits / 2).softmax(1), logits.logsumexp(1, keepdim=True)], 1)
        np.testing.assert_allclose(candidate.rows(squares), wanted.detach().numpy(), atol=1e-5)
        return PASSED

    write_litert(tmp_path / "toy", manifest, expected, tmp_path / "toy-litert", gate)


class _Frames(nn.Module):
    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.layers(frame) for frame in clips.unbind(1)]).mean(0)


@real
@pytest.mark.long
def test_an_export_asks_litert_about_the_whole_split(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["export", str(run), "--name", "har", "--format", "litert"]
    assert main(words) == EXIT_DONE
    printed = capsys.readouterr().out
    assert "gate fp32 by litert: passed" in printed
    assert "litert exports/har-litert" in printed
    script = titled(DOCS / "how-to" / "predict.md", "toolkit_litert.py")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("['arrow', ")
    asked = LiteRtSession.run
    monkeypatch.setattr(LiteRtSession, "run", lambda self, pixels: asked(self, 255 - pixels))
    assert main(words) == EXIT_PARITY
    assert "gate fp32 by litert: FAILED" in capsys.readouterr().out
    assert (tmp_path / "exports" / "har-litert" / MODEL).stat().st_size > 0
