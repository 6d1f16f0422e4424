"""`predict` with a bundle of clips: videos as a whole, as timelines and as they are played."""

from __future__ import annotations

import csv
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import toy_bundle
from tests.loopback import serving
from tests.plugins.data_files import write_video
from tests.serving.predict.test_live import Lockstep
from toolkit.api.clips import Clip, duration, evaluation_clips, window_starts
from toolkit.api.errors import EXIT_DATA, EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, DataError, UsageError
from toolkit.cli.main import main
from toolkit.data.decoding import read_frames, timeline
from toolkit.serving.bundle import Bundle, ClipSampling
from toolkit.serving.bundle.views import average_views
from toolkit.serving.predict import live, predict_files
from toolkit.serving.predict.following import Delays, Smoothing
from toolkit.serving.predict.reconnecting import LiveFrame
from toolkit.serving.predict.windows import windows

CLIP = Clip(frames=3, rate=2, fps=10, clips=2, crops=3)
EVERY = 0.25


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return toy_bundle.write(tmp_path / "toy", clip=CLIP)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """1.6 seconds that grow brighter."""
    return write_video(tmp_path / "video.mp4", frames=16)


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def bright(row: dict[str, str]) -> float:
    """The probability of the class "bright", of rows that have both."""
    return float(row["probability_1"] if row["class_1"] == "bright" else row["probability_2"])


def answered(bundle: Path, video: Path, clips: list[list[int]], crops: int = 3) -> list[np.ndarray]:
    """What the bundle says to each of these clips, averaged over crops: the long way round."""
    opened = Bundle.load(bundle, device="cpu")
    line = timeline(video)
    frames = [opened.squares(frame, crops) for frame in read_frames(video, line, range(len(line.times)))]
    cut = [[np.stack([frames[number][crop] for number in numbers]) for crop in range(crops)] for numbers in clips]
    return [opened.predict(np.stack(views)).probabilities.mean(0) for views in cut]


def test_the_answer_to_a_video_is_the_mean_over_the_views_of_the_protocol(tmp_path, bundle, video) -> None:
    assert predict_files(bundle, [str(video)], output=tmp_path / "out.csv", device="cpu") == EXIT_DONE
    clips = evaluation_clips(CLIP, timeline(video).times)
    assert len(clips) == 2
    (row,) = read_rows(tmp_path / "out.csv")
    assert row.keys() == {"file", "class_1", "probability_1", "class_2", "probability_2"}
    assert bright(row) == pytest.approx(np.mean(answered(bundle, video, clips), axis=0)[1], abs=1e-6)


def test_logits_are_averaged_where_the_protocol_says_so(tmp_path, video) -> None:
    clip = Clip(frames=3, rate=2, fps=10, clips=4, average="logits")
    bundle = toy_bundle.write(tmp_path / "logits", clip=clip)
    predict_files(bundle, [str(video)], output=tmp_path / "out.csv", device="cpu")
    views = np.stack(answered(bundle, video, evaluation_clips(clip, timeline(video).times), crops=1))
    (row,) = read_rows(tmp_path / "out.csv")
    assert bright(row) == pytest.approx(average_views(views, "logits")[1], abs=1e-5)
    assert bright(row) != pytest.approx(views.mean(0)[1], abs=1e-3)


@pytest.mark.parametrize("batch", [None, 1, 5])
def test_videos_of_any_number_keep_their_order(tmp_path, bundle, batch) -> None:
    for number in range(7):
        write_video(tmp_path / f"in/{number}.mp4", frames=1 + 2 * number, shade=5 * number)
    words = [str(tmp_path / "in")]
    assert predict_files(bundle, words, output=tmp_path / "out.csv", batch=batch, device="cpu") == EXIT_DONE
    rows = read_rows(tmp_path / "out.csv")
    assert [Path(row["file"]).name for row in rows] == [f"{number}.mp4" for number in range(7)]
    for row in rows:
        clips = evaluation_clips(CLIP, timeline(Path(row["file"])).times)
        wanted = np.mean(answered(bundle, Path(row["file"]), clips), axis=0)[1]
        assert bright(row) == pytest.approx(wanted, abs=1e-6)


