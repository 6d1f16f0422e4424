"""One test for each incident of 2025 and 2026 in this field, that ours is not the next."""

from __future__ import annotations

import json
import os
import re
import stat
import struct
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from onnx import TensorProto, helper
from packaging.requirements import Requirement
from packaging.version import Version

from tests import toy_bundle
from tests.tiny import CLASSES, only_run, run, write_images, write_recipe
from tests.video_files import write_video
from toolkit.api.errors import EXIT_DONE, EXIT_USAGE, BundleError, DataError, WeightsError
from toolkit.api.files import unwritable_by_others
from toolkit.cli.main import main
from toolkit.data.decoding import timeline
from toolkit.data.images import read_image
from toolkit.data.pixels import read_pixels
from toolkit.kit.doctor.sources import unsafe_loads
from toolkit.serving.bundle import MANIFEST, Bundle
from toolkit.serving.bundle.inspection import inspect_model
from toolkit.serving.server.settings import Settings
from toolkit.transfer.weights import read_weights
from toolkit_folders.image_folder import image_folder
from toolkit_har.dataset import har

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCES = [path for folder in ("toolkit", "plugins") for path in sorted((ROOT / folder).rglob("*.py"))]


# 1. Names in files that a loader imports (Lightning, CVE-2026-58659)


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module that is installed, no plugin, and not imported yet."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "stranger_module.py").write_text("def build(*args, **kwargs): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield "stranger_module:build"
    assert "stranger_module" not in sys.modules


@pytest.mark.parametrize("kind", ["model", "data", "task"])
def test_a_name_in_a_recipe_is_that_of_a_component_and_imports_nothing(
    kind: str, stranger: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path)
    assert main(["check", str(recipe), "--set", f'{kind}.name="{stranger}"']) == EXIT_USAGE
    assert stranger in capsys.readouterr().err


def test_a_name_in_a_checkpoint_or_a_bundle_imports_nothing(stranger: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"_target_": stranger, "_instantiator": stranger, "class_path": stranger}, path)
    with pytest.raises(WeightsError):
        read_weights(path)
    recipe = f'[model]\nname = "{stranger}"\n'
    assert Bundle.load(toy_bundle.write(tmp_path / "toy", recipe=recipe), device="cpu").manifest.recipe == recipe


# 2., 3., 4., 8., 9., 10. Flaws of what is installed with the toolkit: the lowest versions are past them


@pytest.mark.parametrize(
    ("package", "fixed"),
    [
        pytest.param("torch", "2.10", id="weights_only corrupts memory, CVE-2026-24747"),
        pytest.param("torch", "2.6", id="weights_only runs code, CVE-2025-32434"),
        pytest.param("onnx", "1.21", id="external data, CVE-2026-27489"),
        pytest.param("av", "18", id="MagicYUV in FFmpeg, CVE-2026-8461"),
        pytest.param("pillow", "12.2", id="PSD, CVE-2026-25990 and CVE-2026-42311"),
        pytest.param("mlflow", "3.11", id="temporary folders, CVE-2026-2614"),
    ],
)
def test_the_lowest_version_is_past_known_flaws(package: str, fixed: str) -> None:
    texts = [*PROJECT["dependencies"], *(text for of in PROJECT["optional-dependencies"].values() for text in of)]
    bounds = [one.specifier for one in map(Requirement, texts) if one.name == package]
    assert bounds
    for specifiers in bounds:
        (lowest,) = (Version(one.version) for one in specifiers if one.operator == ">=")
        assert lowest >= Version(fixed)


def test_a_checkpoint_that_would_run_code_runs_none(tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"weight": Runs()}, tmp_path / "weights.pt")
    with pytest.raises(WeightsError):
        read_weights(tmp_path / "weights.pt")
    assert not (tmp_path / "ran").exists()


# 4. Weights of an ONNX file that lie elsewhere (CVE-2026-27489, CVE-2026-34445, CVE-2026-28500, CVE-2025-51480)


def _symlink(secret: Path, bundle: Path) -> dict[str, str]:
    (bundle / "w.bin").symlink_to(secret)
    return {"location": "w.bin"}


def _hard_link(secret: Path, bundle: Path) -> dict[str, str]:
    (bundle / "w.bin").hardlink_to(secret)
    return {"location": "w.bin"}


