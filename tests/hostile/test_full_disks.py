"""A disk that takes no more: every command names the file, blames no plugin, and leaves what can be gone on with.

A limit on the size of a file stands for the disk: the file that is too large for it is the one that fails.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests import tiny
from tests.hostile.trials import Outcome, Trial
from toolkit.api.errors import EXIT_DONE, EXIT_FAILED
from toolkit.runs.directory import RunDirectory

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
    outcome = trial("run", recipe, "--runs", tmp_path, file_bytes=kib << 10)
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
    check_failure(trial("report", finished.path, file_bytes=100 << 10), finished.path)
    assert finished.report.read_bytes() == before


def test_a_study_on_a_full_disk_names_the_file(recipe: Path, trial: Trial, tmp_path: Path) -> None:
    outcome = trial("tune", recipe, "--runs", tmp_path, "--set", TUNE, file_bytes=3 << 10)
    check_failure(outcome, tmp_path)
    shutil.rmtree(tmp_path / "tiny")
