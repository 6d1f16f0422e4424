from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests import resizing_bundle, toy_bundle
from tests.blank import BLANK
from toolkit.__main__ import main
from toolkit.api.errors import EXIT_DONE, EXIT_PARITY, EXIT_USAGE, ParityError, UsageError
from toolkit.serving.bundle import Bundle, agreement, openvino_session, providers, runtimes
from toolkit.serving.bundle.openvino_session import is_installed
from toolkit.serving.bundle.runtimes import FASTER, Comparison, rates
from toolkit.serving.bundle.session import ModelSession

needs_openvino = pytest.mark.skipif(not is_installed(), reason="openvino is not installed")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(runtimes, "SECONDS", 0.0)
    return tmp_path / "cache" / "runtimes"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return resizing_bundle.write(tmp_path_factory.mktemp("runtimes") / "toy")


def measured(monkeypatch: pytest.MonkeyPatch, onnxruntime: float, openvino: float) -> list[int]:
    """Let the runtimes have these speeds; how often they were measured."""
    calls: list[int] = []

    def found(asks: object, batch: np.ndarray) -> dict[str, float]:
        calls.append(len(batch))
        return {"onnxruntime": onnxruntime, "openvino": openvino}

    monkeypatch.setattr(runtimes, "rates", found)
    return calls


def test_onnxruntime_is_the_usual_one_and_nothing_is_compared(folder: Path, cache: Path) -> None:
    bundle = Bundle.load(folder, device="cpu")
    assert (bundle.runtime, bundle.runtime_reason) == ("onnxruntime", "")
    assert bundle.setting == "fp32 on cpu (asked for)"
    assert not cache.exists()


@needs_openvino
def test_a_runtime_that_passes_the_gate_answers(folder: Path) -> None:
    bundle = Bundle.load(folder, runtime="openvino")
    assert (bundle.runtime, bundle.device) == ("openvino", "cpu")
    assert bundle.setting == "fp32 on cpu by openvino (asked for)"
    frames = np.full((2, 30, 40, 3), 230, np.uint8)
    np.testing.assert_allclose(
        bundle.predict(frames).probabilities, Bundle.load(folder, device="cpu").predict(frames).probabilities, rtol=1e-6
    )


@needs_openvino
def test_what_the_gate_found_is_kept(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Bundle.load(folder, runtime="openvino")
    (kept,) = cache.iterdir()
    assert json.loads(kept.read_text()) == {"problem": "", "rates": None, "other": "openvino"}
    monkeypatch.setattr(agreement, "agreement", None)  # calling it fails
    assert Bundle.load(folder, runtime="openvino").runtime == "openvino"
    calls = measured(monkeypatch, 10, 20)
    assert Bundle.load(folder, device="cpu", runtime="auto").runtime == "openvino"
    assert Bundle.load(folder, device="cpu", runtime="auto").runtime == "openvino"
    assert calls == [16]


@needs_openvino
def test_a_runtime_that_answers_otherwise_is_not_offered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """This graph resizes nothing, so a frame and its square have other means."""
    folder = toy_bundle.write(tmp_path / "toy", thresholds=(0.5, 0.5))
    for _ in range(2):  # found, and known
        with pytest.raises(ParityError, match=r"openvino [\d.]+ does not pass the gate on this machine") as caught:
            Bundle.load(folder, runtime="openvino")
        assert caught.value.details[0].startswith("a probability differs by ")
        assert caught.value.next_step == "use --runtime onnxruntime"
    bundle = Bundle.load(folder, device="cpu", runtime="auto")
    assert bundle.runtime == "onnxruntime"
    assert bundle.runtime_reason.startswith("openvino: a probability differs by ")
    photo = tmp_path / "photo.png"
    photo.write_bytes(BLANK)
    assert main(["predict", str(folder), str(photo), "--runtime", "openvino"]) == EXIT_PARITY
    assert "a probability differs by " in capsys.readouterr().err


@needs_openvino
def test_a_model_that_cannot_be_opened_is_not_offered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: object, *given: object) -> None:
        raise openvino_session.BundleError("it is too new")

    monkeypatch.setattr(openvino_session.OpenVinoSession, "__init__", fails)
    bundle = Bundle.load(folder, device="cpu", runtime="auto")
    assert bundle.setting == "fp32 on cpu (asked for; openvino: it is too new)"