def _plain(secret: Path, bundle: Path) -> dict[str, str]:
    (bundle / "w.bin").write_bytes(secret.read_bytes())
    return {"location": "w.bin"}


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(_symlink, id="symlink"),
        pytest.param(_hard_link, id="hard link"),
        pytest.param(lambda secret, _: {"location": str(secret)}, id="absolute path"),
        pytest.param(lambda secret, _: {"location": f"../{secret.name}"}, id="parent folder"),
        pytest.param(lambda *of: {**_plain(*of), "length": str(1 << 62), "offset": "16"}, id="length 2^62"),
        pytest.param(lambda *of: {**_plain(*of), "offset": "-8"}, id="negative offset"),
        pytest.param(lambda *of: {**_plain(*of), "__class__": "os"}, id="odd key"),
    ],
)
def test_external_weights_lie_in_the_bundle_and_nowhere_else(
    place: Callable[[Path, Path], dict[str, str]], tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"\0" * 16)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in place(secret, bundle).items():
        tensor.external_data.add(key=key, value=value)
    built = toy_bundle.model(2)
    built.graph.initializer.append(tensor)
    (bundle / "model.onnx").write_bytes(built.SerializeToString())
    names = [entry.value for entry in tensor.external_data if entry.key == "location"]
    with pytest.raises(BundleError, match=r'initializer "w"'):
        inspect_model(bundle / "model.onnx", allowed=names)


# 5. Functions of an ONNX model that call each other without an end


def test_functions_that_call_each_other_are_refused_before_onnx_reads_them(tmp_path: Path) -> None:
    built = toy_bundle.model(2)
    built.opset_import.append(helper.make_opsetid("own", 1))
    for name, called in (("a", "b"), ("b", "a")):
        body = [helper.make_node(called, ["x"], ["y"], domain="own")]
        built.functions.append(helper.make_function("own", name, ["x"], ["y"], body, [helper.make_opsetid("own", 1)]))
    (tmp_path / "model.onnx").write_bytes(built.SerializeToString())
    with pytest.raises(BundleError, match="it holds functions of its own"):
        inspect_model(tmp_path / "model.onnx")


# 6. Operators of onnxruntime that read out of bounds


@pytest.mark.parametrize(
    ("operator", "domain"),
    [
        ("ArrayFeatureExtractor", "ai.onnx.ml"),
        ("SVMClassifier", "ai.onnx.ml"),
        ("SVMRegressor", "ai.onnx.ml"),
        ("TreeEnsemble", "ai.onnx.ml"),
        ("ArrayFeatureExtractor", ""),
    ],
)
def test_operators_that_no_exporter_writes_are_refused(operator: str, domain: str, tmp_path: Path) -> None:
    built = toy_bundle.model(2)
    built.graph.node.append(helper.make_node(operator, ["weight"], ["x"], domain=domain))
    (tmp_path / "model.onnx").write_bytes(built.SerializeToString())
    with pytest.raises(BundleError, match=rf'node "x" \({operator}\) (belongs to the domain|is not among)'):
        inspect_model(tmp_path / "model.onnx")


# 7. Messages within messages, deeper than a reader's stack (protobuf, CVE-2026-0994)


def nested(levels: int) -> bytes:
    """A graph in a node's attribute, in which is such a node, and so on."""

    def field(number: int, data: bytes) -> bytes:
        length, size = b"", len(data)
        while size > 127:
            length, size = length + bytes([size & 127 | 128]), size >> 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + data

    graph = field(2, b"innermost")
    for _ in range(levels):
        graph = field(1, field(2, b"x") + field(4, b"If") + field(5, field(6, graph)))
    return field(7, graph)