def test_an_image_is_not_a_clip(tmp_path, bundle, video, capsys) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    assert predict_files(bundle, [str(tmp_path / "a.png"), str(video)], device="cpu") == EXIT_DATA
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 2
    assert f"{tmp_path / 'a.png'}: an image, but this bundle takes video clips" in said.err.splitlines()
    with pytest.raises(DataError, match="none of the 1 input could be answered"):
        predict_files(bundle, [str(tmp_path / "a.png")], device="cpu")


def test_a_video_behind_a_url_is_answered_as_the_file(tmp_path, bundle, video) -> None:
    with serving(tmp_path) as address:
        predict_files(bundle, [str(video), f"{address}/video.mp4"], output=tmp_path / "out.csv", device="cpu")
    here, there = read_rows(tmp_path / "out.csv")
    assert bright(here) == pytest.approx(bright(there), abs=1e-6)


# Timelines


def starts(video: Path, span: float = CLIP.span, every: float = EVERY) -> list[float]:
    return list(window_starts(duration(timeline(video).times), span, every))


@pytest.mark.parametrize("batch", [None, 2])
def test_a_timeline_has_a_row_for_every_window(tmp_path, bundle, video, batch) -> None:
    out = tmp_path / "out.csv"
    assert predict_files(bundle, [str(video)], output=out, every=EVERY, batch=batch, device="cpu") == EXIT_DONE
    rows, wanted = read_rows(out), starts(video)
    assert len(wanted) == 5
    assert [row["file"] for row in rows] == [f"{video}#t={start:.3f},{start + 0.6:.3f}" for start in wanted]
    assert [float(row["start"]) for row in rows] == wanted
    assert [float(row["end"]) for row in rows] == pytest.approx([start + 0.6 for start in wanted])
    rule = windows(ClipSampling(CLIP, CLIP.span), EVERY)
    clips = [rule.numbers(timeline(video).times, start) for start in wanted]
    assert [bright(row) for row in rows] == pytest.approx([row[1] for row in answered(bundle, video, clips)], abs=1e-6)


def test_windows_of_segments_are_as_long_as_training_videos(tmp_path, video) -> None:
    clip = Clip(frames=4, sampling="segments")
    bundle = toy_bundle.write(tmp_path / "segments", clip=clip, sampling=ClipSampling(clip, 0.8))
    predict_files(bundle, [str(video)], output=tmp_path / "out.csv", every=0.4, device="cpu")
    rows = read_rows(tmp_path / "out.csv")
    assert [float(row["end"]) - float(row["start"]) for row in rows] == pytest.approx([0.8] * 3)
    clips = [[start + place for place in (1, 3, 5, 7)] for start in (0, 4, 8)]
    wanted = [row[1] for row in answered(bundle, video, clips, crops=1)]
    assert [bright(row) for row in rows] == pytest.approx(wanted, abs=1e-6)


def test_a_short_video_has_one_window(tmp_path, bundle) -> None:
    video = write_video(tmp_path / "short.mp4", frames=3)
    predict_files(bundle, [str(video)], output=tmp_path / "out.csv", every=EVERY, device="cpu")
    (row,) = read_rows(tmp_path / "out.csv")
    assert bright(row) == pytest.approx(answered(bundle, video, [[0, 2, 1]])[0][1], abs=1e-6)


def test_a_model_of_images_answers_a_frame_every_so_many_seconds(tmp_path, video) -> None:
    bundle = toy_bundle.write(tmp_path / "images")
    predict_files(bundle, [str(video)], output=tmp_path / "out.csv", every=0.5, device="cpu")
    rows = read_rows(tmp_path / "out.csv")
    assert [row["file"] for row in rows] == [f"{video}#t={start:.3f}" for start in (0, 0.5, 1, 1.5)]
    opened = Bundle.load(bundle, device="cpu")
    frames = [opened.square(frame) for frame in read_frames(video, timeline(video), [0, 5, 10, 15])]
    wanted = opened.predict(frames).probabilities[:, 1]
    assert [bright(row) for row in rows] == pytest.approx(wanted.tolist(), abs=1e-6)


