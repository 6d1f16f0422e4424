"""Sessions and providers: what is chosen, what is missing, how batches are cut, and where memory ends."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from pathlib import Path
from subprocess import run

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from tests import toy_bundle
from toolkit.api.clips import Clip
from toolkit.api.errors import EXIT_USAGE, BundleError, UsageError
from toolkit.serving.bundle import Bundle, providers, read_manifest, session
from toolkit.serving.bundle.inspection import inspect_model
from toolkit.serving.bundle.session import BUCKETS, ModelSession, bucket, padded, session_options, split
from toolkit.system.machine import physical_cores

CUDA = providers.missing_for("cuda") is None
without_cuda = pytest.mark.skipif(CUDA, reason="CUDA loads here")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return toy_bundle.write(tmp_path / "toy")


@without_cuda
@pytest.mark.parametrize("has_gpu", [True, False])
def test_auto_takes_the_cpu_where_cuda_does_not_load_and_says_why_if_there_is_a_gpu(
    folder: Path, monkeypatch: pytest.MonkeyPatch, has_gpu: bool
) -> None:
    monkeypatch.setattr(providers, "has_nvidia_gpu", lambda: has_gpu)
    bundle = Bundle.load(folder)
    assert bundle.device == "cpu"
    assert bool(bundle.reason) is has_gpu
    assert bundle.reason.startswith("CUDA does not load: " if has_gpu else "")
    assert (
        bundle.setting.startswith("fp32 on cpu (CUDA does not load: ") if has_gpu else bundle.setting == "fp32 on cpu"
    )


@pytest.mark.parametrize(
    ("vendor", "kind", "found"),
    [("0x10de\n", "0x030000\n", True), ("0x10de\n", "0x040300\n", False), ("0x8086\n", "0x030000\n", False)],
)
def test_a_gpu_is_a_display_device_of_nvidia(tmp_path: Path, vendor: str, kind: str, found: bool) -> None:
    (tmp_path / "vendor").write_text(vendor)
    (tmp_path / "class").write_text(kind)
    assert providers._is_nvidia_display(tmp_path / "vendor") is found
    assert not providers._is_nvidia_display(tmp_path / "gone")


@without_cuda
@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_device_that_does_not_load_is_an_error_that_names_what_is_missing(
    folder: Path, device: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match=f"--device {device}: .*ExecutionProvider does not load: .+") as caught:
        Bundle.load(folder, device=device)
    assert caught.value.exit_code == EXIT_USAGE
    assert "--device auto" in str(caught.value.next_step)
    assert capfd.readouterr() == ("", "")


def test_the_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "DRIVER", "libnodriver.so.1")
    available = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    assert providers.missing_for("cuda") == "libnodriver.so.1 (the NVIDIA driver)"
    assert "built without it; pip install onnxruntime-gpu" in str(providers.missing_for("tensorrt"))


@pytest.mark.parametrize(("code", "count", "missing"), [(100, 0, True), (0, 0, True), (0, 1, False)])
def test_a_driver_without_gpu_is_reported(
    monkeypatch: pytest.MonkeyPatch, code: int, count: int, missing: bool
) -> None:
    class Driver:
        def cuInit(self, flags: int) -> int:  # noqa: N802
            return code

        def cuDeviceGetCount(self, found: object) -> int:  # noqa: N802
            ctypes.cast(found, ctypes.POINTER(ctypes.c_int))[0] = count  # type: ignore[arg-type]
            return 0

    monkeypatch.setattr(providers.ctypes, "CDLL", lambda *args, **options: Driver())
    said = providers._missing_driver()
    assert said == ("the NVIDIA driver finds no GPU" if missing else None)


def test_an_unknown_device_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r'no device is called "cudda"; did you mean "cuda"\?'):
        providers.choose_device("cudda")
    with pytest.raises(UsageError) as caught:
        providers.choose_device("x")
    assert caught.value.next_step == "use auto, cpu, cuda, tensorrt, coreml"


def test_another_provider_than_asked_for_is_never_taken_quietly(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(providers.PROVIDERS, "cpu", "CPUExecutionProvider2")
    monkeypatch.setattr(session, "provider_options", lambda *args, **options: ["CPUExecutionProvider"])
    with pytest.raises(UsageError, match="opened the model with CPUExecutionProvider instead"):
        Bundle.load(folder, device="cpu")


def test_options_of_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path))
    cuda, cpu = providers.provider_options("cuda", "fp32", "a" * 64, graphs=True)
    assert cuda[1]["enable_cuda_graph"] == "1"
    assert cpu[0] == "CPUExecutionProvider"
    named = providers.provider_options("tensorrt", "fp16", "a" * 64, graphs=False)
    assert [name for name, _ in named] == [
        "TensorrtExecutionProvider",
        "CUDAExecutionProvider",
        "CPUExecutionProvider",
    ]


def test_engines_of_one_graph_with_other_weights_lie_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path))
    first, second = (providers.provider_options("tensorrt", "fp32", digest * 64, graphs=False)[0][1] for digest in "ab")
    assert first["trt_engine_cache_path"] != second["trt_engine_cache_path"]
    assert Path(first["trt_engine_cache_path"]).is_dir()
    assert first["trt_timing_cache_path"] == second["trt_timing_cache_path"]


def test_each_precision_is_computed_as_it_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path))

    def options(precision: str) -> dict[str, str]:
        given = providers.provider_options("tensorrt", precision, "a" * 64, graphs=False)
        return {key: value for _, one in given for key, value in one.items() if key in ("use_tf32", "trt_fp16_enable")}

    assert options("fp32") == {"use_tf32": "0", "trt_fp16_enable": "0"}
    assert options("fp16") == {"use_tf32": "1", "trt_fp16_enable": "1"}
    with pytest.raises(UsageError, match="uint8 activations") as caught:
        options("int8")
    assert "--precision fp16" in str(caught.value.next_step)


def test_all_calls_on_a_gpu_come_from_one_thread(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime keeps the CUDA graphs of each thread that calls it."""
    bundle = Bundle.load(folder, device="cpu")
    monkeypatch.setattr(bundle.session, "device", "cuda")
    threads = []

    def on_gpu(pixels: np.ndarray) -> np.ndarray:
        threads.append(threading.get_ident())
        return np.zeros((len(pixels), 2), np.float32)

    monkeypatch.setattr(bundle.session, "_on_gpu", on_gpu)
    frames = np.zeros((3, 4, 4, 3), np.uint8)
    callers = [threading.Thread(target=bundle.predict, args=(frames,)) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert bundle.predict(frames).probabilities.shape == (3, 2)
    assert len(threads) == 5
    assert len(set(threads)) == 1


@given(st.integers(0, 400), st.integers(1, 130))
def test_all_items_are_cut_into_slices_in_order(count: int, largest: int) -> None:
    parts = list(split(count, largest))
    assert [index for part in parts for index in range(part.start, part.stop)] == list(range(count))
    assert all(0 < part.stop - part.start <= largest for part in parts)


@given(st.integers(1, 128), st.integers(1, 128))
def test_buckets_hold_what_they_are_for(count: int, largest: int) -> None:
    count = min(count, largest)
    size = bucket(count, largest)
    assert count <= size <= largest
    assert size in (*BUCKETS, largest)


def test_buckets_are_the_smallest() -> None:
    assert [bucket(count) for count in (1, 2, 8, 9, 33, 128)] == [1, 8, 8, 32, 128, 128]
    assert [bucket(count, 16) for count in (1, 2, 9, 16)] == [1, 8, 16, 16]


def test_padding_keeps_what_is_there() -> None:
    pixels = np.ones((3, 2, 2, 3), np.uint8)
    assert padded(pixels, 8).shape == (8, 2, 2, 3)
    np.testing.assert_array_equal(padded(pixels, 8)[:3], pixels)
    assert padded(pixels, 3) is pixels


def test_long_batches_are_run_in_parts_and_answer_alike(folder: Path) -> None:
    bundle = Bundle.load(folder, device="cpu")
    frames = np.random.default_rng(0).integers(90, 160, (70, 3, 4, 3), dtype=np.uint8)
    single = np.concatenate([bundle.predict(frame).probabilities for frame in frames])
    np.testing.assert_allclose(bundle.predict(frames).probabilities, single, rtol=1e-5)


def test_a_call_takes_fewer_of_large_frames_and_of_clips(folder: Path, tmp_path: Path) -> None:
    assert Bundle.load(folder, device="cpu").session.largest((224, 224, 3)) == 32
    assert Bundle.load(folder, device="cpu").session.largest((8000, 6000, 3)) == 1
    clips = Bundle.load(toy_bundle.write(tmp_path / "clips", clip=Clip(frames=8)), device="cpu").session
    assert clips.largest((8, 224, 224, 3)) == 4
    longer = Bundle.load(toy_bundle.write(tmp_path / "longer", clip=Clip(frames=32)), device="cpu").session
    assert longer.largest((32, 224, 224, 3)) == 4
    assert longer.largest((32, 2160, 3840, 3)) == 1


def test_what_onnxruntime_cannot_open_is_reported_in_one_line(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    built = toy_bundle.model(2)
    built.graph.node[0].op_type = "Hardmax"
    path = folder / "model.onnx"
    path.write_bytes(built.SerializeToString())
    with pytest.raises(BundleError, match=r"onnxruntime [\d.]+ cannot open it: .*Hardmax") as caught:
        ModelSession(path, "cpu", inspect_model(path), read_manifest(folder))
    assert "\n" not in caught.value.message
    assert capfd.readouterr() == ("", "")


def test_an_output_of_another_shape_than_declared_is_refused(folder: Path) -> None:
    """The graph declares one row for each input, and answers with two."""
    built = toy_bundle.model(2)
    (last,) = (node for node in built.graph.node if "probabilities" in node.output)
    last.output[0] = "each"
    built.graph.node.append(helper.make_node("Tile", ["each", "twice"], ["probabilities"]))
    built.graph.initializer.append(numpy_helper.from_array(np.array([2, 1], np.int64), "twice"))
    path = folder / "model.onnx"
    path.write_bytes(built.SerializeToString())
    session = ModelSession(path, "cpu", inspect_model(path), read_manifest(folder))
    with pytest.raises(BundleError, match=r"the output has shape \[6, 2\], expected \[3, 2\]"):
        session.run(np.zeros((3, 16, 16, 3), np.uint8))


def test_what_cannot_be_computed_is_reported(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    built = toy_bundle.model(2)
    flat = next(each for each in built.graph.initializer if each.name == "flat")
    flat.CopyFrom(numpy_helper.from_array(np.array([7, 1]), "flat"))
    path = folder / "model.onnx"
    path.write_bytes(built.SerializeToString())
    opened = ModelSession(path, "cpu", inspect_model(path), read_manifest(folder))
    with pytest.raises(BundleError, match=r"onnxruntime cannot compute it for \[2, 4, 4, 3\]: .*Reshape"):
        opened.run(np.zeros((2, 4, 4, 3), np.uint8))
    assert capfd.readouterr() == ("", "")


UNFORESEEN_BOMB = """
import sys
from pathlib import Path
import numpy as np
from toolkit.serving.bundle import session
session.memory_available = lambda: 400 << 20
from toolkit.serving.bundle import read_manifest
from toolkit.serving.bundle.inspection import inspect_model
from toolkit.api.errors import BundleError
path = Path(sys.argv[1])
opened = session.ModelSession(path / "model.onnx", "cpu", inspect_model(path / "model.onnx"), read_manifest(path))
opened.run(np.zeros((1, 4, 4, 3), np.uint8))
try:
    opened.run(np.zeros((1, 10_000, 4, 3), np.uint8))  # 4.8 GB
except BundleError as error:
    # of this program alone: getrusage reports the parent's peak where that was higher
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(int(peak.split()[1]) >> 10)
    sys.exit("it needs more memory than the 0.3 GiB it may take (75 % of what was free)" not in error.message)
sys.exit("it was computed")
"""


def test_what_grows_with_its_input_meets_a_limit_of_memory(folder: Path) -> None:
    """Every row times every row: nothing in the file says how many there will be."""
    built = toy_bundle.model(2)
    kept = list(built.graph.node)
    kept[2].input[0] = "means_"
    made = [
        helper.make_node("Unsqueeze", ["real", "one"], ["wide"]),
        helper.make_node("Unsqueeze", ["real", "two"], ["tall"]),
        helper.make_node("Mul", ["wide", "tall"], ["products"]),
        helper.make_node("ReduceMean", ["products", "all"], ["mean_"], keepdims=0),
        helper.make_node("Add", ["means", "mean_"], ["means_"]),
    ]
    del built.graph.node[:]
    built.graph.node.extend([*kept[:2], *made, *kept[2:]])
    axes = {"one": [1], "two": [2], "all": [0, 1, 2, 3, 4]}
    built.graph.initializer.extend(numpy_helper.from_array(np.array(value), name) for name, value in axes.items())
    (folder / "model.onnx").write_bytes(built.SerializeToString())
    done = run([sys.executable, "-c", UNFORESEEN_BOMB, str(folder)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) < 1000


def test_loading_computes_no_large_constants(folder: Path) -> None:
    options = session_options("cpu", 1234)
    key = "optimization.constant_folding_max_output_size_in_bytes"
    assert options.get_session_config_entry(key) == "1234"
    assert options.intra_op_num_threads == physical_cores()


@pytest.mark.gpu
@pytest.mark.skipif(not CUDA, reason="CUDA does not load here")
def test_cuda_answers_as_the_cpu_does_in_every_bucket(folder: Path) -> None:
    on_gpu, on_cpu = Bundle.load(folder, device="cuda"), Bundle.load(folder, device="cpu")
    rng = np.random.default_rng(0)
    for count in (1, 3, 8, 20, 128, 130, 3):
        for side in (16, 20):
            frames = rng.integers(90, 160, (count, side, side, 3), dtype=np.uint8)
            answers, wanted = on_gpu.predict(frames).probabilities, on_cpu.predict(frames).probabilities
            np.testing.assert_allclose(answers, wanted, atol=2e-3)


OPENS = "import sys; from toolkit.serving.bundle import Bundle; Bundle.load(sys.argv[1], device='cpu')"


def test_onnxruntime_keeps_and_sends_no_usage_data(tmp_path: Path) -> None:
    """It would keep an identifier of the machine below the home folder, for what it sends."""
    home = tmp_path / "home"
    home.mkdir()
    silenced = (
        "CI",
        "ORT_DISABLE_TELEMETRY",
        "ORT_RUNNING_UNIT_TESTS",
        "XDG_CACHE_HOME",
    )  # each turns it off, or moves it
    environment = {name: value for name, value in os.environ.items() if name not in silenced}
    words = [sys.executable, "-c", OPENS, str(toy_bundle.write(tmp_path / "toy"))]
    run(words, env={**environment, "HOME": str(home)}, check=True)
    assert [*home.rglob("*")] == []
