"""The example for Ray: a cluster of this machine alone gives the file that `predict` gives."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from tests import toy_bundle
from toolkit.api.clips import Clip
from toolkit.api.errors import EXIT_DATA, EXIT_DONE, EXIT_FAILED, EXIT_USAGE, RunFailed, ToolkitError
from toolkit.serving.predict import predict_files

SCRIPT = Path(__file__).parents[1] / "examples" / "ray_predict.py"
NEXT = "next:  "


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ray_predict", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, twelve images of which one is damaged, and the same images in two Parquet files."""
    folder = tmp_path_factory.mktemp("ray")
    toy_bundle.write(folder / "exports" / "har")
    toy_bundle.write(folder / "exports" / "actions", clip=Clip(frames=5, rate=6))
    (folder / "photos").mkdir()
    for number in range(12):
        Image.new("RGB", (20 + number, 31), (20 * number,) * 3).save(folder / "photos" / f"{number:02}.jpg")
    damaged = folder / "photos" / "04.jpg"
    damaged.write_bytes(damaged.read_bytes()[:300])
    return folder


def called(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, list[str]]:
    """The exit code of the script in this process, and what it printed."""
    monkeypatch.setattr(sys, "argv", ["ray_predict.py", *words])
    code = script.main()
    return code, capsys.readouterr().err.splitlines()


