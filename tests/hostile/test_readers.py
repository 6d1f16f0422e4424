"""A reader of standard output that is gone, as behind `| head -1`: training goes on, other commands end with 141."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests import tiny, toy_bundle
from tests.hostile.trials import Trial
from tests.video_files import write_video
from toolkit.api.errors import EXIT_DONE, EXIT_UNREAD
from toolkit.runs.directory import RunDirectory


@pytest.mark.parametrize("flags", [[], ["--save", "copies"], ["--stream"]], ids=" ".join)
def test_answers_that_nobody_reads(flags: list[str], tmp_path: Path) -> None:
    bundle = toy_bundle.write(tmp_path / "toy")
    Image.new("RGB", (24, 20), (90, 60, 120)).save(tmp_path / "grey.png")
    source = write_video(tmp_path / "bars.mp4") if "--stream" in flags else tmp_path / "grey.png"
    done = unread("predict", bundle, source, *flags, "--device", "cpu", cwd=tmp_path)
    assert done.returncode == EXIT_UNREAD, done.stderr
    assert "error" not in done.stderr


def test_a_run_that_nobody_reads_is_whole(trial: Trial, tmp_path: Path) -> None:
    recipe = tiny.write_recipe(tmp_path, tiny.write_images(tmp_path / "images"))
    outcome = trial("run", recipe, "--runs", tmp_path / "runs", "--set", "train.epochs=1", unread=True)
    assert (outcome.code, outcome.output, outcome.error) == (EXIT_DONE, "", "")
    assert RunDirectory(tiny.only_run(tmp_path / "runs")).report.exists()


def unread(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [sys.executable, "-m", "toolkit", *map(str, words)]
        return subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, cwd=cwd)
    finally:
        os.close(writer)
