"""Streams that last: lost, opened again and answered, over real connections of this machine; and what a kill leaves."""

from __future__ import annotations

import csv
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests import toy_bundle
from tests.live_servers import Act, acting, answers, closes, plays, plays_rtsp, resets, stalls, transport
from tests.loopback import serving
from toolkit.api.clips import Clip
from toolkit.api.errors import EXIT_DATA, EXIT_DONE, DataError
from toolkit.serving.bundle import Bundle
from toolkit.serving.predict import connection, live, predict_files, reconnecting, sources
from toolkit.serving.predict.clock import Clock
from toolkit.serving.predict.following import Smoothing
from toolkit.serving.predict.reconnecting import LiveFrame

CLIP = Clip(frames=3, rate=3, fps=30)
EVERY = 0.2
DROPS = 10


class Hurried(Clock):
    """A clock that does not wait, but goes on as if it had."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def now(self) -> float:
        return super().now() + self._ahead

    def wait_until(self, moment: float, stop: threading.Event) -> None:
        self._ahead += max(moment - self.now(), 0)

    def date(self, moment: float) -> datetime:
        return datetime.fromtimestamp(moment, UTC)


def read(output: Path) -> list[dict[str, str]]:
    with output.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def until(seen: Callable[[], bool]) -> None:
    """Wait for another thread or process."""
    end = time.monotonic() + 60
    while not seen():
        assert time.monotonic() < end
        time.sleep(0.01)


def lines(output: Path) -> int:
    return output.read_bytes().count(b"\n") if output.exists() else 0


WAIT = 5.0
"""Seconds to the first attempt, far longer than a part of the streams here."""


def parts(output: Path) -> int:
    """How many parts of a stream the rows of a file are of."""
    starts = [float(row["start"]) for row in read(output)] if output.exists() else []
    return sum(later - start > WAIT / 2 for start, later in pairwise(starts)) + bool(starts)


def once_answered(output: Path, number: int, then: Act) -> Act:
    """Do the act once a part of this number has a row."""

    def act(connection: socket.socket) -> None:
        until(lambda: parts(output) >= number)
        then(connection)

    return act


def interrupts(connection: socket.socket) -> None:
    """Press Ctrl-C, and keep the connection until that ends it."""
    os.kill(os.getpid(), signal.SIGINT)
    stalls(connection)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (sources, connection):
        monkeypatch.setattr(module, "READING_SECONDS", 0.5)
    monkeypatch.setattr(sources, "OPENING_SECONDS", 0.5)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_stream_that_drops_ten_times_keeps_answering(
    tmp_path: Path, scheme: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconnecting, "FIRST_WAIT", WAIT)
    data, output = transport(tmp_path / "a.ts", 15), tmp_path / "live.csv"
    bundle = toy_bundle.write(tmp_path / "clips", clip=CLIP)
    playing = plays_rtsp if scheme == "rtsp" else plays
    drops: list[Act] = [closes, resets, stalls]
    failures = (
        [closes] if scheme == "rtsp" else [closes, answers("503 Busy"), answers("200 OK", b"<html>log in</html>")]
    )
    script: list[Act] = []
    for number in range(DROPS):
        script += [
            playing(data, once_answered(output, number + 1, drops[number % 3])),
            failures[number % len(failures)],
        ]
    with acting([*script, playing(data, once_answered(output, DROPS + 1, interrupts))], scheme) as address:
        code = predict_files(bundle, [address], output=output, every=EVERY, device="cpu", clock=Hurried())
    assert code == EXIT_DONE
    rows, said = read(output), capsys.readouterr().err.splitlines()
    assert sum(line.startswith(f"{address}: open again, after ") for line in said) == DROPS
    assert any(re.search(r", lost 1[0-9] times, \d+ s without a picture, ", line) for line in said)
    assert parts(output) == DROPS + 1
    starts = [float(row["start"]) for row in rows]
    assert starts == sorted(set(starts))
    moments = [datetime.fromisoformat(row["time"]) for row in rows]
    assert moments == sorted(moments)
    assert said[-1] == f"{output}: {len(rows)} new rows"


def test_each_part_of_a_stream_has_a_mean_of_its_own() -> None:
    smoothing, first, second = Smoothing(2.0), np.array([1.0, 0.0], np.float32), np.array([0.0, 1.0], np.float32)
    smoothing.add(first, 1.0, 1)
    assert smoothing.add(second, 1.5, 1)[0] > 0.5
    assert smoothing.add(second, 1.6, 2).tolist() == [0, 1]


def test_a_url_of_a_transport_stream_is_live_unless_it_states_a_length(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, bundle = transport(tmp_path / "a.ts", 30), toy_bundle.write(tmp_path / "clips", clip=CLIP)
    with serving(tmp_path) as address:
        assert predict_files(bundle, [f"{address}/a.ts"], output=tmp_path / "file.csv", every=EVERY) == EXIT_DONE
    assert [float(row["start"]) for row in read(tmp_path / "file.csv")][:3] == [0, 0.2, 0.4]
    assert "time" not in read(tmp_path / "file.csv")[0]
    assert "Ctrl-C" not in capsys.readouterr().err
    with acting([plays(data), plays(data)]) as address:
        place, output = f"{address}.ts?channel=1", tmp_path / "live.csv"
        assert predict_files(bundle, [place], output=output, every=EVERY, reconnect=0) == EXIT_DONE
    assert read(output)[0]["time"]
    assert f"{place}: Ctrl-C ends it" in capsys.readouterr().err


KILLED = """
import sys
from pathlib import Path
from toolkit.serving.predict import predict_files
from toolkit.serving.predict.job import PredictionJob

