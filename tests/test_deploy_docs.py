"""The pages about bundles: what they show runs, on a bundle that is small but has all parts of a real one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import av
import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tests import resizing_bundle, toy_bundle
from tests.odd_images import READ
from tests.test_docs import BLOCKS, DOCS, ROOT, Block, code, name_of, rows
from toolkit.api.clips import Clip
from toolkit.data.pixels import read_pixels
from toolkit.export.bom import BOM
from toolkit.export.openvino import write_openvino
from toolkit.export.triton import write_triton
from toolkit.recipe.tables import Recipe
from toolkit.serving.bundle import Bundle, read_manifest
from toolkit.serving.bundle.openvino_session import is_installed
from toolkit.serving.bundle.providers import missing_for
from toolkit.serving.predict import predict_files

ALONE, PREDICT, TRUST, GPU = (
    DOCS / name
    for name in ("how-to/onnxruntime.md", "how-to/predict.md", "explanation/export-gate.md", "how-to/gpu.md")
)


def python(page: Path) -> list[Block]:
    return [block for block in BLOCKS if (block.page, block.language) == (name_of(page), "python")]


def titled(title: str) -> str:
    (text,) = (block.text for block in BLOCKS if block.title == title)
    return text


def write_clip(path: Path, frames: int = 24, shade: Callable[[int], int] = lambda n: 230 if n % 8 else 200) -> None:
    with av.open(str(path), "w") as video:
        stream = video.add_stream("mpeg4", rate=12)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for number in range(frames):
            pixels = np.full((24, 32, 3), shade(number), np.uint8)
            video.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        video.mux(stream.encode())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory that has what the page's examples name."""
    folder = tmp_path_factory.mktemp("deploy")
    toy_bundle.write(folder / "exports" / "har")
    toy_bundle.write(folder / "exports" / "actions", clip=Clip(frames=5, rate=6))
    toy_bundle.write(folder / "exports" / "scenes", thresholds=(0.5, 0.4))
    toy_bundle.write(folder / "exports" / "ages", classes=("age", "height"), numbers=True)
    Image.new("RGB", (40, 30), (225, 225, 225)).save(folder / "photo.jpg")
    (folder / "photos").mkdir()
    for number, shade in enumerate((10, 240, 30)):
        Image.new("RGB", (20 + number, 31), (shade, shade, shade)).save(folder / "photos" / f"{number}.jpg")
    write_clip(folder / "clip.mp4")
    return folder


def run(place: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run `text` as a program of its own; a warning of Python's is an error."""
    (place / "shown.py").write_text(text, encoding="utf-8")
    command = [sys.executable, "-X", "utf8", "-W", "error", "shown.py"]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, encoding="utf-8", check=False)


def printed(place: Path, page: Path) -> list[str]:
    """What the untitled blocks of a page print, one after the other in one program."""
    done = run(place, "\n".join(block.text for block in python(page) if not block.title))
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def alone(place: Path) -> list[str]:
    return printed(place, ALONE)


@pytest.fixture(scope="module")
def toolkit(place: Path) -> list[str]:
    return printed(place, PREDICT)


def test_an_image_is_classified(alone: list[str]) -> None:
    assert re.fullmatch(r"\[\('bright', 0\.\d+\)\]", alone[0])


def test_a_batch_is_classified(alone: list[str]) -> None:
    names = [line.split()[:2] for line in alone[1:4]]
    assert names == [["photos/0.jpg", "dark"], ["photos/1.jpg", "bright"], ["photos/2.jpg", "dark"]]


def test_a_video_is_classified(alone: list[str]) -> None:
    assert alone[4].startswith("bright 0.")


def test_a_bundle_answers(toolkit: list[str]) -> None:
    assert toolkit[0].endswith(" fp32 ('dark', 'bright')")
    assert toolkit[1] == "['bright', 'bright']"
    assert toolkit[2].startswith("[('bright', 0.")
    assert toolkit[4:] == ["(3, 2)"]


@pytest.mark.skipif(not is_installed(), reason="openvino is not installed")
def test_files_for_openvino_answer_without_the_toolkit(tmp_path: Path) -> None:
    bundle = resizing_bundle.write(tmp_path / "exports" / "har")
    passed: Any = SimpleNamespace(problems=())
    write_openvino(bundle, read_manifest(bundle), tmp_path / "exports" / "har-openvino", lambda _: passed)
    done = run(tmp_path, titled("toolkit_openvino.py"))
    assert done.stdout.startswith("['dark', 'bright'] [["), done.stderr


