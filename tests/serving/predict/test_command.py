"""`predict` as a whole: what it answers, what it says, and how it ends."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from tests import toy_bundle
from tests.loopback import serving
from tests.plugins.data_files import write_image, write_video
from toolkit.api.clips import Clip, middles
from toolkit.api.errors import (
    EXIT_DATA,
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_STOPPED,
    EXIT_USAGE,
    BundleError,
    DataError,
    UsageError,
)
from toolkit.cli.main import main
from toolkit.data.decoding import read_frames, timeline
from toolkit.serving.bundle import Bundle, FrameSampling
from toolkit.serving.bundle.views import average_views
from toolkit.serving.predict import live, predict_files
from toolkit.serving.predict.reconnecting import LiveFrame


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return toy_bundle.write(tmp_path / "toy")


def grey(path: Path, level: int, side: int = 20) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side + level % 7), (level,) * 3).save(path)
    return path


def pictures(folder: Path, count: int) -> Path:
    """Pictures of `count` levels, from dark to bright."""
    for number in range(count):
        grey(folder / f"{number:03}.png", 255 * number // max(count - 1, 1))
    return folder


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_answers_are_a_table_and_all_else_goes_to_standard_error(tmp_path, bundle, capsys) -> None:
    dark, bright = grey(tmp_path / "a.png", 0), grey(tmp_path / "b.png", 255)
    assert predict_files(bundle, [str(bright), str(dark)], device="cpu") == EXIT_DONE
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [[str(bright), "bright"], [str(dark), "dark"]]
    assert said.err.splitlines()[0] == "toy: fp32 on cpu (asked for)"


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """A bundle whose answers are sets: the brighter, the more classes."""
    return toy_bundle.write(tmp_path / "sets", classes=("some", "more", "most"), thresholds=(0.5, 0.5, 0.3))


def test_answers_that_are_sets_say_which_classes_are_present(tmp_path, sets, capsys) -> None:
    paths = [str(grey(tmp_path / f"{level}.png", level)) for level in (0, 60, 255)]
    assert predict_files(sets, paths, device="cpu", top=1) == EXIT_DONE
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines] == ["prediction", "(none)", "some", "some|more|most"]
    assert predict_files(sets, paths, output=tmp_path / "out.csv", device="cpu") == EXIT_DONE
    answers = Bundle.load(sets, device="cpu").predict([np.asarray(Image.open(path)) for path in paths])
    for row, label, best in zip(read_rows(tmp_path / "out.csv"), answers.labels, answers.top(3), strict=True):
        assert row["prediction"] == label
        assert [row[f"class_{rank}"] for rank in (1, 2, 3)] == [name for name, _ in best]
        assert float(row["probability_1"]) == pytest.approx(best[0][1], abs=1e-6)


def test_the_set_of_a_video_is_that_of_its_mean(tmp_path, sets) -> None:
    path = write_video(tmp_path / "a.mp4")
    assert predict_files(sets, [str(path)], output=tmp_path / "out.csv", device="cpu") == EXIT_DONE
    opened = Bundle.load(sets, device="cpu")
    frames = read_frames(path, timeline(path), middles(12, 4))
    mean = opened.predict([opened.square(frame) for frame in frames]).probabilities.mean(0, keepdims=True)
    (row,) = read_rows(tmp_path / "out.csv")
    assert row["prediction"] == opened.answers(mean).labels[0]


def test_auto_says_which_device_it_took_and_why(tmp_path, bundle, capsys) -> None:
    predict_files(bundle, [str(grey(tmp_path / "a.png", 0))])
    opened = Bundle.load(bundle)
    assert capsys.readouterr().err.splitlines()[0] == f"toy: {opened.setting}"


@pytest.mark.parametrize("batch", [None, 1, 7, 64])
def test_all_of_a_folder_is_answered_as_the_bundle_answers_each(tmp_path, bundle, batch) -> None:
    folder = pictures(tmp_path / "in", 40)
    assert predict_files(bundle, [str(folder)], output=tmp_path / "out.csv", batch=batch, device="cpu") == EXIT_DONE
    opened = Bundle.load(bundle, device="cpu")
    found = read_rows(tmp_path / "out.csv")
    assert [row["file"] for row in found] == [str(path) for path in sorted(folder.iterdir())]
    for row in found:
        ((first, second),) = opened.predict([opened.square(np.asarray(Image.open(row["file"])))]).top(2)
        assert (row["class_1"], row["class_2"]) == (first[0], second[0])
        assert float(row["probability_1"]) == pytest.approx(first[1], abs=1e-6)


def test_the_answer_to_a_video_is_the_mean_over_its_frames(tmp_path, bundle) -> None:
    path = write_video(tmp_path / "a.mp4")
    assert predict_files(bundle, [str(path)], output=tmp_path / "out.csv", device="cpu") == EXIT_DONE
    opened = Bundle.load(bundle, device="cpu")
    frames = read_frames(path, timeline(path), middles(12, 4))
    expected = opened.predict([opened.square(frame) for frame in frames]).probabilities.mean(0)
    (row,) = read_rows(tmp_path / "out.csv")
    assert float(row["probability_1"]) == pytest.approx(expected.max(), abs=1e-6)


def test_images_and_videos_keep_their_order(tmp_path, bundle) -> None:
    for number in range(12):
        (grey if number % 3 else lambda path, level: write_video(path.with_suffix(".mp4")))(
            tmp_path / f"in/{number:02}.png", 20 * number
        )
    assert predict_files(bundle, [str(tmp_path / "in")], output=tmp_path / "out.csv", batch=5) == EXIT_DONE
    names = [Path(row["file"]).name for row in read_rows(tmp_path / "out.csv")]
    assert names == [f"{number:02}.{'png' if number % 3 else 'mp4'}" for number in range(12)]


def test_what_cannot_be_read_is_reported_and_counted_and_the_rest_continues(tmp_path, bundle, capsys) -> None:
    folder = pictures(tmp_path / "in", 30)
    (folder / "004.png").write_bytes(b"no picture")
    (folder / "017.mp4").write_bytes(b"no video")
    words = [str(folder), str(tmp_path / "gone.png"), str(folder / "001.png")]
    assert predict_files(bundle, words, output=tmp_path / "out.csv", batch=4) == EXIT_DATA
    names = [Path(row["file"]).name for row in read_rows(tmp_path / "out.csv")]
    assert names == [f"{number:03}.png" for number in range(30) if number != 4] + ["001.png"]
    messages = capsys.readouterr().err.splitlines()[1:]
    assert messages[0].startswith(f"{folder / '004.png'}: cannot be decoded: ")
    assert messages[1].startswith(f"{folder / '017.mp4'}: cannot be decoded: ")
    assert messages[2].startswith(f"{tmp_path / 'gone.png'}: no such file or folder")
    assert messages[3].startswith("30 inputs answered in ")
    named = folder / "004.png", folder / "017.mp4", tmp_path / "gone.png"
    assert messages[6:] == [f"skipped 3 of 33 inputs: {', '.join(map(str, named))}", f"{tmp_path / 'out.csv'}: 30 rows"]


def test_thousands_are_counted_with_commas(tmp_path, bundle, capsys) -> None:
    good = grey(tmp_path / "a.png", 0)
    words = [*[str(good)] * 1100, *[str(tmp_path / "gone.png")] * 3]
    assert predict_files(bundle, words) == EXIT_DATA
    said = capsys.readouterr()
    gone = tmp_path / "gone.png"
    assert said.err.splitlines()[-1] == f"skipped 3 of 1,103 inputs: {gone}, {gone}, {gone}"
    assert len(said.out.splitlines()) == 1101


@pytest.mark.parametrize("count", [1, 2])
def test_when_nothing_can_be_read_no_file_is_written(tmp_path, bundle, count) -> None:
    for number in range(count):
        (tmp_path / f"{number}.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=f"none of the {count} inputs? could be answered"):
        predict_files(bundle, [str(tmp_path / f"{n}.png") for n in range(count)], output=tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("listed", [False, True])
def test_parts_together_are_the_whole(tmp_path, bundle, monkeypatch, capsys, parts, listed) -> None:
    folder = pictures(tmp_path / "in", 5)
    (folder / "002.png").write_text("no picture")
    words = ["-"] if listed else [str(folder)]

    def answered(name: str, part: tuple[int, int] | None) -> str:
        names = "\n".join(map(str, sorted(folder.iterdir())))
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(names.encode())))
        output = tmp_path / name
        code = predict_files(bundle, words, output=output, batch=2, device="cpu", part=part)
        assert code == (EXIT_DATA if "002.png" in capsys.readouterr().err else EXIT_DONE)
        return output.read_text()

    whole = answered("whole.jsonl", None)
    assert len(whole.splitlines()) == 4
    assert "".join(answered(f"{part}.jsonl", (part, parts)) for part in range(1, parts + 1)) == whole


def test_a_part_without_inputs_is_an_empty_file_and_no_error(tmp_path, bundle, capsys) -> None:
    words = [str(grey(tmp_path / "a.png", 0))]
    assert predict_files(bundle, words, output=tmp_path / "2.csv", part=(2, 2)) == EXIT_DONE
    assert read_rows(tmp_path / "2.csv") == []
    assert "note: part 2 of 2 is empty: 1 input in all\n" in capsys.readouterr().err
    assert predict_files(bundle, words, part=(2, 2)) == EXIT_DONE


def test_what_does_not_end_has_no_parts(bundle) -> None:
    with pytest.raises(UsageError, match=r"^--part: camera 0 is answered as it is shown, by one process$") as caught:
        predict_files(bundle, ["0"], part=(1, 2))
    assert caught.value.next_step == "remove --part"


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/2", "1/b", "-1/2"])
def test_a_part_is_one_number_of_another(capsys, text) -> None:
    assert main(["predict", "toy", "a.png", f"--part={text}"]) == EXIT_USAGE
    assert f'argument --part: expected K/N with K from 1 to N, such as 1/8, got "{text}"' in capsys.readouterr().err


def test_a_list_on_standard_input(tmp_path, bundle, capsys, monkeypatch) -> None:
    paths = [grey(tmp_path / "with space.png", 0), grey(tmp_path / "b.png", 255)]
    listed = io.TextIOWrapper(io.BytesIO("\n".join(map(str, paths)).encode()))
    monkeypatch.setattr(sys, "stdin", listed)
    assert predict_files(bundle, ["-"], top=1) == EXIT_DONE
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[-3] for line in lines] == ["dark", "bright"]


def test_one_row_is_reported_in_the_singular(tmp_path, bundle, capsys) -> None:
    predict_files(bundle, [str(grey(tmp_path / "a.png", 0))], output=tmp_path / "out.csv")
    assert f"{tmp_path / 'out.csv'}: 1 row\n" in capsys.readouterr().err


def test_a_standard_input_that_is_closed_names_nothing(bundle, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(DataError, match="standard input: it contains no path; expected one per line"):
        predict_files(bundle, ["-"])


@pytest.mark.parametrize(("top", "shown"), [(1, 1), (2, 2), (9, 2)])
def test_as_many_classes_are_shown_as_there_are(tmp_path, bundle, top, shown) -> None:
    predict_files(bundle, [str(grey(tmp_path / "a.png", 0))], top=top, output=tmp_path / "out.csv")
    (row,) = read_rows(tmp_path / "out.csv")
    assert len(row) == 1 + 2 * shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top": 0}, "--top: must be at least 1, got 0"),
        ({"batch": 0}, "--batch: must be at least 1, got 0"),
        ({"every": 0.0}, "--every: must be at least 0.001 seconds, got 0"),
        ({"every": 1e-9}, "--every: must be at least 0.001 seconds, got 1e-09"),
        ({"every": float("nan")}, "--every: must be at least 0.001 seconds, got nan"),
        ({"every": float("inf")}, "--every: must be at least 0.001 seconds, got inf"),
        ({"plot": Path("a.pdf"), "every": 1.0}, '--plot a.pdf: unknown format ".pdf"'),
        ({"plot": Path("a.png"), "every": 1.0}, "--plot: needs a single video file, --every, and no --stream"),
        ({"save": Path(__file__)}, f"--save {__file__}: not a folder"),
        ({"save": Path(__file__).parent}, f"--save {Path(__file__).parent}: the folder is not empty"),
        ({"save": Path("new"), "inputs": ["rtsp://a/b"]}, "--save new: saves pictures and videos from files, not rtsp"),
        ({"reconnect": 3}, "--reconnect: "),
        ({"reconnect": -1, "inputs": ["rtsp://a/b"]}, "--reconnect: must be at least 0, got -1"),
        ({"output": Path("a.txt")}, '--output a.txt: unknown format ".txt"'),
        ({"inputs": []}, "predict: no input is given"),
    ],
)
def test_wrong_options_are_refused_before_any_work(tmp_path, options, message) -> None:
    words = options.pop("inputs", [str(grey(tmp_path / "a.png", 0))])
    with pytest.raises(UsageError) as caught:
        predict_files(tmp_path / "no bundle", words, **options)
    assert caught.value.message.startswith(message)
    assert caught.value.next_step


def test_what_is_not_a_bundle_is_refused(tmp_path) -> None:
    with pytest.raises(BundleError, match="not a bundle"):
        predict_files(tmp_path, [str(grey(tmp_path / "a.png", 0))])


def meaningless(monkeypatch: pytest.MonkeyPatch, calls: Sequence[int]) -> None:
    """Makes the answer of the inputs with these numbers, from 0 in the order of answers, NaN."""
    predict, seen = Bundle.rows, [0]

    def spoilt(self: Bundle, frames: Sequence[np.ndarray]) -> np.ndarray:
        answers = predict(self, frames)
        for row in answers:
            row[:] = np.nan if seen[0] in calls else row
            seen[0] += 1
        return answers

    monkeypatch.setattr(Bundle, "rows", spoilt)


def test_an_answer_without_meaning_is_reported_counted_and_no_row(tmp_path, bundle, capsys, monkeypatch) -> None:
    meaningless(monkeypatch, [2])
    folder = pictures(tmp_path / "in", 5)
    assert predict_files(bundle, [str(folder)], output=tmp_path / "out.csv", batch=2, device="cpu") == EXIT_DATA
    names = [Path(row["file"]).name for row in read_rows(tmp_path / "out.csv")]
    assert names == ["000.png", "001.png", "003.png", "004.png"]
    said = capsys.readouterr().err.splitlines()
    assert f"{folder / '002.png'}: the model answers nan, expected a finite number" in said
    assert f"skipped 1 of 5 inputs: {folder / '002.png'}" in said


def test_a_model_whose_answers_all_have_no_meaning_is_an_error(tmp_path, bundle, monkeypatch) -> None:
    meaningless(monkeypatch, range(9))
    with pytest.raises(DataError, match="none of the 3 inputs could be answered"):
        predict_files(bundle, [str(pictures(tmp_path / "in", 3))], output=tmp_path / "out.csv", device="cpu")
    assert not (tmp_path / "out.csv").exists()


def test_a_part_of_a_video_whose_answer_has_no_meaning_is_skipped(tmp_path, bundle, capsys, monkeypatch) -> None:
    meaningless(monkeypatch, [1])
    video = write_video(tmp_path / "a.mp4", frames=12)
    code = predict_files(bundle, [str(video)], output=tmp_path / "out.csv", every=0.5, device="cpu")
    assert code == EXIT_DATA
    assert [row["start"] for row in read_rows(tmp_path / "out.csv")] == ["0.0", "1.0"]
    said = capsys.readouterr().err.splitlines()
    assert f"{video}#t=0.500: the model answers nan, expected a finite number" in said
    assert "skipped 1 part of videos" in said


def bundle_and_run(folder: Path) -> tuple[Path, Path]:
    run = folder / "runs" / "flowers" / "2031-02-03_04-05-06"
    run.mkdir(parents=True)
    (run / "recipe.toml").write_text('name = "flowers"\n')
    (run / "best.pt").write_bytes(b"")
    return toy_bundle.write(folder / "exports" / "har"), run


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("exports/nope", "exports/har"),
        ("exports/hra", "exports/har"),
        ("runs/flowers/2031-02-03_04-05-07", "runs/flowers/2031-02-03_04-05-06"),
        ("runs/flower/2031-02-03_04-05-06", "runs/flowers/2031-02-03_04-05-06"),
        ("something", "exports/har"),
    ],
)
def test_a_model_that_does_not_exist_is_an_error_with_the_nearest_one(
    tmp_path, monkeypatch, capsys, word, near
) -> None:
    monkeypatch.chdir(tmp_path)
    bundle_and_run(tmp_path)
    assert main(["predict", "--top", "1", word, "a b.png"]) == EXIT_USAGE
    assert capsys.readouterr().err.splitlines() == [
        f"error: {word}: no such run or bundle",
        f"next:  python -m toolkit predict --top 1 {near} 'a b.png'",
    ]


def test_without_any_model_the_next_step_is_to_train_one(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["predict", "exports/nope", "a.png"]) == EXIT_USAGE
    assert capsys.readouterr().err.splitlines() == [
        "error: exports/nope: no such run or bundle",
        "next:  train a model first: python -m toolkit demo",
    ]


@pytest.mark.parametrize(("terminal", "plain", "coloured"), [(False, "", False), (True, "", True), (True, "1", False)])
def test_a_bundle_trained_on_a_sample_says_so(tmp_path, capsys, monkeypatch, terminal, plain, coloured) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", plain)
    sample = toy_bundle.write(tmp_path / "sample", sample=True)
    predict_files(sample, [str(grey(tmp_path / "a.png", 0))])
    warning = capsys.readouterr().err.splitlines()[1]
    assert "trained on SAMPLE data" in warning
    assert warning.startswith("\033[33m") is coloured


def test_a_bar_shows_how_far_it_is_with_notes_above_it(tmp_path, bundle, capsys) -> None:
    folder = pictures(tmp_path / "in", 6)
    (folder / "003.png").write_bytes(b"no picture")
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    assert predict_files(bundle, [str(folder)], output=tmp_path / "out.csv", console=console) == EXIT_DATA
    assert "6/6" in screen.getvalue()
    assert "003.png: cannot be decoded" in screen.getvalue()
    assert "003.png: cannot be decoded" not in capsys.readouterr().err


def test_no_bar_where_the_rows_are_on_the_same_terminal(tmp_path, bundle, capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True)
    assert predict_files(bundle, [str(grey(tmp_path / "a.png", 0))], console=console) == EXIT_DONE
    assert screen.getvalue() == ""


@pytest.fixture
def signalled(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Makes call `calls` of `Bundle.rows` send this process the signal `number`."""
    predict = Bundle.rows

    def arrange(number: int, calls: int) -> None:
        made = [0]

        def predict_and_signal(self: Bundle, frames: Sequence[np.ndarray]) -> np.ndarray:
            made[0] += 1
            if made[0] == calls:
                os.kill(os.getpid(), number)
            return predict(self, frames)

        monkeypatch.setattr(Bundle, "rows", predict_and_signal)

    return arrange


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, EXIT_INTERRUPTED), (signal.SIGTERM, EXIT_STOPPED)])
def test_a_signal_ends_it_and_no_file_is_written(tmp_path, bundle, capsys, signalled, number, code) -> None:
    folder = pictures(tmp_path / "in", 30)
    (tmp_path / "out.csv").write_text("before")
    signalled(number, 3)
    assert predict_files(bundle, [str(folder)], output=tmp_path / "out.csv", batch=4) == code
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"interrupted after 8 of 30 inputs; {tmp_path / 'out.csv'} is not written"
    assert (tmp_path / "out.csv").read_text() == "before"
    assert list(tmp_path.glob(".out*")) == []


