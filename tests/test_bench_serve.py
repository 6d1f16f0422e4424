"""The clients of `bench serve`, against a server of a toy bundle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from bench.clients import LOST, asked, post, uploading
from bench.load import cpu_seconds_of
from bench.serve import Server
from tests import model_server, toy_bundle
from tests.serving.server.test_uploads import png
from toolkit.serving.server.settings import Limits, Settings


def test_each_request_is_answered_and_counted(tmp_path: Path) -> None:
    bundle, request = toy_bundle.write(tmp_path / "toy"), tmp_path / "request"
    request.write_bytes(uploading("/v1/predict", "a.png", "image/png", png(250)))
    with model_server.running([bundle], Settings(port=0)) as server:
        found = asked(server.port, request.read_bytes(), 4, 30)
        line = [sys.executable, "-m", "bench.clients", str(server.port), str(request), "3", "2"]
        said = json.loads(subprocess.run(line, check=True, capture_output=True, text=True, timeout=60).stdout)
    assert found["statuses"] == {"200": 30}
    assert said["statuses"] == {"200": 2}
    assert 0 < float(str(found["p50"])) <= float(str(found["p99"])) <= float(str(found["seconds"]))


def test_a_connection_that_the_server_ends_is_opened_again(tmp_path: Path) -> None:
    body = bytes(3 << 20)
    request = post("/v2/models/toy/infer", body, {"Content-Type": "application/octet-stream"})
    with model_server.running([toy_bundle.write(tmp_path / "toy")], Settings(port=0, limits=Limits(body=9))) as server:
        statuses = asked(server.port, request, 2, 6)["statuses"]
    assert isinstance(statuses, dict)
    assert sum(statuses.values()) == 6
    assert set(statuses) <= {"413", LOST}


def test_more_clients_than_may_wait_add_answers_of_status_429_alone(tmp_path: Path) -> None:
    request = uploading("/v1/predict", "a.png", "image/png", png(250))
    settings = Settings(port=0, delay=0.05, batch=8, limits=Limits(waiting=4))
    with model_server.running([toy_bundle.write(tmp_path / "toy")], settings) as server:
        statuses = asked(server.port, request, 8, 400)["statuses"]
    assert isinstance(statuses, dict)
    assert statuses.keys() == {"200", "429"}


def test_the_cpu_time_of_a_process_is_that_of_its_threads_and_children() -> None:
    def work() -> None:
        sum(range(3_000_000))

    before = cpu_seconds_of(os.getpid())
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    between = cpu_seconds_of(os.getpid())
    subprocess.run([sys.executable, "-c", "sum(range(3_000_000))"], check=True)
    assert before < between < cpu_seconds_of(os.getpid())
    assert cpu_seconds_of(2**30) == 0


def test_a_paused_server_stands_still_and_goes_on() -> None:
    line = [sys.executable, "-c", "while True: pass"]
    with subprocess.Popen(line, start_new_session=True) as process:
        try:
            with Server(port=0, process=process.pid).paused():
                assert os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            assert os.waitid(os.P_PID, process.pid, os.WCONTINUED)
        finally:
            process.kill()