def test_timelines_of_many_sources_come_one_after_the_other(tmp_path, bundle, video, capsys) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    words = [str(video), str(tmp_path / "a.png"), str(tmp_path / "broken.mp4"), str(tmp_path / "gone.mp4"), str(video)]
    out = tmp_path / "out.csv"
    assert predict_files(bundle, words, output=out, every=EVERY, device="cpu") == EXIT_DATA
    assert [float(row["start"]) for row in read_rows(out)] == starts(video) * 2
    said = capsys.readouterr().err.splitlines()
    assert said[1] == f"{tmp_path / 'a.png'}: an image, which has no timeline"
    assert said[2].startswith(f"{tmp_path / 'broken.mp4'}: cannot be decoded: ")
    assert said[3].startswith(f"{tmp_path / 'gone.mp4'}: no such file or folder")
    assert said[4].startswith("2 inputs answered (10 answers) in ")
    assert said[7].startswith(f"skipped 3 of 5 inputs: {tmp_path / 'a.png'}, {tmp_path / 'broken.mp4'}, ")
    assert said[8:] == [f"{out}: 10 rows"]


def test_a_signal_ends_a_timeline(tmp_path, bundle, video, monkeypatch, capsys, decoding) -> None:
    predict, made = Bundle.rows, [0]

    def predict_and_signal(self, frames):
        made[0] += 1
        if made[0] == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return predict(self, frames)

    monkeypatch.setattr(Bundle, "rows", predict_and_signal)
    out = tmp_path / "out.csv"
    assert predict_files(bundle, [str(video)] * 9, output=out, every=0.05, device="cpu") == EXIT_INTERRUPTED
    assert not out.exists()
    assert "of 9 inputs" in capsys.readouterr().err
    assert decoding() == 0


# Streams


def lockstep(video: Path, count: Callable[[], int]) -> Lockstep:
    """A clock that shows a frame when all windows before it are answered."""
    rule = windows(ClipSampling(CLIP, CLIP.span), EVERY)
    complete = [start + rule.reach for start in starts(video)]
    return Lockstep(lambda seconds: count() >= sum(moment < seconds - 0.11 for moment in complete))


def test_a_file_streamed_gives_the_windows_and_answers_of_its_timeline(tmp_path, bundle, video, monkeypatch) -> None:
    """Before they are smoothed."""
    asked: list[np.ndarray] = []
    predict = Bundle.rows
    clock = lockstep(video, lambda: len(asked))

    def noted(self, frames):
        answers = predict(self, frames)
        with clock.changed:
            asked.append(answers.mean(0))
            clock.changed.notify_all()
        return answers

    predict_files(bundle, [str(video)], output=tmp_path / "whole.csv", every=EVERY, device="cpu")
    monkeypatch.setattr(Bundle, "rows", noted)
    out = tmp_path / "out.csv"
    assert predict_files(bundle, [str(video)], output=out, every=EVERY, stream=True, device="cpu", clock=clock) == 0
    whole, played = read_rows(tmp_path / "whole.csv"), read_rows(out)
    assert [row["file"] for row in played] == [row["file"] for row in whole]
    assert [row[1] for row in asked] == pytest.approx([bright(row) for row in whole], abs=1e-6)
    smoothing = Smoothing(CLIP.span)
    smooth = [smoothing.add(row, float(one["end"]))[1] for row, one in zip(asked, played, strict=True)]
    assert [bright(row) for row in played] == pytest.approx(smooth, abs=1e-6)