def test_a_signal_during_a_table_keeps_what_was_shown(tmp_path, bundle, capsys, signalled) -> None:
    signalled(signal.SIGINT, 3)
    assert predict_files(bundle, [str(pictures(tmp_path / "in", 30))], batch=4) == EXIT_INTERRUPTED
    said = capsys.readouterr()
    assert said.err.splitlines()[-1] == "interrupted after 8 of 30 inputs"
    assert len(said.out.splitlines()) == 1 + 8


def test_a_stream_is_followed_to_its_end(tmp_path, bundle, capsys) -> None:
    write_video(tmp_path / "live.mkv", frames=16).rename(tmp_path / "live")
    with serving(tmp_path) as address:
        assert predict_files(bundle, [f"{address}/live"], top=1) == EXIT_DONE
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert all(line.startswith(f"{address}/live#t=") for line in lines[1:])
    assert lines[-1].split()[0] == f"{address}/live#t=1.500"
    assert datetime.fromisoformat(lines[-1].split()[1]).tzinfo == UTC
    assert lines[-1].split()[2] == "bright"
    begin, *_, end = said.err.splitlines()[1:]
    assert begin == f"{address}/live: Ctrl-C ends it"
    assert re.match(
        rf"{address}/live: {len(lines) - 1} answers?(, \d+ dropped)?, latency \d\.\d+ s in the median, ", end
    )


