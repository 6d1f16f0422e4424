"""A disk that takes no more: every command names the file, blames no plugin, and leaves what can be gone on with.

A limit on the size of a file stands for the disk: the file that is too large for it is the one that fails. What
writes a new file is also tried on a file system that is full, where one can be mounted.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from tests import tiny, toy_bundle
from tests.hostile.trials import Outcome, Trial
from tests.video_files import write_video
from toolkit.api.errors import EXIT_DONE, EXIT_FAILED
from toolkit.cli.main import main
from toolkit.runs.directory import RunDirectory

PAGE = 1 << 12
"""Bytes that a file takes at least on the file system of the tests."""
TUNE = 'tune={trials=1,space={"train.optimizer.lr"={low=0.001,high=0.1}}}'


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("disk")
    return tiny.write_recipe(folder, tiny.write_images(folder / "images"))


@pytest.fixture(scope="module")
def finished(recipe: Path) -> RunDirectory:
    assert tiny.run(recipe, recipe.parent / "finished") == EXIT_DONE
    return RunDirectory(tiny.only_run(recipe.parent / "finished"))


def check_failure(outcome: Outcome, named: Path) -> None:
    assert list(outcome.faults()) == [], outcome
    assert outcome.code == EXIT_FAILED
    assert f"error: {named}" in outcome.error
    assert "File too large" in outcome.error


@pytest.mark.slow
@pytest.mark.parametrize(("kib", "named"), [(1, "recipe.toml"), (24, "last.pt"), (100, "figures")])
def test_a_run_on_a_full_disk_names_the_file_and_goes_on_later(
    kib: int, named: str, recipe: Path, trial: Trial, tmp_path: Path
) -> None:
    """Slow: it trains twice."""
    outcome = trial("run", recipe, "--runs", tmp_path, file_bytes=kib << 10, painted=named == "figures")
    run = RunDirectory(tiny.only_run(tmp_path))
    check_failure(outcome, run.path / named)
    assert not [path for path in tmp_path.rglob(".*") if path.name != ".lock"]
    if run.recipe.exists():
        assert trial("run", "--resume", run.path).code == EXIT_DONE
        assert run.report.exists()


def test_an_export_on_a_full_disk_leaves_no_half_bundle(finished: RunDirectory, trial: Trial, tmp_path: Path) -> None:
    outcome = trial("export", finished.path, "--exports", tmp_path, file_bytes=8 << 10)
    check_failure(outcome, tmp_path / "tiny")
    assert list(tmp_path.iterdir()) == []


def test_a_report_on_a_full_disk_leaves_the_one_before(finished: RunDirectory, trial: Trial) -> None:
    before = finished.report.read_bytes()
    check_failure(trial("report", finished.path, file_bytes=100 << 10, painted=True), finished.path)
    assert finished.report.read_bytes() == before


def test_a_study_on_a_full_disk_names_the_file(recipe: Path, trial: Trial, tmp_path: Path) -> None:
    outcome = trial("tune", recipe, "--runs", tmp_path, "--set", TUNE, file_bytes=3 << 10)
    check_failure(outcome, tmp_path)
    shutil.rmtree(tmp_path / "tiny")


def test_an_evaluation_on_a_full_disk_leaves_the_scores_before(finished: RunDirectory, trial: Trial) -> None:
    before = finished.scores.read_bytes()
    outcome = trial("evaluate", finished.path, file_bytes=1 << 10)
    check_failure(outcome, finished.path)
    assert finished.scores.read_bytes() == before


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of its own, which is full."""
    place = tmp_path / "full"
    place.mkdir()
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if not mount or (done := subprocess.run(command, capture_output=True, text=True, check=False)).returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr if mount else 'there is no mount'}")
    try:
        with (place / "rest").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(PAGE))
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--output", "rows.csv"], "rows.csv"),
        (["--output", "rows.jsonl"], "rows.jsonl"),
        (["--output", "rows.parquet"], "rows.parquet"),
        (["--save", "copies"], "copies"),
        (["--every", "0.5", "--plot", "timeline.png"], "timeline.png"),
        (["--every", "0.5", "--save", "copies"], "copies"),
        (["--stream", "--output", "rows.csv"], "rows.csv"),
        (["--stream", "--output", "rows.parquet"], "rows.parquet"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_answers_that_do_not_fit_on_the_disk_name_the_file(
    flags: list[str], named: str, full_disk: Path, trial: Trial, tmp_path: Path
) -> None:
    if named.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    bundle = toy_bundle.write(tmp_path / "toy")
    Image.new("RGB", (24, 20), (90, 60, 120)).save(tmp_path / "grey.png")
    moving = "--every" in flags or "--stream" in flags
    source = write_video(tmp_path / "bars.mp4") if moving else tmp_path / "grey.png"
    words = [str(full_disk / word) if word == named else word for word in flags]
    outcome = trial("predict", bundle, source, *words, "--device", "cpu")
    assert list(outcome.faults()) == [], outcome
    assert outcome.code == EXIT_FAILED
    assert str(full_disk / named) in outcome.error
    assert "No space left on device" in outcome.error
    assert [path for path in full_disk.rglob("*") if path.is_file()] == [full_disk / "rest"]


def test_what_goes_on_where_no_temporary_file_can_be_written(full_disk: Path, finished: RunDirectory) -> None:
    """All that this process writes is refused, and what it prints goes to a pipe."""
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); "
    script = f"{limited}from toolkit.cli.main import main; import sys; sys.exit(main())"
    environment = {**os.environ, "TMPDIR": str(full_disk)}
    for words in (["plugins", "list"], ["check", str(finished.recipe)]):
        command = [sys.executable, "-B", "-c", script, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=full_disk)
        assert done.returncode == EXIT_DONE, done.stderr
        assert "error: " not in done.stderr


def test_an_export_without_room_for_temporary_files_names_their_folder(
    full_disk: Path,
    finished: RunDirectory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """There is room for what Python tries before it takes a folder, but for no model."""
    os.truncate(full_disk / "rest", (full_disk / "rest").stat().st_size - PAGE)
    monkeypatch.setattr("tempfile.tempdir", str(full_disk))
    words = ["export", str(finished.path), "--exports", str(tmp_path / "exports"), "--set", "export.precision=int8"]
    assert main(words) == EXIT_FAILED
    said = capsys.readouterr().err
    assert f"error: {full_disk}" in said
    assert "No space left on device" in said
    assert "next:  " in said
    assert [path for path in full_disk.rglob("*") if path.is_file()] == [full_disk / "rest"]