def test_a_set_is_named_without_the_toolkit_and_with_it(place: Path) -> None:
    """Of a bright picture both classes, of a dark one none."""
    done = run(place, titled("sets.py"))
    assert (done.returncode, done.stdout) == (0, "['dark', 'bright']\n"), done.stderr
    done = run(place, titled("toolkit_sets.py"))
    assert done.stdout.splitlines() == [
        "photos/0.jpg () ",
        "photos/1.jpg ('dark', 'bright') dark|bright",
        "photos/2.jpg () ",
    ], done.stderr


def test_numbers_are_printed_without_the_toolkit(place: Path) -> None:
    done = run(place, titled("numbers.py"))
    assert re.fullmatch(r"\{'age': \d+\.\d+, 'height': \d+\.\d+\}\n", done.stdout), done.stderr


@pytest.mark.parametrize(
    ("title", "printed"),
    [("classify.py", r"\['bright'\] \[\[\('bright', 0\.\d+\), .*\]\]\n"), ("serve.py", r"bright [01]\.\d+\n")],
)
def test_the_short_examples_run(place: Path, title: str, printed: str) -> None:
    """The README's, and the tutorial's."""
    done = run(place, titled(title))
    assert re.fullmatch(printed, done.stdout), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("clip", "every"), [(Clip(frames=5, rate=6), 60.0), (Clip(frames=3, sampling="segments"), None)]
)
def test_a_clip_is_classified_as_by_predict(tmp_path: Path, clip: Clip, every: float | None) -> None:
    """The video grows darker, so the answer depends on the moments that are seen."""
    toy_bundle.write(tmp_path / "exports" / "actions", clip=clip)
    write_clip(tmp_path / "clip.mp4", shade=lambda number: 240 - 8 * number)
    done = run(tmp_path, titled("clips.py"))
    assert done.returncode == 0, done.stderr
    name, probability = done.stdout.split()
    out = tmp_path / "actions.jsonl"
    predict_files(tmp_path / "exports" / "actions", [str(tmp_path / "clip.mp4")], output=out, every=every, device="cpu")
    answer = json.loads(out.read_text(encoding="utf-8"))
    assert (answer["class_1"], answer["probability_1"]) == (name, pytest.approx(float(probability), abs=1e-3))


def test_a_changed_file_is_found_as_shown(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "exports", tmp_path / "exports")
    with (tmp_path / "exports" / "har" / "model.onnx").open("ab") as file:
        file.write(b"\0")
    done = run(tmp_path, python(TRUST)[0].text)
    assert (done.returncode, done.stderr) == (1, "model.onnx: not the file that was exported\n")


def page_functions(names: str) -> dict[str, Any]:
    """What the page's functions are, with `side` and all else that stands before them."""
    (text,) = (block.text for block in python(ALONE) if names in block.text)
    before, _, rest = text.partition("\n\npaths = ")
    assert rest
    found: dict[str, Any] = {"np": np, "Image": Image, "side": 16}
    exec(before[before.index("def ") :], found)
    return found


def test_the_pixels_shown_are_those_of_training(tmp_path: Path) -> None:
    """Of every odd image that training reads, by the functions and the lines of all pages."""
    whole = [block.text for block in BLOCKS if "exif_transpose(file)" in block.text]
    functions = [re.search(r"^def read\(path\):\n(?:    .*\n)+", text, flags=re.MULTILINE) for text in whole]
    lines = [re.search(r"^with Image\.open(?:.*\n)+?frames = .*\n", text, flags=re.MULTILINE) for text in whole]
    shown = {found[0] for found in (*functions, *lines) if found}
    assert len(whole) == 5
    assert len(shown) == 2
    for name, data in READ.items():
        path = tmp_path / name
        path.write_bytes(data)
        for text in shown:
            found: dict[str, Any] = {"np": np, "Image": Image, "ImageOps": ImageOps}
            exec(text.replace('"photo.jpg"', repr(str(path))), found)
            pixels = found["read"](path) if "read" in found else found["frames"][0]
            assert np.array_equal(pixels, read_pixels(path)), name