def test_what_is_played_says_how_late_its_answers_come(tmp_path, bundle, video, capsys) -> None:
    clock = Lockstep()
    out = tmp_path / "out.csv"
    assert predict_files(bundle, [str(video)], output=out, every=9.0, stream=True, device="cpu", clock=clock) == 0
    begin, *_, end, rows = capsys.readouterr().err.splitlines()[1:]
    assert begin == f"{video}: Ctrl-C ends it"
    assert end.startswith(f"{video}: 1 answer, latency ")
    assert rows == f"{out}: 1 new row"
    assert len(read_rows(out)) == 1


def test_a_stream_of_clips_is_answered_twice_a_span(tmp_path, bundle, monkeypatch) -> None:
    def shown(*arguments):
        for number in range(12):
            yield LiveFrame(number / 10, lambda: np.zeros((20, 30, 3), np.uint8), begins=number == 0)
            if number in (4, 7, 10):  # each completes a window
                assert taken.wait(30)
                taken.clear()

    taken = threading.Event()
    predict = Bundle.rows

    def noted(self, frames):
        taken.set()
        return predict(self, frames)

    monkeypatch.setattr(live, "live_frames", shown)
    monkeypatch.setattr(Bundle, "rows", noted)
    assert predict_files(bundle, ["rtsp://yard/1"], output=tmp_path / "out.csv", device="cpu") == EXIT_DONE
    rows = read_rows(tmp_path / "out.csv")
    assert [row["file"].partition("#t=")[2] for row in rows] == ["0.000,0.600", "0.300,0.900", "0.600,1.200"]


def test_a_stream_follows_one_video(tmp_path, bundle, video) -> None:
    with pytest.raises(UsageError, match="--stream: expected one input, got 2"):
        predict_files(bundle, [str(video)] * 2, stream=True)
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    with pytest.raises(UsageError, match=r"--stream: .*a\.png is an image"):
        predict_files(bundle, [str(tmp_path / "a.png")], stream=True)


def test_smoothing_forgets_with_time() -> None:
    sure, other = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
    smoothing = Smoothing(2.0)
    assert smoothing.add(sure, 5.0).tolist() == [1, 0]
    assert smoothing.add(other, 7.0) == pytest.approx([np.exp(-1), 1 - np.exp(-1)])
    assert smoothing.add(other, 1000.0) == pytest.approx([0, 1])
    still = Smoothing(0.0)
    still.add(sure, 0.0)
    assert still.add(other, 0.1).tolist() == [0, 1]


def test_delays_are_summed_up() -> None:
    delays = Delays()
    for seconds in (0.1, 0.9, 0.2):
        delays.add(seconds)
    assert str(delays) == "latency 0.200 s in the median, 0.900 s at most"
    assert delays.count == 3


# The picture of a timeline


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_timeline_is_drawn(tmp_path, bundle, video, suffix) -> None:
    plot = tmp_path / f"a.{suffix}"
    words = ["predict", str(bundle), str(video), "--every", "0.1", "--plot", str(plot), "--device", "cpu"]
    assert main(words) == EXIT_DONE
    if suffix == "png":
        with Image.open(plot) as picture:
            assert picture.size == (1500, 540)
            assert len(picture.convert("RGB").getcolors(1 << 20) or ()) > 10
    else:
        assert "<svg" in plot.read_text(encoding="utf-8")
    again = plot.read_bytes()
    assert main(words) == EXIT_DONE
    assert plot.read_bytes() == again


def test_answers_are_kept_where_the_plot_cannot_be_drawn(tmp_path, bundle, video) -> None:
    (tmp_path / "file").touch()
    rows, plot = tmp_path / "a.csv", tmp_path / "file" / "a.png"
    words = ["predict", str(bundle), str(video), "--every", "0.1", "--output", str(rows), "--plot", str(plot)]
    assert main([*words, "--device", "cpu"]) == EXIT_FAILED
    assert len(rows.read_text(encoding="utf-8").splitlines()) > 2