@pytest.mark.parametrize("levels", [9, 500])
def test_graphs_within_graphs_are_refused_before_the_stack_ends(levels: int, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(nested(levels))
    with pytest.raises(BundleError, match="graphs within graphs, more than 8 deep"):
        inspect_model(tmp_path / "model.onnx")


def test_json_within_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text('{"a":' * 50_000)
    with pytest.raises(BundleError, match="not valid JSON"):
        Bundle.load(tmp_path)


# 8. A decoder that writes out of bounds (FFmpeg's MagicYUV, CVE-2026-8461)


def test_magicyuv_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_video(tmp_path / "videos" / "a" / "clip.avi", 4, codec="magicyuv")
    with pytest.raises(DataError, match='the codec "magicyuv" is not supported'):
        timeline(path)
    bundle = toy_bundle.write(tmp_path / "toy")
    assert main(["predict", str(bundle), str(path), "--device", "cpu"]) != EXIT_DONE
    assert 'the codec "magicyuv" is not supported' in capsys.readouterr().err


# 9. A format that nobody asked for, by another suffix (Pillow's PSD, CVE-2026-25990, CVE-2026-42311)


@pytest.mark.parametrize("read", [read_image, read_pixels], ids=["training", "predict"])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_psd_by_another_name_is_refused(read: Callable[[Path], object], suffix: str, tmp_path: Path) -> None:
    header = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 4, 4, 8, 3)
    path = tmp_path / f"photo.{suffix}"
    path.write_bytes(header + struct.pack(">III", 0, 0, 0) + struct.pack(">H", 0) + b"\x80" * 48)
    with pytest.raises(DataError, match=r"its format is Photoshop \(PSD\), which is not supported"):
        read(path)


# 10. Files that everyone may write (MLflow, CVE-2026-2614, CVE-2026-0596, CVE-2026-4137)


def test_nothing_is_writable_by_others_where_the_umask_allows_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "out" / "cache"))
    root = write_images(tmp_path / "data")
    recipe = write_recipe(tmp_path, text=RECIPE_OF_FOLDERS.format(root=root))
    out = tmp_path / "out"
    before = os.umask(0)
    try:
        assert run(recipe, out / "runs") == EXIT_DONE
        assert main(["export", str(only_run(out / "runs")), "--exports", str(out / "exports")]) == EXIT_DONE
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    written = [path for path in out.rglob("*") if not path.is_symlink()]
    assert {"best.pt", "report.html", "exports"} <= {path.name for path in written}
    assert [path for path in written if path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)] == []


RECIPE_OF_FOLDERS = """
[data]
name = "image_folder"
root = "{root}"
[model]
name = "cnn"
widths = [8]
[train]
epochs = 1
batch = 8
device = "cpu"
precision = "fp32"
[train.optimizer]
name = "sgd"
lr = 0.05
"""


@pytest.mark.parametrize(("umask", "inside"), [(0o000, 0o022), (0o027, 0o027), (0o077, 0o077), (0o002, 0o002)])
def test_a_umask_that_excludes_others_stays(umask: int, inside: int) -> None:
    before = os.umask(umask)
    try:
        with unwritable_by_others():
            found = os.umask(inside)
    finally:
        assert os.umask(before) == umask
    assert found == inside


# 11. A server that anyone may command (Ray, CVE-2026-27482)


def test_two_commands_listen_on_loopback_unless_another_host_is_named() -> None:
    """One serves a study, the other bundles; what else does so one day must bind to loopback and check the Host of a
    request."""
    servers = r"http\.server|socketserver|\.listen\(|aiohttp\.web|uvicorn|flask|asyncio\.start_server|_server\("
    found = [path.name for path in SOURCES if re.search(servers, path.read_text(encoding="utf-8"))]
    assert found == ["connections.py", "rpc.py", "running.py", "server.py"]
    assert not Settings().exposed
    assert not Settings().allows_host("evil.example")


# 12. A promise of safety that did not hold (Keras' safe mode)


def test_no_text_says_that_a_file_is_safe_to_load() -> None:
    promise = re.compile(r"safe(ly)? to (load|open|run)|safe mode|(load|open)(ed|s)? safely", re.IGNORECASE)
    texts = [*SOURCES, *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), *ROOT.rglob("toolkit/**/*.j2")]
    assert [str(path) for path in texts if promise.search(path.read_text(encoding="utf-8"))] == []


# 13. Packages changed between source and index (Lightning 2.6.2, Ultralytics 8.3.41)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The wheel, built twice: from two copies of the sources, of other times and under another umask."""
    pytest.importorskip("hatchling", reason='building a wheel needs pip install -e ".[test]"')
    built = []
    names = ("LICENSE", "README.md", "pyproject.toml", "sbom.cdx.json", "toolkit", "plugins", "recipes")
    for umask in (0o022, 0o077):
        folder = tmp_path_factory.mktemp("source")
        copy = ["cp", "-r", "--no-preserve=all", *(str(ROOT / name) for name in names), str(folder)]
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "wheels")]
        for command, place in ((copy, ROOT), (build, folder)):
            subprocess.run(command, cwd=place, check=True, capture_output=True, timeout=120, umask=umask)
        built += (folder / "wheels").glob("*.whl")
    return built


