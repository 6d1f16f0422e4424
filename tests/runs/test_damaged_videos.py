"""Runs on videos of which frames cannot be decoded: counted, reported, and refused from a share on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import tiny
from tests.video_files import spoil, write_video
from toolkit.api.errors import EXIT_DATA, EXIT_DONE
from toolkit.cli.main import main
from toolkit.runs.files import read_run

RECIPE = """
[data]
name = "video_folder"

[input]
size = 16

[clip]
frames = 3
rate = 2
fps = 10

[model]
name = "cnn"
widths = [8]

[train]
epochs = 2
batch = 4
device = "cpu"
precision = "fp32"
optimizer = {name = "sgd", lr = 0.05}
"""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    for split, count in (("train", 4), ("valid", 2), ("test", 2)):
        for place, name in enumerate(("left", "right")):
            for number in range(count):
                first = 64 * place + 4 * number + {"train": 0, "valid": 20, "test": 40}[split]
                write_video(root / split / name / f"{number}.mp4", 20, first=first)
    spoil(root / "train" / "left" / "0.mp4", [8, 9, 10])
    spoil(root / "test" / "right" / "1.mp4", range(6, 20))
    return root


def written(tmp_path: Path, videos: Path) -> Path:
    return tiny.write_recipe(tmp_path, videos, text=RECIPE)


def test_damaged_frames_are_counted_and_reported(
    tmp_path: Path, videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = written(tmp_path, videos)
    assert tiny.run(recipe, tmp_path / "runs", "input.damaged_share=0.9") == EXIT_DONE
    screen = " ".join(capsys.readouterr().out.split())
    assert "train: 1 item of 8 damaged in part: train/left/0.mp4: 3 of 20 frames cannot be decoded" in screen
    assert "test: 1 item of 4 damaged in part: test/right/1.mp4: 14 of 20 frames cannot be decoded" in screen
    problems = {one.path: one.problem for one in read_run(tiny.only_run(tmp_path / "runs")).file_problems}
    assert problems == {
        "train/left/0.mp4": "damaged: 3 of 20 frames cannot be decoded",
        "test/right/1.mp4": "damaged: 14 of 20 frames cannot be decoded",
    }


def test_from_a_share_on_a_damaged_video_is_an_error_or_skipped(
    tmp_path: Path, videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = written(tmp_path, videos)
    assert tiny.run(recipe, tmp_path / "runs") == EXIT_DATA
    said = "test/right/1.mp4: 14 of 20 frames cannot be decoded, and input.damaged_share = 0.5"
    error = capsys.readouterr().err
    assert said in error
    assert "--set input.on_corrupt=skip" in error
    skip = ["input.on_corrupt=skip", "input.corrupt_limit=0.5"]
    assert tiny.run(recipe, tmp_path / "skipping", *skip) == EXIT_DONE
    assert f"test: skipped 1 of 4 items that cannot be read: {said}" in " ".join(capsys.readouterr().out.split())


def test_check_reports_a_damaged_first_item(tmp_path: Path, videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = written(tmp_path, videos)
    assert main(["check", str(recipe)]) == EXIT_DONE
    found = " ".join(capsys.readouterr().out.split())
    assert "note train: train/left/0.mp4: 3 of 20 frames cannot be decoded" in found
    assert main(["check", str(recipe), "--set", "input.damaged_share=0.1"]) == EXIT_DATA
    assert "train/left/0.mp4: 3 of 20 frames cannot be decoded" in capsys.readouterr().err