@settings(max_examples=200)
@given(height=st.integers(16, 90), width=st.integers(16, 90))
def test_the_square_shown_is_that_of_a_bundle(place: Path, height: int, width: int) -> None:
    """But for the rounding of each side: a shift by half a pixel would differ by a hundred."""
    bundle = Bundle.load(place / "exports" / "har", device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    shown, ours = page_functions("def square")["square"](pixels), bundle.square(pixels)
    assert np.abs(shown.astype(int) - ours).max() <= 2


def test_a_gpu_that_is_missing_is_reported(place: Path) -> None:
    done = run(place, titled("gpu.py"))
    if missing_for("cuda") is None:
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 1
        assert "CUDA did not load: the model would run on the CPU" in done.stderr


# Triton


def triton_client(repository: Path) -> ModuleType:
    """Stands in for tritonclient.http 2.73: the same names and arguments, answered from the model repository."""

    class InferInput:
        def __init__(self, name: str, shape: list[int], datatype: str) -> None:
            self.name, self.shape, self.datatype = name, shape, datatype

        def set_data_from_numpy(self, tensor: np.ndarray) -> None:
            assert (list(tensor.shape), tensor.dtype.name.upper()) == (self.shape, self.datatype)
            self.tensor = tensor

    class InferRequestedOutput:
        def __init__(self, name: str, binary_data: bool = True, class_count: int = 0) -> None:
            self.name, self.count = name, class_count

    class InferenceServerClient:
        def __init__(self, url: str) -> None:
            assert "://" not in url

        def infer(self, model: str, inputs: list[InferInput], outputs: list[InferRequestedOutput]) -> SimpleNamespace:
            folder = repository / model
            session = onnxruntime.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])
            ((row,),) = session.run([outputs[0].name], {inputs[0].name: inputs[0].tensor})
            labels = (folder / "labels.txt").read_text(encoding="utf-8").splitlines()
            ranked = sorted(range(len(row)), key=lambda index: -row[index])[: outputs[0].count]
            lines = np.array([[f"{row[index]:f}:{index}:{labels[index]}".encode() for index in ranked]], dtype=object)
            return SimpleNamespace(as_numpy={outputs[0].name: lines}.__getitem__)

    module = ModuleType("tritonclient.http")
    vars(module).update(
        InferInput=InferInput, InferRequestedOutput=InferRequestedOutput, InferenceServerClient=InferenceServerClient
    )
    return module


def test_the_client_asks_what_the_repository_offers(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = place / "exports" / "har"
    repository = write_triton(bundle, read_manifest(bundle), place / "exports" / "har-triton").parent
    client = triton_client(repository)
    package = ModuleType("tritonclient")
    vars(package)["http"] = client
    monkeypatch.setitem(sys.modules, "tritonclient", package)
    monkeypatch.setitem(sys.modules, "tritonclient.http", client)
    monkeypatch.chdir(place)
    exec(compile(titled("client.py"), "client.py", "exec"), {})
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"bright 0\.\d+", first)
    assert second.startswith("dark 0.")


def test_the_repository_has_the_files_shown(place: Path, tmp_path: Path) -> None:
    bundle = place / "exports" / "har"
    write_triton(bundle, read_manifest(bundle), tmp_path / "exports" / "har-triton")
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    (listed,) = (block.text for block in BLOCKS if "config.pbtxt" in block.text and block.language == "text")
    assert written == set(listed.split())


# The rest of the pages


def test_every_precision_is_reported() -> None:
    text = GPU.read_text(encoding="utf-8")
    listed = [code(cells[0])[0] for cells in rows(text[text.index("| precision |") :])]
    assert listed == ["fp32", "fp16", "int8", "auto"]


def test_several_precisions_are_named_as_a_recipe_takes_them() -> None:
    (given_to_set,) = re.findall(r"`(export\.precision=\[[^`]*)`", GPU.read_text(encoding="utf-8"))
    export = tomllib.loads(given_to_set)["export"]
    minimal = {
        "name": "shown",
        "data": {"name": "har"},
        "model": {"name": "cnn"},
        "train": {"epochs": 1, "batch": 8, "optimizer": {"name": "sgd", "lr": 0.1}},
    }
    assert Recipe.model_validate({**minimal, "export": export}).export.precisions == ("int8", "fp32")
    searched = Recipe.model_validate({**minimal, "export": {"precision": "auto"}}).export
    assert (searched.precision, searched.precisions) == ("auto", ())


@pytest.mark.parametrize("page", [ROOT / "exports" / "README.md", DOCS / "reference" / "bundle.md"], ids=name_of)
def test_the_files_of_a_bundle_are_listed(tmp_path: Path, page: Path) -> None:
    bundle = toy_bundle.write(tmp_path / "har", precisions=("fp32", "int8"))
    listed = {code(cells[0])[0] for cells in rows(page.read_text(encoding="utf-8"))}
    assert listed == {BOM, *(path.name for path in bundle.iterdir())}