@needs_openvino
@pytest.mark.parametrize(
    ("openvino", "chosen", "reason"),
    [
        (20.0, "openvino", "openvino 20.0 inputs/s, onnxruntime 10.0, measured on this machine"),
        (10.2, "onnxruntime", "onnxruntime 10.0 inputs/s, openvino 10.2, measured on this machine"),
    ],
)
def test_auto_takes_the_faster_and_prints_its_figure(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    openvino: float,
    chosen: str,
    reason: str,
) -> None:
    measured(monkeypatch, 10.0, openvino)
    bundle = Bundle.load(folder, device="cpu", runtime="auto")
    assert (bundle.runtime, bundle.runtime_reason) == (chosen, reason)
    photo = folder.parent / "photo.png"
    photo.write_bytes(BLANK)
    assert main(["predict", str(folder), str(photo), "--device", "cpu", "--runtime", "auto"]) == EXIT_DONE
    assert reason in capsys.readouterr().err


@needs_openvino
def test_runtimes_are_really_measured(folder: Path, cache: Path) -> None:
    bundle = Bundle.load(folder, device="cpu", runtime="auto")
    (kept,) = cache.iterdir()
    found = json.loads(kept.read_text())["rates"]
    assert set(found) == {"onnxruntime", "openvino"}
    assert min(found.values()) > 0
    assert Comparison("", found).fastest == bundle.runtime


@needs_openvino
@pytest.mark.parametrize("damage", [b"", b"{}", b"[]", b'{"problem": "", "rates": {"openvino": 1}}', b"\xff"])
def test_a_damaged_record_is_made_again(folder: Path, cache: Path, damage: bytes) -> None:
    Bundle.load(folder, runtime="openvino")
    (kept,) = cache.iterdir()
    before = kept.read_bytes()
    kept.write_bytes(damage)
    Bundle.load(folder, runtime="openvino")
    assert kept.read_bytes() == before


