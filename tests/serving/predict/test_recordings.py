"""`predict` with real recordings: servers that do not say how long a video is, damage, and odd clocks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests import toy_bundle
from tests.loopback import UNSIZED, serving
from tests.video_files import cut, joined, number_in, small, spoil, write_video
from toolkit.api.clips import Clip
from toolkit.api.errors import EXIT_DATA, EXIT_DONE
from toolkit.cli.main import main
from toolkit.serving.predict import predict_files
from toolkit.serving.predict.clock import Clock
from toolkit.serving.predict.inputs import Source
from toolkit.serving.predict.reconnecting import Reconnecting, live_frames
from toolkit.serving.predict.sources import timeline

CLIP = Clip(frames=2, rate=2, fps=10)
FILES = [("mp4", "mpeg4", 10), ("ts", "mpeg2video", 25), ("flv", "flv", 10), ("mkv", "libx264", 10)]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return toy_bundle.write(tmp_path / "toy", clip=CLIP)


def predicted(bundle: Path, *words: object, every: float | None = None, stream: bool = False) -> int:
    return predict_files(bundle, [str(word) for word in words], device="cpu", every=every, stream=stream)


@pytest.mark.parametrize("server", UNSIZED)
@pytest.mark.parametrize(("suffix", "codec", "rate"), FILES)
def test_the_end_of_a_body_without_a_length_is_an_end(
    tmp_path: Path, server: str, suffix: str, codec: str, rate: int
) -> None:
    path = write_video(tmp_path / f"a.{suffix}", 40, codec=codec, rate=rate)
    with serving(tmp_path, unsized=server) as address:
        place = f"{address}/{path.name}"
        assert len(timeline(Source(place, "video", place)).times) == 40
        reconnecting = Reconnecting(0, lambda _: None)
        live = live_frames(Source(place, "stream", place), Clock(), threading.Event(), reconnecting)
        frames = [frame.pixels() for frame in live]
    assert [number_in(pixels) for pixels in frames] == list(range(40))


def test_a_video_and_a_stream_without_a_length_are_answered(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "a.mp4", 40)
    write_video(tmp_path / "b.mkv", 40).rename(tmp_path / "live")
    with serving(tmp_path, unsized="HTTP/1.1, closing") as address:
        assert predicted(bundle, f"{address}/a.mp4") == EXIT_DONE
        assert predicted(bundle, f"{address}/live") == EXIT_DONE
    assert "1 input answered" in capsys.readouterr().err


@pytest.mark.parametrize("every", [None, 0.5])
def test_damaged_frames_are_counted_and_reported(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str], every: float | None
) -> None:
    bad = spoil(write_video(tmp_path / "bad.mp4", 40), range(15, 25))
    good = write_video(tmp_path / "good.mp4", 40)
    assert predicted(bundle, bad, good, every=every) == EXIT_DONE
    assert f"damaged: {bad}: 10 of 40 frames cannot be decoded\n" in capsys.readouterr().err


def test_a_played_file_reports_its_damage(tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = spoil(write_video(tmp_path / "bad.mp4", 12), [3, 4, 5])
    assert predicted(bundle, bad, stream=True) == EXIT_DONE
    assert f"damaged: {bad}: 3 of 12 frames cannot be decoded\n" in capsys.readouterr().err


def test_a_stream_reports_its_damage(tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(write_video(tmp_path / "a.avi", 20, codec="mjpeg", pix_fmt="yuvj420p"), [3, 4]).rename(tmp_path / "live")
    with serving(tmp_path) as address:
        assert predicted(bundle, f"{address}/live") == EXIT_DONE
        assert f"damaged: {address}/live: 2 of 20 frames cannot be decoded\n" in capsys.readouterr().err


def test_a_video_that_is_cut_short_reports_what_is_lost(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = cut(write_video(tmp_path / "a.mkv", 40), 0.6)
    left = len(timeline(Source(str(short), "video", str(short))).times)
    assert predicted(bundle, short) == EXIT_DONE
    assert f"damaged: {short}: {40 - left} of 40 frames cannot be decoded\n" in capsys.readouterr().err


def test_a_video_whose_last_frame_lasts_is_answered_to_its_end(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_video(tmp_path / "a.mp4", 3, times=[0, 0.5, 1.0], last=9.0)
    assert predicted(bundle, path, every=1) == EXIT_DONE
    assert "1 input answered (10 answers)" in capsys.readouterr().err


def test_all_recordings_in_a_row_are_answered(tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [write_video(tmp_path / f"{n}.ts", 50, codec="mpeg2video", rate=25) for n in range(2)]
    path = joined(tmp_path / "all.mpg", *parts)
    assert predicted(bundle, path, every=1) == EXIT_DONE
    assert "1 input answered (4 answers)" in capsys.readouterr().err


def test_a_codec_that_is_not_supported_is_refused_by_name(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_video(tmp_path / "a.avi", 8, codec="magicyuv")
    good = write_video(tmp_path / "good.mp4", 8)
    assert predicted(bundle, path, good) == EXIT_DATA
    assert 'the codec "magicyuv" is not supported; convert the video to H.264 or FFV1' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (partial(write_video, frames=8, codec="magicyuv"), 'the codec "magicyuv" is not supported; convert the video'),
        (lambda path: small(path, b"text"), "cannot be decoded: Invalid data found"),
        (lambda path: spoil(write_video(path), range(12)), "none of its frames can be decoded"),
    ],
    ids=["codec", "text", "damage"],
)
def test_a_played_file_that_gives_no_picture_is_refused_by_name(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str], write: Callable[[Path], Path], reason: str
) -> None:
    path = write(tmp_path / "a.avi")
    assert main(["predict", str(bundle), str(path), "--stream", "--every", "1", "--device", "cpu"]) == EXIT_DATA
    refused = capsys.readouterr().err.splitlines()[-2:]
    assert refused[0].startswith(f"error: {path}: {reason}")
    assert refused[1] == "next:  give another video file"