def test_ctrl_c_is_how_a_stream_ends_and_its_file_is_written(tmp_path, bundle, monkeypatch, signalled) -> None:
    endless = (LiveFrame(n / 10, lambda: np.zeros((9, 9, 3), np.uint8), begins=n == 0) for n in range(10**9))
    monkeypatch.setattr(live, "live_frames", lambda *arguments: endless)
    signalled(signal.SIGINT, 5)
    assert predict_files(bundle, ["rtsp://me:secret@yard/1"], output=tmp_path / "out.csv") == EXIT_DONE
    rows = read_rows(tmp_path / "out.csv")
    assert len(rows) == 4
    assert all(row["file"] == f"rtsp://yard/1#t={float(row['start']):.3f}" for row in rows)


def test_what_a_stream_answered_before_it_was_lost_is_kept_and_summed_up(tmp_path, bundle, capsys, monkeypatch) -> None:
    def lost(*arguments):
        yield LiveFrame(0.0, lambda: np.zeros((9, 9, 3), np.uint8), begins=True)
        raise DataError("rtsp://yard/1: the connection was lost", next_step="see that it is on")

    monkeypatch.setattr(live, "live_frames", lost)
    with pytest.raises(DataError, match="the connection was lost"):
        predict_files(bundle, ["rtsp://yard/1"], output=tmp_path / "out.csv")
    assert len(read_rows(tmp_path / "out.csv")) == 1
    assert "rtsp://yard/1: 1 answer, latency" in capsys.readouterr().err