def test_a_worker_answers_files_and_contents_and_names_what_it_cannot_read(script: ModuleType, place: Path) -> None:
    good, damaged = (place / "photos" / name for name in ("11.jpg", "04.jpg"))
    content = good.read_bytes()
    images = [str(good), content, {"bytes": content}, str(damaged), damaged.read_bytes(), None, {"bytes": None}]
    batch = {"name": np.array([*"abcdefg"]), "image": np.array(images, dtype=object)}
    out = script.Worker(place / "exports" / "har", "cpu")(batch)
    assert out["name"].tolist() == [*"abcdefg"]
    assert [bool(answer.any()) for answer in out["answer"]] == [True] * 3 + [False] * 4
    assert (out["answer"][1] == out["answer"][0]).all()
    assert out["problem"][:3] == [""] * 3
    assert out["problem"][3] == out["problem"][4]
    assert out["problem"][3].startswith("cannot be decoded: its JPEG data is damaged")
    assert out["problem"][5:] == ["has no image"] * 2


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (
            ("nothing", "photos", "--output", "answers.csv"),
            [
                "error: nothing: not a bundle (it has no bundle.json)",
                f"{NEXT}make one with: python -m toolkit export RUN",
            ],
        ),
        (
            ("exports/actions", "photos", "--output", "answers.csv"),
            [
                "error: exports/actions: a model of video clips, expected one of images",
                f"{NEXT}divide clips with python -m toolkit predict --part",
            ],
        ),
        (
            ("exports/har", "photos", "--output", "answers.txt"),
            [
                'error: --output answers.txt: unknown format ".txt"',
                f"{NEXT}end the name with .csv, .jsonl or .parquet",
            ],
        ),
        (
            ("exports/har", "photos", "--output", "answers.csv"),
            ["error: Ray is not installed", f'{NEXT}pip install "ray[data]"'],
        ),
    ],
)
def test_what_cannot_start_is_an_error(
    script: ModuleType,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    lines: list[str],
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    code, printed = called(script, monkeypatch, capsys, *words)
    assert (code, printed) == (EXIT_DATA if words[0] == "nothing" else EXIT_USAGE, lines)
    assert not (place / "answers.csv").exists()


def test_a_worker_that_fails_ends_the_command(script: ModuleType, place: Path) -> None:
    ray = pytest.importorskip("ray.data", reason="ray[data] is not installed")
    assert ray

    def map_batches(worker: type, **options: object) -> SimpleNamespace:
        assert options["num_cpus"] == 1
        return SimpleNamespace(iter_rows=rows)

    def rows() -> Iterator[dict[str, object]]:
        yield {"name": "a"}
        raise sys.modules["ray"].exceptions.RayError("Traceback\n  File\ntoolkit.api.errors.BundleError: no bundle")

    words = SimpleNamespace(gpu=False, workers=2, bundle=place)
    answered = script.answered(SimpleNamespace(map_batches=map_batches), words)
    assert next(answered) == {"name": "a"}
    with pytest.raises(RunFailed, match=r"^a worker failed: toolkit\.api\.errors\.BundleError: no bundle$") as failed:
        next(answered)
    assert failed.value.next_step == "see that all machines have the toolkit, the bundle and the images"


STARTS = 3
"""Attempts to start Ray, which gives itself 30 seconds: all cores may be busy with other tests."""


def answered(place: Path, *words: str) -> tuple[int, list[str]]:
    """The exit code of the script with a Ray of its own, and its own lines."""
    for _ in range(STARTS):
        code, lines = answered_once(place, *words)
        if not any("timed out during startup" in line for line in lines):
            break
    return code, lines


def answered_once(place: Path, *words: str) -> tuple[int, list[str]]:
    command = [sys.executable, str(SCRIPT), "exports/har", *words]
    with tempfile.TemporaryDirectory() as folder:  # its path is short: Ray opens sockets below it
        variables = {**os.environ, "HOME": folder, "TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0"}
        variables.pop("RAY_ADDRESS", None)
        done = subprocess.run(command, cwd=place, env=variables, capture_output=True, text=True, check=False)
    return done.returncode, [line for line in done.stderr.splitlines() if "core_worker" not in line]


@pytest.mark.long  # starts Ray, whose every process takes seconds to begin
def test_two_workers_answer_as_predict_does(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray.data", reason="ray[data] is not installed")
    monkeypatch.chdir(place)
    assert predict_files(Path("exports/har"), ["photos"], output=Path("expected.csv"), top=2) == EXIT_DATA
    (problem,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("photos/04.jpg: ")]
    expected = Path("expected.csv").read_bytes()
    names = sorted(str(path) for path in Path("photos").iterdir())
    Path("table").mkdir()
    for number, part in ((1, names[6:]), (0, names[:6])):
        images = {"image": [Path(name).read_bytes() for name in part], "file": part}
        pyarrow.parquet.write_table(pyarrow.table(images), f"table/{number}.parquet")

    printed = [problem, "answers.csv: 11 rows", "skipped 1 image"]
    written = ("--output", "answers.csv", "--top", "2")
    assert answered(place, "photos", *written) == (EXIT_DATA, printed)
    assert Path("answers.csv").read_bytes() == expected
    Path("answers.csv").unlink()
    assert answered(place, "table", "--content", "image", "--name", "file", "--workers", "1", *written) == (
        EXIT_DATA,
        printed,
    )
    assert Path("answers.csv").read_bytes() == expected


@pytest.mark.real
@pytest.mark.long  # starts Ray
def test_two_workers_answer_all_har_images_as_predict_does(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray.data", reason="ray[data] is not installed")
    photos = str(real_data / "har-subset" / "train")
    monkeypatch.chdir(tmp_path)
    toy_bundle.write(Path("exports/har"))
    assert predict_files(Path("exports/har"), [photos], output=Path("expected.csv"), top=2) == EXIT_DONE
    expected = Path("expected.csv").read_bytes()
    assert expected.count(b"\n") == 1 + 1800
    assert answered(tmp_path, photos, "--output", "answers.csv", "--top", "2") == (
        EXIT_DONE,
        ["answers.csv: 1,800 rows"],
    )
    assert Path("answers.csv").read_bytes() == expected


@pytest.mark.parametrize(
    ("words", "message", "step"),
    [
        (("photos", "--workers", "3"), "--workers 3: needs 3 cores, the cluster has 2", "use --workers 2"),
        (
            ("table", "--content", "image"),
            "--workers 2: needs 3 cores, the cluster has 2",
            "use --workers 1",
        ),
        (
            ("photos", "--gpu"),
            "--workers 2: needs 2 GPUs, the cluster has 0",
            "start Ray on a machine that has them",
        ),
    ],
)
def test_more_workers_than_the_cluster_has_room_for_are_an_error(
    script: ModuleType,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    message: str,
    step: str,
) -> None:
    """They would wait without end."""
    monkeypatch.chdir(place)
    context = fresh_context()
    data = SimpleNamespace(DataContext=SimpleNamespace(get_current=lambda: context))
    ray = SimpleNamespace(data=data, init=lambda **_: None, cluster_resources=lambda: {"CPU": 2.0})
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.data", data)
    code, lines = called(script, monkeypatch, capsys, "exports/har", *words, "--output", "answers.csv")
    assert (code, lines) == (EXIT_USAGE, [f"error: {message}", f"{NEXT}{step}"])
    assert context.execution_options.preserve_order


def test_a_cluster_that_does_not_answer_is_an_error(
    script: ModuleType, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def init(**_: object) -> None:
        raise ConnectionError("nothing at 127.0.0.1:1\nmore")

    monkeypatch.chdir(place)
    data = SimpleNamespace(DataContext=SimpleNamespace(get_current=fresh_context))
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(data=data, init=init))
    monkeypatch.setitem(sys.modules, "ray.data", data)
    assert called(script, monkeypatch, capsys, "exports/har", "photos", "--output", "answers.csv") == (
        EXIT_FAILED,
        [
            "error: Ray cannot be started or joined: nothing at 127.0.0.1:1",
            f"{NEXT}see what RAY_ADDRESS names, or end what else runs on this machine",
        ],
    )


def fresh_context() -> SimpleNamespace:
    return SimpleNamespace(execution_options=SimpleNamespace())


@pytest.mark.parametrize(
    ("error", "words", "code", "message", "step"),
    [
        (
            None,
            ("pixels", "file"),
            EXIT_USAGE,
            'table: no column "pixels"',
            "choose from image, file",
        ),
        (
            FileNotFoundError("table"),
            ("image", None),
            EXIT_DATA,
            "table: cannot be read as Parquet: table",
            "give a Parquet file, or a folder of them, as IMAGES",
        ),
    ],
)
def test_a_table_that_cannot_be_read_is_an_error(
    script: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception | None,
    words: tuple[str, str | None],
    code: int,
    message: str,
    step: str,
) -> None:
    def read_parquet(table: str) -> SimpleNamespace:
        if error:
            raise error
        return SimpleNamespace(schema=lambda: SimpleNamespace(names=["image", "file"]))

    data = SimpleNamespace(read_parquet=read_parquet)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(data=data))
    monkeypatch.setitem(sys.modules, "ray.data", data)
    with pytest.raises(ToolkitError) as failed:
        script.rows("table", *words)
    assert (failed.value.exit_code, failed.value.message, failed.value.next_step) == (code, message, step)