@needs_openvino
def test_a_cache_that_cannot_be_written_costs_time_only(folder: Path, cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("a file where a folder must be")
    assert Bundle.load(folder, runtime="openvino").runtime == "openvino"


@needs_openvino
def test_another_processor_version_or_model_is_compared_again(
    folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Bundle.load(folder, runtime="openvino")
    monkeypatch.setattr(runtimes, "processor", lambda: "another")
    Bundle.load(folder, runtime="openvino")
    monkeypatch.setattr(runtimes, "version", lambda package: "another")
    Bundle.load(folder, runtime="openvino")
    Bundle.load(resizing_bundle.write(tmp_path / "other", classes=("a", "b", "c")), runtime="openvino")
    assert len([*cache.iterdir()]) == 4


def test_auto_without_openvino_is_onnxruntime_and_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_session, "is_installed", lambda: False)
    bundle = Bundle.load(folder, device="cpu", runtime="auto")
    assert bundle.setting == "fp32 on cpu (asked for; openvino: not installed)"


def standing_in(monkeypatch: pytest.MonkeyPatch, *, answers: float = 1.0) -> list[str]:
    """Let the CPU stand in for every device, whose sessions answer so many times what the CPU does; which were opened.
    No such hardware is in CI: what is tested is what decides about it."""
    opened: list[str] = []
    made = ModelSession.__init__

    def init(self: ModelSession, path: Path, device: str, *given: object) -> None:
        opened.append(device)
        made(self, path, "cpu", *given)  # type: ignore[arg-type]
        run = self.run
        if device in ("tensorrt", "coreml"):
            self.run = lambda pixels: answers * run(pixels)  # type: ignore[method-assign]

    monkeypatch.setattr(ModelSession, "__init__", init)
    for module in (runtimes, providers):
        monkeypatch.setattr(module, "missing_for", lambda device: None)
    monkeypatch.setattr(openvino_session, "is_installed", lambda: False)
    return opened


@pytest.mark.parametrize(("runtime", "device"), [("tensorrt", "cuda"), ("coreml", "cpu")])
def test_auto_measures_the_providers_that_load(
    folder: Path, monkeypatch: pytest.MonkeyPatch, runtime: str, device: str
) -> None:
    opened = standing_in(monkeypatch)
    monkeypatch.setattr(runtimes, "rates", lambda asks, batch: {"onnxruntime": 10.0, runtime: 15.0})
    bundle = Bundle.load(folder, device=device, runtime="auto")
    assert (bundle.runtime, bundle.device) == (runtime, device)
    assert bundle.runtime_reason == f"{runtime} 15.0 inputs/s, onnxruntime 10.0, measured on this machine"
    assert opened == [device, runtime]
    opened.clear()
    assert Bundle.load(folder, runtime=runtime).runtime == runtime
    assert opened == [runtime]  # what was found is known


@pytest.mark.parametrize("runtime", ["tensorrt", "coreml"])
def test_a_provider_that_answers_otherwise_is_not_offered(
    folder: Path, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    standing_in(monkeypatch, answers=0.9)
    with pytest.raises(ParityError, match=rf"{runtime} of onnxruntime [\d.]+ does not pass the gate"):
        Bundle.load(folder, runtime=runtime)
    bundle = Bundle.load(folder, device="cuda" if runtime == "tensorrt" else "cpu", runtime="auto")
    assert bundle.runtime == "onnxruntime"
    assert bundle.runtime_reason.startswith(f"{runtime}: a probability differs by ")


def test_the_fastest_of_several_is_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    standing_in(monkeypatch)
    monkeypatch.setattr(runtimes, "HOMES", {"coreml": "cpu", "tensorrt": "cpu"})
    speeds = {"onnxruntime": 10.0, "coreml": 11.0, "tensorrt": 30.0}
    monkeypatch.setattr(runtimes, "rates", lambda asks, batch: {name: speeds[name] for name in asks})
    bundle = Bundle.load(folder, device="cpu", runtime="auto")
    assert bundle.runtime == "tensorrt"
    assert bundle.runtime_reason == (
        "coreml 11.0 inputs/s, onnxruntime 10.0, measured on this machine; "
        "tensorrt 30.0 inputs/s, onnxruntime 10.0, measured on this machine"
    )


def test_a_provider_that_does_not_load_is_named(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"--runtime coreml: does not load: this onnxruntime .* is built without it"):
        Bundle.load(folder, runtime="coreml")
    with pytest.raises(UsageError, match="--runtime tensorrt: runs on cuda, not on cpu") as caught:
        Bundle.load(folder, device="cpu", runtime="tensorrt")
    assert caught.value.next_step == "use --device cuda, or remove --runtime"


def test_an_unknown_runtime_and_another_device_are_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match=r'no runtime is called "openvno"; did you mean "openvino"\?') as caught:
        Bundle.load(folder, runtime="openvno")
    assert caught.value.next_step == "use auto, onnxruntime, openvino, tensorrt, coreml"
    with pytest.raises(UsageError, match="--runtime openvino: runs on the CPU, not on cuda"):
        Bundle.load(folder, device="cuda", runtime="openvino")


def test_a_run_has_no_runtime(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.toml").touch()
    assert main(["evaluate", str(tmp_path), "--runtime", "auto"]) == EXIT_USAGE
    assert "--device, --precision and --runtime are for bundles" in capsys.readouterr().err


def test_a_little_faster_is_not_faster() -> None:
    assert Comparison("", {"onnxruntime": 100.0, "openvino": 100 * FASTER}).fastest == "onnxruntime"
    assert Comparison("", {"onnxruntime": 100.0, "openvino": 101 * FASTER}).fastest == "openvino"


def test_runtimes_take_turns_and_the_best_time_counts() -> None:
    order: list[str] = []
    now = [0.0]

    def ask(name: str, seconds: list[float]) -> object:
        def answer(pixels: np.ndarray) -> None:
            order.append(name)
            now[0] += seconds.pop(0) if len(seconds) > 1 else seconds[0]

        return answer

    asks = {"onnxruntime": ask("a", [9, 4, 2, 4]), "openvino": ask("b", [9, 8])}
    found = rates(asks, np.zeros((8, 1, 1, 3), np.uint8), clock=lambda: now[0])  # type: ignore[arg-type]
    assert found == {"onnxruntime": 4.0, "openvino": 1.0}
    assert "".join(order) == "abab" + "ba" + "ab" + "ba"
