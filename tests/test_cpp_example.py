"""The example in C++: it compiles by the commands of its page, and answers as `Bundle.predict` does."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

from tests import toy_bundle
from tests.test_docs import DOCS, ROOT, titled
from toolkit.api.clips import Clip
from toolkit.api.contracts import DataSpec
from toolkit.data.pixels import read_pixels
from toolkit.export.graph import to_onnx
from toolkit.serving.bundle import Bundle
from toolkit.training.network import Network
from toolkit_tasks.classification import Classification

CLASSES = ("dark", "bright", "a  b", "Ünusual")
HEADERS, HEADERS_VERSION = "com.github.asus4.onnxruntime", "0.4.9"
"""A package of the npm registry that has ONNX Runtime's released headers. They fit each later library."""
HEADERS_FOLDER = "ios-arm64/onnxruntime.framework/Headers/"
TURNED, SIDEWAYS = 6, 5
COMPILED = titled(DOCS / "how-to" / "cpp.md", "build").splitlines()

pytestmark = [
    pytest.mark.long,
    *(
        pytest.mark.skipif(shutil.which(tool) is None, reason=f"the example in C++ needs {tool}")
        for tool in ("cmake", "c++")
    ),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the commands of the page work as typed."""
    folder = tmp_path_factory.mktemp("cpp")
    (folder / "onnxruntime" / "lib").mkdir(parents=True)
    _take_headers(folder / "onnxruntime" / "include", tmp_path_factory.mktemp("npm"))
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / "onnxruntime" / "lib" / name).symlink_to(library)
    (folder / "examples").symlink_to(ROOT / "examples")
    _write_bundle(folder / "exports" / "har")
    _write_pictures(folder)
    return folder


@pytest.fixture(scope="module")
def program(home: Path) -> Path:
    *commands, classify = COMPILED
    for command in commands:
        made = subprocess.run(command.split(), cwd=home, capture_output=True, text=True, check=False)
        missing = [line for line in made.stderr.splitlines() if "Could NOT find" in line or "Could not find" in line]
        if missing:
            pytest.skip(f"the example in C++ needs more of the system: {missing[0].strip()}")
        assert made.returncode == 0, made.stdout + made.stderr
        assert "warning" not in made.stdout + made.stderr
    return home / classify.split()[0]


def _take_headers(target: Path, downloads: Path) -> None:
    """From the package, or of an installation that the variable ONNXRUNTIME names."""
    if "ONNXRUNTIME" in os.environ:
        target.symlink_to(Path(os.environ["ONNXRUNTIME"]) / "include")
        return
    if shutil.which("npm") is None:
        pytest.skip("ONNX Runtime's headers need npm, or a variable ONNXRUNTIME that names the folder above include/")
    package = f"{HEADERS}@{HEADERS_VERSION}"
    got = subprocess.run(["npm", "pack", package], cwd=downloads, capture_output=True, text=True, check=False)
    if got.returncode:
        pytest.skip(f"the npm registry does not have {package}: {got.stderr}")
    target.mkdir()
    with tarfile.open(next(downloads.glob("*.tgz"))) as archive:
        for member in archive:
            if f"/{HEADERS_FOLDER}" in member.name and (file := archive.extractfile(member)):
                (target / Path(member.name).name).write_bytes(file.read())


def _write_bundle(folder: Path) -> None:
    """Its answers depend on where in a picture something is."""
    toy_bundle.write(folder, classes=CLASSES, square=20, size=16)
    spec = DataSpec(classes=CLASSES, size=16, stored=20)
    torch.manual_seed(0)
    network = Network(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14**2, 4)), spec).eval()
    onnx.save(to_onnx(network, Classification(0.0, None).logits, spec, {"classes": "[]"}), folder / "model.onnx")
    toy_bundle.edit(folder, lambda claimed: claimed.update(files=toy_bundle.digests(folder)))


def _write_pictures(folder: Path) -> None:
    draws = np.random.default_rng(0)
    smooth = Image.fromarray(draws.integers(0, 256, (9, 13, 3), dtype=np.uint8)).resize((131, 97))
    turned, sideways = Image.Exif(), Image.Exif()
    turned[0x0112], sideways[0x0112] = TURNED, SIDEWAYS
    smooth.save(folder / "photo.jpg", quality=90, exif=turned)
    smooth.save(folder / "progressive.jpg", progressive=True, subsampling=0)
    smooth.convert("L").save(folder / "grey.jpg")
    smooth.save(folder / "plain.png")
    smooth.save(folder / "turned.png", exif=sideways)
    smooth.quantize(16).save(folder / "palette.png", transparency=3)
    Image.merge("RGBA", [*smooth.split(), smooth.convert("L")]).save(folder / "alpha.png")
    Image.fromarray(draws.integers(0, 1 << 16, (30, 40), dtype=np.uint16)).save(folder / "deep.png")


PICTURES = [f"{name}.jpg" for name in ("photo", "progressive", "grey")] + [
    f"{name}.png" for name in ("plain", "turned", "palette", "alpha", "deep")
]


def classified(program: Path, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *words], cwd=home, capture_output=True, text=True, check=False)


def answered(printed: str) -> list[tuple[str, float]]:
    lines = (line.split("  ", 1) for line in printed.splitlines())
    return [(name, float(value)) for value, name in lines]


def assert_same(found: Sequence[tuple[str, float]], expected: Sequence[tuple[str, float]]) -> None:
    assert [name for name, _ in found] == [name for name, _ in expected]
    np.testing.assert_allclose([value for _, value in found], [value for _, value in expected], atol=1e-4)


@pytest.mark.parametrize("picture", PICTURES)
def test_it_answers_as_predict_does(program: Path, home: Path, picture: str) -> None:
    said = classified(program, home, *COMPILED[-1].split()[1:2], picture)
    assert said.returncode == 0, said.stderr
    bundle = Bundle.load(home / "exports" / "har", device="cpu")
    (expected,) = bundle.predict(read_pixels(home / picture)[None]).top(5)
    assert_same(answered(said.stdout), expected)


def test_it_prints_as_many_classes_as_it_is_asked_for(program: Path, home: Path) -> None:
    assert len(answered(classified(program, home, "exports/har", "photo.jpg", "2").stdout)) == 2


def test_it_prints_sets_and_numbers(program: Path, home: Path, tmp_path: Path) -> None:
    pixels = read_pixels(home / "photo.jpg")
    sets = Bundle.load(toy_bundle.write(tmp_path / "sets", classes="abc", thresholds=(0.1, 0.99, 0.1)), device="cpu")
    answer = sets.predict(pixels[None])
    assert answer.sets == [("a", "c")]
    (row,) = answer.probabilities.tolist()
    assert_same(
        answered(classified(program, home, str(tmp_path / "sets"), "photo.jpg").stdout), [("a", row[0]), ("c", row[2])]
    )
    numbers = Bundle.load(toy_bundle.write(tmp_path / "numbers", classes="ab", numbers=True), device="cpu")
    (values,) = numbers.estimate(pixels[None]).values.tolist()
    found = answered(classified(program, home, str(tmp_path / "numbers"), "photo.jpg").stdout)
    assert_same(found, [*zip("ab", values, strict=True)])


def test_what_it_cannot_use_is_named(program: Path, home: Path, tmp_path: Path) -> None:
    toy_bundle.write(tmp_path / "clips", clip=Clip(frames=5, rate=6))
    whole = (home / "plain.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.jpg").write_bytes((home / "photo.jpg").read_bytes()[:30])
    (tmp_path / "text.jpg").write_text("no picture")
    for words, error in (
        (("exports/har", "gone.png"), "gone.png: cannot be read"),
        (("exports/har", f"{tmp_path}/text.jpg"), "text.jpg: neither JPEG nor PNG"),
        (("exports/har", f"{tmp_path}/cut.png"), "cut.png: the file is cut short"),
        (("exports/har", f"{tmp_path}/cut.jpg"), "cut.jpg: "),
        (("exports/gone", "photo.jpg"), "exports/gone/bundle.json: cannot be read"),
        ((f"{tmp_path}/clips", "photo.jpg"), "clips: a model of video clips, expected one of images"),
    ):
        said = classified(program, home, *words)
        assert (said.returncode, said.stdout) == (1, "")
        assert said.stderr.startswith("error: ")
        assert error in said.stderr
    said = classified(program, home, "exports/har")
    assert (said.returncode, said.stderr) == (2, "usage: classify BUNDLE IMAGE [CLASSES]\n")
