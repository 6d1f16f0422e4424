"""`serve` as a command: what it prints, how it ends, and what it refuses."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests import model_server, toy_bundle
from tests.serving.server.test_uploads import png
from toolkit.cli.main import main
from toolkit.serving.server import command
from toolkit.serving.server.settings import Settings


@contextmanager
def serving(*words: str) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """The process of the command, its address, and what it said before it answered."""
    line = [sys.executable, "-X", "importtime", "-m", "toolkit", "serve", *words, "--port", "0", "--device", "cpu"]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"}) as process:
        said: list[str] = []
        assert process.stderr is not None
        try:
            for text in process.stderr:
                said.append(text.rstrip("\n"))
                if text.startswith("next: "):
                    yield process, said[-2].removesuffix("  (Ctrl-C ends it)"), said
                    break
            else:
                pytest.fail("\n".join(said[-20:]))
        finally:
            process.kill()


def test_sigterm_under_load_loses_no_request_and_torch_is_not_loaded(tmp_path: Path) -> None:
    """Clients that ask one request after the other: each is answered, or finds that nobody listens any more."""
    bundle = toy_bundle.write(tmp_path / "toy")
    outcomes: Counter[str] = Counter()
    busy = threading.Barrier(9)
    with serving(str(bundle), "--delay-ms", "20") as (process, url, said):
        loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in said if line.startswith("import time:")}
        assert loaded >= {"toolkit", "onnxruntime", "starlette"}
        assert loaded.isdisjoint({"torch", "torchvision", "matplotlib", "optuna", "onnx", "grpc", "pydantic"})

        def ask() -> None:
            with httpx.Client(timeout=30) as client:
                for number in range(10_000):
                    if number == 3:
                        busy.wait(30)
                    try:
                        answer = client.post(f"{url}/v1/predict", files={"file": png(250)})
                    except httpx.ConnectError:
                        outcomes["refused"] += 1
                        return
                    except httpx.TransportError as error:
                        outcomes[f"lost: {error!r}"] += 1
                        return
                    outcomes[str(answer.status_code)] += 1

        clients = [threading.Thread(target=ask) for _ in range(8)]
        for client in clients:
            client.start()
        busy.wait(30)
        process.send_signal(signal.SIGTERM)
        for client in clients:
            client.join(30)
        rest = process.stderr.read() if process.stderr else ""
        assert process.wait(30) == 0
    assert set(outcomes) == {"200", "refused"}, outcomes
    assert outcomes["refused"] == 8
    assert "stopped by a signal; requests that were accepted are answered" in rest.splitlines()


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with serving(str(toy_bundle.write(tmp_path / "toy"))) as (process, _, said):
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.readline() == "interrupted; requests that were accepted are answered\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        address = said[-2].removesuffix("  (Ctrl-C ends it)")
        assert said[-1] == f"next:  curl -F file=@photo.jpg {address}/v1/predict"


def test_clients_that_the_system_connected_as_the_server_ends_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients: list[socket.socket] = []
    with model_server.running([toy_bundle.write(tmp_path / "toy")], Settings(port=0)) as server:

        async def connect() -> None:
            """While the loop is busy, nothing is accepted; the system connects all the same."""
            for _ in range(5):
                clients.append(socket.create_connection(("127.0.0.1", server.port), timeout=30))
                clients[-1].sendall(b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")

        monkeypatch.setattr(server.application.streams, "close", connect)
    for client in clients:
        with client:
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")


def error(words: list[str], capsys: pytest.CaptureFixture[str], code: int = 2) -> list[str]:
    assert main(["serve", *words]) == code
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("words", "says", "next_step"),
    [
        (["--port", "70000"], "--port: expected a port up to 65535, got 70000", "--port 0"),
        (["--grpc-port", "-1"], "--grpc-port: expected a port up to 65535, got -1", "--grpc-port 0"),
        (["--delay-ms", "-1"], "--delay-ms: expected 0 to 10000, got -1", "use --delay-ms 2"),
        (["--max-seconds", "0"], "--max-seconds: expected a length above 0, got 0", "use --max-seconds 120"),
        (["--host", "no.such.host.invalid"], "--host no.such.host.invalid: ", "use --host 127.0.0.1"),
        (["--token", "missing.txt"], "--token missing.txt: No such file or directory", "> missing.txt"),
    ],
)
def test_a_flag_without_meaning_says_what_to_use(
    words: list[str], says: str, next_step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = error(["toy", *words], capsys)
    assert lines[0].startswith(f"error: {says}")
    assert lines[-1].startswith("next:  ")
    assert next_step in lines[-1]


def test_a_token_that_cannot_be_sent_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for content in ("", "\n", "tökén\n"):
        (tmp_path / "token").write_text(content, encoding="utf-8")
        lines = error(["toy", "--token", str(tmp_path / "token")], capsys)
        assert lines[0] == f"error: --token {tmp_path / 'token'}: expected a line of ASCII characters"


def test_the_command_that_makes_a_token_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = error(["toy", "--token", "token.txt"], capsys)
    subprocess.run(lines[-1].removeprefix("next:  "), shell=True, check=True)
    assert len((tmp_path / "token.txt").read_text()) > 40


def test_what_is_no_bundle_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = error([str(tmp_path / "toy"), "--port", "0"], capsys, code=3)
    assert lines[0] == f"error: {tmp_path / 'toy'}: not a bundle (it has no bundle.json)"


def test_missing_libraries_are_named_with_what_installs_them() -> None:
    refused = command.missing(ModuleNotFoundError("No module named 'uvicorn'", name="uvicorn"))
    assert refused.message == "serve: needs uvicorn, which is not installed"
    assert refused.next_step == "pip install 'vision-toolkit[serve]'"


def test_what_an_address_exposes_is_said() -> None:
    assert command.exposure(Settings()) == []
    open_to_all = Settings(host="0.0.0.0")
    first, second = command.exposure(open_to_all)
    assert first == "--host 0.0.0.0: other machines reach this server; what is sent is not encrypted"
    assert second.startswith("anyone who reaches it can use the models")
    assert command.exposure(Settings(host="::", token="x")) == [first.replace("0.0.0.0", "::")]
