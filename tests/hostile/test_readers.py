"""A reader of standard output that leaves, as `| head -1` does: exit code 141 without a word, and nothing is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests import tiny, toy_bundle
from toolkit.api.errors import EXIT_DONE, EXIT_UNREAD
from toolkit.runs.directory import RunDirectory

EPOCHS = 30


@pytest.mark.slow
def test_a_run_whose_reader_leaves_is_resumed_where_it_was(tmp_path: Path) -> None:
    """Slow: it starts two processes that train."""
    recipe = tiny.write_recipe(tmp_path, tiny.write_images(tmp_path / "images"))
    words = ["run", str(recipe), "--runs", str(tmp_path / "runs"), "--set", f"train.epochs={EPOCHS}"]
    with subprocess.Popen(
        [sys.executable, "-m", "toolkit", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        next(line for line in process.stdout if line.startswith("epoch"))
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (EXIT_UNREAD, "")
    run = RunDirectory(tiny.only_run(tmp_path / "runs"))
    assert 0 < len(run.records.read_text().splitlines()) < EPOCHS
    command = [sys.executable, "-m", "toolkit", "run", "--resume", str(run.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_DONE, done.stderr
    assert len(run.records.read_text().splitlines()) == EPOCHS


@pytest.mark.parametrize("flags", [[], ["--save", "copies"], ["--stream"]], ids=" ".join)
def test_answers_that_nobody_reads(flags: list[str], tmp_path: Path) -> None:
    from tests.video_files import write_video

    bundle = toy_bundle.write(tmp_path / "toy")
    Image.new("RGB", (24, 20), (90, 60, 120)).save(tmp_path / "grey.png")
    source = write_video(tmp_path / "bars.mp4") if "--stream" in flags else tmp_path / "grey.png"
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "toolkit", "predict", str(bundle), str(source), *flags, "--device", "cpu"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path)
    os.close(writer)
    assert done.returncode == EXIT_UNREAD, done.stderr
    assert "error" not in done.stderr
