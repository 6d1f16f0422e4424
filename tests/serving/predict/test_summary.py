"""The lines at the end of `predict`, and the command that comes next."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from PIL import Image

from tests import toy_bundle
from tests.plugins.data_files import write_video
from toolkit.api.errors import EXIT_DONE
from toolkit.cli.main import main
from toolkit.serving.bundle import Bundle
from toolkit.serving.predict import predict_files
from toolkit.serving.predict.summary import Summary, labels


def greys(folder: Path, *levels: int) -> Path:
    folder.mkdir()
    for number, level in enumerate(levels):
        Image.new("RGB", (20, 20), (level,) * 3).save(folder / f"{number}.png")
    return folder


def test_a_summary_counts_inputs_classes_and_confidence(tmp_path, capsys) -> None:
    bundle = toy_bundle.write(tmp_path / "toy")
    folder = greys(tmp_path / "in", 0, 0, 255)
    assert predict_files(bundle, [str(folder)], device="cpu") == EXIT_DONE
    lines = capsys.readouterr().err.splitlines()[1:]
    opened = Bundle.load(bundle, device="cpu")
    sure = [
        float(opened.predict(opened.square(Image.open(path))).probabilities.max()) for path in sorted(folder.iterdir())
    ]
    assert lines[0].startswith("3 inputs answered in ")
    assert lines[0].endswith(" inputs/s, fp32 on cpu (asked for)")
    assert lines[1:] == ["classes: dark 2, bright 1", f"mean confidence: {sum(sure) / 3:.1%}"]


def test_a_summary_of_sets_counts_each_class_and_empty_sets(tmp_path, capsys) -> None:
    bundle = toy_bundle.write(tmp_path / "sets", classes=("some", "more", "most"), thresholds=(0.5, 0.5, 0.3))
    assert predict_files(bundle, [str(greys(tmp_path / "in", 0, 60, 255))], device="cpu") == EXIT_DONE
    assert "classes: some 2, (none) 1, more 1, most 1" in capsys.readouterr().err.splitlines()


def test_rare_classes_are_counted_together(tmp_path) -> None:
    names = [f"c{number:02}" for number in range(12)]
    summary = Summary(Bundle.load(toy_bundle.write(tmp_path / "toy", classes=names), device="cpu"))
    for number in range(12):
        answer = summary.bundle.predict(
            summary.bundle.square(Image.new("RGB", (20, 20), (int(255 * (number + 0.5) / 12),) * 3))
        )
        summary.add(answer.probabilities[0], first=True)
    counts = next(line for line in summary.lines() if line.startswith("classes: "))
    assert counts.count(",") == 8
    assert counts.endswith("4 other classes 4")


def test_a_summary_repeats_what_devalues_the_answers(tmp_path, capsys) -> None:
    notes = ["starting from random weights", "another note", 3]
    bundle = toy_bundle.write(tmp_path / "toy", sample=True, trained_on={"notes": notes})
    predict_files(bundle, [str(greys(tmp_path / "in", 0))], device="cpu")
    last = capsys.readouterr().err.splitlines()[-2:]
    assert last == labels(Bundle.load(bundle, device="cpu").manifest)
    assert last[0].startswith("the model was trained on SAMPLE data")
    assert last[1] == "starting from random weights"


def next_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert main(words) == EXIT_DONE
    last = capsys.readouterr().err.splitlines()[-1]
    prefix = "next:  python -m toolkit "
    return shlex.split(last.removeprefix(prefix)) if last.startswith(prefix) else []


def test_each_next_command_works_until_nothing_is_left_to_do(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    bundle, folder = toy_bundle.write(tmp_path / "toy"), greys(tmp_path / "in 1", 0, 255)
    (tmp_path / "annotated").mkdir()
    words = next_of(["predict", str(bundle), str(folder), "--top", "1"], capsys)
    assert words[-2:] == ["--save", "annotated-2"]
    words = next_of(words, capsys)
    assert words == ["predict", str(bundle), str(folder), "--top", "1", "--output", "answers.csv"]
    assert len(list((tmp_path / "annotated-2").iterdir())) == 2
    words = next_of(words, capsys)
    assert words[-2:] == ["--save", "annotated-3"]


def test_a_next_command_repeats_few_inputs(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    bundle, folder = toy_bundle.write(tmp_path / "toy"), greys(tmp_path / "in", *range(6))
    paths = sorted(map(str, folder.iterdir()))
    assert next_of(["predict", str(bundle), *paths], capsys)[2:] == [*paths[:3], "--save", "annotated"]


def test_a_stream_ends_with_a_summary_and_its_next_command(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    bundle, video = toy_bundle.write(tmp_path / "toy"), write_video(tmp_path / "a.mp4")
    assert main(["predict", str(bundle), str(video), "--stream", "--every", "0.4"]) == EXIT_DONE
    said = capsys.readouterr().err.splitlines()
    assert said[2].startswith("1 input answered (")
    assert said[-1].endswith("--every 0.4 --output answers.csv")