add = PredictionJob.add

def decided(self, rows, source, answer):
    add(self, rows, source, answer)
    print(source.moment[0], flush=True)

PredictionJob.add = decided
predict_files(Path(sys.argv[1]), [sys.argv[2]], output=Path(sys.argv[3]), every=0.01, reconnect=0, device="cpu")
"""


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_kill_leaves_every_row_that_was_decided(tmp_path: Path, suffix: str) -> None:
    bundle, output = toy_bundle.write(tmp_path / "toy"), tmp_path / f"live.{suffix}"
    data = transport(tmp_path / "a.ts", 400, rate=25)
    first, gone = len(data) // 2, threading.Event()  # so much that FFmpeg opens it

    def trickles(connection: socket.socket) -> None:
        for start in range(first, len(data), 2000):
            before = lines(output)
            connection.sendall(data[start : start + 2000])
            until(lambda before=before: lines(output) > before or gone.is_set())  # type: ignore[misc]
        stalls(connection)

    with acting([plays(data[:first], trickles)]) as address:
        words = [sys.executable, "-c", KILLED, str(bundle), address, str(output)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            decided = [float(process.stdout.readline()) for _ in range(25)]
            process.kill()
            gone.set()
            decided += [float(line) for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    text = output.read_text(encoding="utf-8")
    assert text.endswith("\n")
    kept = read(output) if suffix == "csv" else text.splitlines()
    assert len(kept) - len(decided) in (0, 1)
    if suffix == "csv":
        assert [float(row["start"]) for row in kept][: len(decided)] == pytest.approx(decided, abs=1e-3)


def endless(level: Callable[[int], int] = lambda _: 0) -> Callable[..., Iterator[LiveFrame]]:
    """Stands in for `live_frames`: grey frames, ten a second."""

    def frames(*arguments: object) -> Iterator[LiveFrame]:
        for number in range(10**9):
            grey = np.full((9, 9, 3), level(number), np.uint8)
            yield LiveFrame(number / 10, lambda grey=grey: grey, begins=number == 0)  # type: ignore[misc]

    return frames


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_stream_with_its_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    bundle, output, predict, made = toy_bundle.write(tmp_path / "toy"), tmp_path / "live.csv", Bundle.rows, [0]

    def predict_and_signal(self: Bundle, frames: list[np.ndarray]) -> np.ndarray:
        made[0] += 1
        if made[0] == 5:
            os.kill(os.getpid(), number)
        return predict(self, frames)

    monkeypatch.setattr(live, "live_frames", endless())
    monkeypatch.setattr(Bundle, "rows", predict_and_signal)
    assert predict_files(bundle, ["rtsp://yard/1"], output=output, device="cpu") == EXIT_DONE
    assert len(read(output)) == 4
    said = capsys.readouterr().err
    assert "classes: dark 4" in said
    assert f"{output}: 4 new rows" in said


def test_answers_without_meaning_are_skipped_and_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, output, made = toy_bundle.write(tmp_path / "toy"), tmp_path / "live.csv", [0]

    def predict(self: Bundle, frames: list[np.ndarray]) -> np.ndarray:
        made[0] += 1
        if made[0] == 8:
            os.kill(os.getpid(), signal.SIGINT)
        return np.array([[0.25, np.nan if 3 <= made[0] <= 5 else 0.75]], np.float32)

    monkeypatch.setattr(live, "live_frames", endless())
    monkeypatch.setattr(Bundle, "rows", predict)
    assert predict_files(bundle, ["rtsp://yard/1"], output=output, device="cpu") == EXIT_DATA
    rows = read(output)
    assert {row["probability_1"] for row in rows} == {"0.75"}
    assert len(rows) == 4
    said = capsys.readouterr().err
    assert said.count("the model answers nan, expected a finite number") == 1
    assert ", 3 without meaning" in said


def test_connections_leave_no_files_open(tmp_path: Path) -> None:
    """Each attempt closes what it opened."""
    data, bundle = transport(tmp_path / "a.ts", 12), toy_bundle.write(tmp_path / "toy")

    def open_files(count: int) -> int:
        acts = [act for _ in range(count) for act in (plays(data), answers("503 Busy"))]
        with acting([*acts, plays(data)]) as address, pytest.raises(DataError, match="3 attempts to open it again"):
            predict_files(bundle, [address], output=tmp_path / "a.csv", device="cpu", clock=Hurried(), reconnect=3)
        assert not any(thread.name == "frames" for thread in threading.enumerate())
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    assert open_files(2) == open_files(30)