def test_two_builds_of_a_wheel_are_the_same_bytes(wheels: list[Path]) -> None:
    first, second = wheels
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()


def test_a_wheel_runs_no_code_while_it_is_installed(wheels: list[Path]) -> None:
    names = zipfile.ZipFile(wheels[0]).namelist()
    assert [name for name in names if name.endswith((".pth", ".so", ".pyd", ".exe")) or ".data/" in name] == []
    assert not (ROOT / "setup.py").exists()


def test_a_wheel_says_what_is_installed_with_it(wheels: list[Path]) -> None:
    with zipfile.ZipFile(wheels[0]) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".cdx.json"))
        bill = json.loads(wheel.read(name))
    assert ".dist-info/sboms/" in name
    assert bill["metadata"]["component"]["purl"].startswith("pkg:pypi/vision-toolkit@")
    listed = {part["name"] for part in bill["components"]}
    assert {Requirement(text).name for text in PROJECT["dependencies"]} <= listed


def test_the_bill_of_materials_is_up_to_date() -> None:
    pytest.importorskip("cyclonedx", reason='writing the bill needs pip install -e ".[test]"')
    written = subprocess.run([sys.executable, ".ci/sbom.py"], cwd=ROOT, check=True, capture_output=True, timeout=60)
    assert written.stdout.decode() == (ROOT / "sbom.cdx.json").read_text(encoding="utf-8"), (
        "write it again: python .ci/sbom.py > sbom.cdx.json"
    )


# 14. Plugins that load pickles (several, 2026)


def test_the_doctor_reports_a_plugin_that_loads_pickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "loads_pickles"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('not imported')\n")
    (package / "model.py").write_text(
        "import torch\ntorch.load('a')\ntorch.load('b', weights_only=True)\ntorch.load('c', weights_only=False)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    said = "calls torch.load without weights_only=True, which may run code"
    assert list(unsafe_loads("loads_pickles.model:build")) == [f"model.py:2 {said}", f"model.py:4 {said}"]
    assert list(unsafe_loads("no_such_module_anywhere")) == []


def test_no_source_of_ours_loads_pickles_of_others() -> None:
    for name in ("toolkit", *PROJECT["entry-points"]["toolkit"].values()):
        assert list(unsafe_loads(name)) == []


# 15. Paths in lists and archives that lead elsewhere (anomalib 2.6.0)


@pytest.mark.parametrize("written", ["../secret.png", "/{outside}/secret.png", "train/../../secret.png"])
def test_a_list_names_no_file_outside_the_data(written: str, tmp_path: Path) -> None:
    root = write_images(tmp_path / "data")
    (root / "train" / "red" / "00.png").rename(tmp_path / "secret.png")
    written = written.format(outside=tmp_path)
    others = [f"{path.relative_to(root)},{path.parent.name}" for path in sorted((root / "train").rglob("*.png"))]
    (root / "list.csv").write_text("\n".join(["path,label", f"{written},red", *others, ""]))
    with pytest.raises(DataError, match=re.escape(written)):
        image_folder(root, train="list.csv")


def test_the_table_of_har_names_no_file_outside_the_data(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    root = tmp_path / "har"
    (root / "train").mkdir(parents=True)
    rows = ["filename,label", "../../secret.png,red"]
    for name in CLASSES:
        for path in sorted((images / "train" / name).iterdir()):
            path.rename(root / "train" / f"{name}{path.name}")
            rows.append(f"{name}{path.name},{name}")
    next((images / "test" / "red").iterdir()).rename(tmp_path / "secret.png")
    (root / "Training_set.csv").write_text("\n".join([*rows, ""]))
    with pytest.raises(DataError, match=r"1 file named in it is not in train/: .*secret\.png"):
        har(root)


def test_no_source_of_ours_unpacks_an_archive() -> None:
    """Shards are tars whose members are read as bytes."""
    unpacking = re.compile(r"extractall|unpack_archive|\.extract\(")
    assert [str(path) for path in SOURCES if unpacking.search(path.read_text(encoding="utf-8"))] == []
