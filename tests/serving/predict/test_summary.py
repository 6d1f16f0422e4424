"""The lines at the end of `predict`, and the command that comes next."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from PIL import Image

from tests import toy_bundle
from tests.plugins.data_files import write_video
from toolkit.api.answers import percent
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
    assert lines[1:] == ["classes: dark 2, bright 1", f"mean confidence: {percent(sum(sure) / 3)}"]


def test_a_summary_of_sets_counts_each_class_and_empty_sets(tmp_path, capsys) -> None:
    bundle = toy_bundle.write(tmp_path / "sets", classes=("some", "more", "most"), thresholds=(0.5, 0.5, 0.3))
    assert predict_files(bundle, [str(greys(tmp_path / "in", 0, 60, 255))], device="cpu") == EXIT_DONE
    assert "classes: some 2, (none) 1, more 1, most 1" in capsys.readouterr().err.splitlines()


def test_the_confidence_in_sets_is_that_in_the_classes_they_name(tmp_path, capsys) -> None:
    names = [f"c{number:02}" for number in range(30)]  # the probability of any whole set is close to 0
    bundle = toy_bundle.write(tmp_path / "sets", classes=names, thresholds=[0.5] * 30)
    predict_files(bundle, [str(greys(tmp_path / "in", 60, 255))], device="cpu")
    opened = Bundle.load(bundle, device="cpu")
    rows = [
        opened.predict(opened.square(Image.new("RGB", (20, 20), (level,) * 3))).probabilities[0] for level in (60, 255)
    ]
    named = [value for row in rows for value in row.tolist() if value >= 0.5]
    expected = f"mean confidence: {percent(sum(named) / len(named))}, {len(named) / 2:.2f} classes per answer"
    assert expected in capsys.readouterr().err.splitlines()


def test_sets_that_are_all_empty_have_no_confidence(tmp_path, capsys) -> None:
    bundle = toy_bundle.write(tmp_path / "sets", classes=("some", "more"), thresholds=(0.99, 0.99))
    predict_files(bundle, [str(greys(tmp_path / "in", 0))], device="cpu")
    assert "mean confidence: no class was present" in capsys.readouterr().err.splitlines()


def test_a_summary_escapes_what_a_terminal_would_obey(tmp_path, capsys) -> None:
    bundle = toy_bundle.write(tmp_path / "toy", classes=("a\x1b[31m", "b\n\u202eerror: forged"))
    predict_files(bundle, [str(greys(tmp_path / "in", 0, 255))], device="cpu")
    shown = capsys.readouterr()
    assert all(char.isprintable() or char == "\n" for char in shown.out + shown.err)
    assert "classes: a\\x1b[31m 1, b\\n\\u202eerror: forged 1" in shown.err.splitlines()
    assert len(shown.out.splitlines()) == 3


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


@pytest.mark.parametrize("stream", [False, True])
def test_what_devalues_the_answers_is_said_once_before_them(tmp_path, capsys, stream) -> None:
    notes = ["starting from random weights", "another note", 3]
    bundle = toy_bundle.write(tmp_path / "toy", sample=True, trained_on={"notes": notes})
    source = write_video(tmp_path / "a.mp4", frames=2) if stream else greys(tmp_path / "in", 0)
    predict_files(bundle, [str(source)], device="cpu", stream=stream)
    shown = capsys.readouterr().err
    warnings = [line.removeprefix("warning: ") for line in shown.splitlines()[1:3]]
    assert warnings == labels(Bundle.load(bundle, device="cpu").manifest)
    assert warnings[0].startswith("the model was trained on SAMPLE data")
    assert warnings[1] == "starting from random weights"
    assert shown.count("SAMPLE") == shown.count("random weights") == 1


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
