from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from subprocess import run

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests import resizing_bundle
from toolkit.api.clips import Clip
from toolkit.api.errors import BundleError, UsageError
from toolkit.serving.bundle import Bundle, Rejection, Trust, openvino_session, read_manifest
from toolkit.serving.bundle.openvino_session import OpenVinoSession, is_installed, library

pytestmark = pytest.mark.skipif(not is_installed(), reason="openvino is not installed")
BY_ENERGY = Trust(reject=Rejection("energy", 8.0, 0.05))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return resizing_bundle.write(tmp_path_factory.mktemp("openvino") / "images", trust=BY_ENERGY)


def opened(folder: Path) -> OpenVinoSession:
    return OpenVinoSession(folder / "model.onnx", read_manifest(folder), 2)


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(1, 16, 16), (40, 16, 16), (3, 31, 20), (1, 5, 90)])
def test_answers_are_those_of_onnxruntime(folder: Path, shape: tuple[int, ...]) -> None:
    """Also to frames that are no squares, since NumPy makes the same squares as the graph."""
    given = pixels(*shape)
    expected = Bundle.load(folder, device="cpu").rows(given)
    assert expected.shape == (shape[0], 3)  # two classes and the energy
    np.testing.assert_allclose(opened(folder).run(given), expected, rtol=1e-6)


def test_clips_are_answered_alike(tmp_path: Path) -> None:
    folder = resizing_bundle.write(tmp_path / "clips", clip=Clip(frames=3))
    bundle = Bundle.load(folder, device="cpu")
    for shape in [(2, 3, 16, 16), (1, 3, 20, 33)]:
        np.testing.assert_allclose(opened(folder).run(pixels(*shape)), bundle.rows(pixels(*shape)), rtol=1e-6)


def test_calls_of_several_threads_take_turns(folder: Path) -> None:
    session, given = opened(folder), pixels(8, 16, 16)
    expected = session.run(given)
    found: list[np.ndarray] = []
    callers = [threading.Thread(target=lambda: found.append(session.run(given))) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(found) == 4
    assert all((one == expected).all() for one in found)


def test_a_call_takes_as_many_inputs_as_one_of_onnxruntime(folder: Path) -> None:
    bundle = Bundle.load(folder, device="cpu")
    for shape in [(16, 16, 3), (8000, 6000, 3)]:
        assert opened(folder).largest(shape) == bundle.session.largest(shape)


def test_what_cannot_be_opened_is_reported_in_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = resizing_bundle.write(tmp_path / "toy")
    (folder / "model.onnx").write_bytes(b"\x08\x0a\x3a\x00")
    with pytest.raises(BundleError, match=r"openvino [\d.]+ cannot open it: \S") as caught:
        opened(folder)
    assert "\n" not in caught.value.message
    assert "Exception from" not in caught.value.message
    assert caught.value.next_step == "use --runtime onnxruntime"
    assert capfd.readouterr() == ("", "")


def test_what_cannot_be_computed_is_reported(tmp_path: Path) -> None:
    folder = resizing_bundle.write(tmp_path / "toy")
    built = onnx.load(folder / "model.onnx")
    flat = next(each for each in built.graph.initializer if each.name == "toy/flat")
    flat.CopyFrom(numpy_helper.from_array(np.array([-1, 7]), "toy/flat"))
    weight = next(each for each in built.graph.initializer if each.name == "toy/weight")
    weight.CopyFrom(numpy_helper.from_array(np.zeros((7, 2), np.float32), "toy/weight"))
    onnx.save(built, folder / "model.onnx")
    with pytest.raises(BundleError, match=r"openvino cannot compute it for \[2, 16, 16, 3\]: "):
        opened(folder).run(pixels(2, 16, 16))


@pytest.fixture
def without_openvino(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    library.cache_clear()
    monkeypatch.setitem(sys.modules, "openvino", None)
    yield
    library.cache_clear()


@pytest.mark.usefixtures("without_openvino")
def test_a_missing_library_is_named_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_session, "is_installed", lambda: False)
    with pytest.raises(UsageError, match="--runtime openvino: needs openvino, which is not installed") as caught:
        library()
    assert caught.value.next_step == "pip install 'vision-toolkit[openvino]'"


@pytest.mark.usefixtures("without_openvino")
def test_a_library_that_cannot_be_imported_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_session, "is_installed", lambda: True)
    with pytest.raises(UsageError, match="which cannot be imported: import of openvino halted"):
        library()


QUIET = """
import sys
calls = []
sys.addaudithook(lambda event, given: calls.append(event) if event.startswith("socket.") else None)
from toolkit.serving.bundle.openvino_session import TELEMETRY, library
assert library().Core
assert not any(name.split(".")[0] == TELEMETRY for name in sys.modules), "it is loaded"
sys.exit(", ".join(event for event in calls if event != "socket.gethostname") or 0)
"""


def test_importing_openvino_reports_nothing_to_its_makers(tmp_path: Path) -> None:
    """Its own import sends an event to Google Analytics, and writes an identity to the home folder."""
    done = run(
        [sys.executable, "-c", QUIET],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "intel").exists()