def test_a_stream_that_never_came_is_an_error(tmp_path, bundle) -> None:
    with serving(tmp_path) as address, pytest.raises(DataError, match="live: cannot be opened: "):
        predict_files(bundle, [f"{address}/live"], output=tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def loaded(code: str, *words: str) -> set[str]:
    """Top-level packages that Python loads for `code`."""
    timed = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code, *words], capture_output=True, text=True, check=True
    ).stderr
    lines = [line for line in timed.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().split(".")[0] for line in lines}


PREDICT = "import sys; from pathlib import Path; from toolkit.serving.predict import predict_files; " + (
    "sys.exit(predict_files(Path(sys.argv[1]), sys.argv[2:], device='cpu'))"
)
NEVER = {"torch", "torchvision", "pydantic", "rich", "pyarrow", "onnx", "sklearn", "matplotlib"}


def test_nothing_is_loaded_that_is_not_needed(tmp_path, bundle) -> None:
    for_image = loaded(PREDICT, str(bundle), str(grey(tmp_path / "a.png", 0)))
    assert {"PIL", "onnxruntime"} <= for_image
    assert for_image & (NEVER | {"av"}) == set()
    for_video = loaded(PREDICT, str(bundle), str(write_video(tmp_path / "a.mp4")))
    assert "av" in for_video
    assert for_video & NEVER == set()
    clips = toy_bundle.write(tmp_path / "clips", clip=Clip(frames=2, fps=10))
    for_clips = loaded(PREDICT, str(clips), str(tmp_path / "a.mp4"))
    assert for_clips & NEVER == set()
    assert loaded(PREDICT.replace("'cpu'", "'cpu', stream=True"), str(clips), str(tmp_path / "a.mp4")) & NEVER == set()