def test_the_plot_of_a_sample_says_so(tmp_path, video) -> None:
    pytest.importorskip("matplotlib")
    from toolkit.serving.predict.inputs import Source
    from toolkit.serving.predict.plot import CLASSES, Timelines, likeliest

    timelines = Timelines([f"class {number} $x$" for number in range(9)])
    rows = np.random.default_rng(0).dirichlet(np.ones(9), 4).astype(np.float32)
    for place, row in enumerate(rows):
        timelines.add(Source("a.mp4", "video", "a.mp4", moment=(place, place + 2.0)), row)
    axes = timelines._figure(sample=True).axes[0]
    assert "SAMPLE" in axes.get_title(loc="left")
    assert len(axes.lines) == CLASSES
    best = likeliest(rows)
    assert axes.lines[0].get_label() == f"class {best[0]} $x$"
    assert axes.lines[0].get_xdata().tolist() == [1, 2, 3, 4]
    assert rows[:, best[0]].max() == rows.max()
    timelines.draw(tmp_path / "a.png", sample=True)


def test_the_plot_of_sets_shows_thresholds_and_the_classes_that_are_above_them() -> None:
    pytest.importorskip("matplotlib")
    from toolkit.serving.predict.inputs import Source
    from toolkit.serving.predict.plot import CLASSES, Timelines

    thresholds = [0.95] * 8 + [0.1]  # the last is the only one that is present, and the least probable
    timelines = Timelines([f"class {number}" for number in range(9)], thresholds)
    for place in range(3):
        row = np.linspace(0.9, 0.2, 9, dtype=np.float32)
        timelines.add(Source("a.mp4", "video", "a.mp4", moment=(place, place + 2.0)), row)
    axes = timelines._figure(sample=False).axes[0]
    shown = [line for line in axes.lines if line.get_label().startswith("class")]
    dotted = [line for line in axes.lines if line.get_linestyle() == ":" and len(line.get_xdata())]
    assert [len(shown), len(dotted)] == [CLASSES, CLASSES]
    assert shown[0].get_label() == "class 8"
    assert [line.get_ydata()[0] for line in dotted] == [0.1, *[0.95] * 4]
    assert [line.get_color() for line in dotted] == [line.get_color() for line in shown]
    assert "threshold" in [text.get_text() for text in axes.get_legend().get_texts()]


@pytest.mark.parametrize("stream", [False, True])
def test_windows_are_answered_with_sets(tmp_path, video, stream) -> None:
    bundle = toy_bundle.write(tmp_path / "sets", clip=CLIP, classes="abc", thresholds=(0.5, 0.5, 0.6))
    given = {"stream": True, "clock": Lockstep()} if stream else {"plot": tmp_path / "a.svg"}
    out = tmp_path / "a.csv"
    assert predict_files(bundle, [str(video)], output=out, every=EVERY, device="cpu", top=3, **given) == EXIT_DONE
    found = read_rows(out)
    for row in found:
        by_name = {row[f"class_{rank}"]: float(row[f"probability_{rank}"]) for rank in (1, 2, 3)}
        named = [name for name, least in zip("abc", (0.5, 0.5, 0.6), strict=True) if by_name[name] >= least]
        assert row["prediction"] == "|".join(named)
    assert len({row["prediction"] for row in found}) > (not stream)  # of a stream, windows are dropped


@pytest.mark.parametrize(
    "words",
    [["--plot", "a.png"], ["--every", "1", "--stream", "--plot", "a.png"]],
)
def test_a_plot_needs_a_timeline(bundle, video, capsys, words) -> None:
    assert main(["predict", str(bundle), str(video), *words]) == 2
    said = capsys.readouterr().err
    assert "--plot: needs a single video file, --every, and no --stream" in said
    assert "--every 1 --plot timeline.png" in said


def test_a_folder_is_not_a_plot(tmp_path, bundle, video) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(UsageError, match=r"--plot .*a\.png: expected a file, got a folder"):
        predict_files(bundle, [str(video)], every=1.0, plot=tmp_path / "a.png")