def test_sampling_is_the_bundles(tmp_path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=15)
    probabilities = []
    for views in (1, 15):
        made = toy_bundle.write(tmp_path / f"views{views}", sampling=FrameSampling(views))
        predict_files(made, [str(path)], output=tmp_path / f"{views}.csv", device="cpu")
        (row,) = read_rows(tmp_path / f"{views}.csv")
        probabilities.append(float(row["probability_1"]))
    assert probabilities[0] != pytest.approx(probabilities[1], abs=1e-3)


def test_noise_of_any_size_is_answered(tmp_path, bundle) -> None:
    for number, (height, width) in enumerate([(1, 1), (1, 90), (90, 1), (16, 16), (17, 15), (300, 40)]):
        write_image(tmp_path / f"in/{number}.png", number, height=height, width=width)
    assert predict_files(bundle, [str(tmp_path / "in")], output=tmp_path / "out.csv") == EXIT_DONE
    assert len(read_rows(tmp_path / "out.csv")) == 6


# Numbers


def numbers_of(tmp_path: Path) -> Path:
    return toy_bundle.write(tmp_path / "ages", classes=("age", "height"), numbers=True)


def test_numbers_are_a_table_under_the_names_of_their_outputs(tmp_path, capsys) -> None:
    grey(tmp_path / "a.png", 60)
    assert predict_files(numbers_of(tmp_path), [str(tmp_path / "a.png")], device="cpu", top=1) == EXIT_DONE
    head, row = (line.split() for line in capsys.readouterr().out.splitlines())
    assert head == ["file", "age", "height"]
    assert row == [str(tmp_path / "a.png"), "60", "120"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_numbers_are_columns_of_files(tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"out.{suffix}"
    sources = [str(grey(tmp_path / f"{level}.png", level)) for level in (60, 61)]
    assert predict_files(numbers_of(tmp_path), sources, output=output, device="cpu") == EXIT_DONE
    rows: list[dict[str, Any]] = read_rows(output) if suffix == "csv" else [
        json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()
    ]  # fmt: skip
    assert [*rows[0]] == ["file", "prediction_age", "prediction_height"]
    assert [float(row["prediction_height"]) for row in rows] == [120, 122]


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_the_number_of_a_video_is_the_mean_over_its_views(average) -> None:
    views = np.array([[1.0, -5.0], [3.0, 5.0]], np.float32)
    assert average_views(views, average, "number").tolist() == [2.0, 0.0]
