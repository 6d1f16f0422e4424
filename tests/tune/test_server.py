"""A study that one process serves and others work on."""

from __future__ import annotations

import importlib.util
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
from optuna.storages import GrpcStorageProxy, RDBStorage, run_grpc_proxy_server

from tests.tune.studies import begun
from tests.tune.test_trial import recipe_file
from toolkit.api.errors import EXIT_DONE, EXIT_USAGE, RunFailed, UsageError
from toolkit.cli.main import main
from toolkit.cli.parser import without
from toolkit.cli.tune import OF_WORKERS
from toolkit.tune import storage
from toolkit.tune.storage import answering, dashboard_command, open_storage, opened_storage

pytest.importorskip("grpc", reason="the extra grpc is not installed")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a storage that a thread of this process serves until the process ends."""
    port, folder = free_port(), tmp_path_factory.mktemp("served")

    def serve() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            database = RDBStorage(f"sqlite:///{folder / 'study.db'}")
            run_grpc_proxy_server(database, host="localhost", port=port, thread_pool=ThreadPoolExecutor(1))

    threading.Thread(target=serve, daemon=True).start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        client = GrpcStorageProxy(host="localhost", port=port)
    client.wait_server_ready()
    client.close()
    return f"grpc://localhost:{port}"


def test_what_one_worker_writes_all_read(tmp_path: Path, served: str) -> None:
    one, other = (begun(tmp_path / name, url=served) for name in ("one", "other"))
    one.tell(one.ask(), 0.5)
    assert [trial.value for trial in other.trials] == [0.5]
    assert dashboard_command(tmp_path, served) is None
    with opened_storage(tmp_path, served) as again:
        assert [study.study_name for study in again.get_all_studies()] == ["tiny"]


def test_a_server_that_is_not_there_is_reported_with_the_command_that_starts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "READY_SECONDS", 0.2)
    url = f"grpc://localhost:{free_port()}"
    with pytest.raises(UsageError, match=f"^--storage {url}: no server answers$") as caught:
        open_storage(tmp_path, url)
    address = url.removeprefix("grpc://")
    step = f"serve the study there: python -m toolkit tune RECIPE --serve-storage {address}"
    assert caught.value.next_step == step


@pytest.mark.parametrize("place", ["localhost", "localhost:", "localhost:0", "localhost:65536", "localhost:port"])
def test_an_address_has_a_port(tmp_path: Path, place: str) -> None:
    with pytest.raises(UsageError, match=f"^--storage grpc://{place}: expected a host and a port$") as caught:
        open_storage(tmp_path, f"grpc://{place}")
    assert caught.value.next_step == "give one such as --storage grpc://localhost:13000"


def test_without_grpc_the_next_step_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "grpc" else found(name, *more))
    with pytest.raises(UsageError, match=r"^--storage grpc://a:1: gRPC is not installed$") as caught:
        open_storage(tmp_path, "grpc://a:1")
    assert caught.value.next_step == "pip install 'vision-toolkit[grpc]'"


def test_a_server_that_is_gone_ends_the_worker_with_what_to_do() -> None:
    import grpc

    class Gone(grpc.RpcError):  # type: ignore[misc]  # as the library's own, which only a call makes
        def details(self) -> str:
            return "failed to connect"

    with (
        pytest.raises(RunFailed, match=r"^the storage of study tiny has failed: failed to connect$") as caught,
        answering("tiny", "the same command"),
    ):
        raise Gone
    assert caught.value.next_step == "when it answers again: the same command"


def test_a_command_without_some_of_its_flags() -> None:
    words = ["tune", "a.toml", "--workers", "2", "--export", "--seeds=3", "--set", "--ranks"]
    assert without(words, OF_WORKERS) == ["tune", "a.toml", "--set"]


def test_who_serves_trains_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(recipe_file(tmp_path, "trials = 1"))
    assert main(["tune", path, "--serve-storage", "13000", "--workers", "2"]) == EXIT_USAGE
    said = capsys.readouterr().err
    assert "tune: --workers has no meaning with --serve-storage, which trains nothing" in said
    assert f"next:  python -m toolkit tune {path} --serve-storage 13000\n" in said


def test_a_port_that_is_taken_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = str(recipe_file(tmp_path, "trials = 1"))
    with socket.create_server(("localhost", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["tune", path, "--serve-storage", str(port)]) == EXIT_USAGE
    assert f"--serve-storage localhost:{port}: cannot be listened on: Address already in use" in capsys.readouterr().err


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`tune --serve-storage` as a process, once it serves, and the command of its workers."""
    path, port = recipe_file(tmp_path, "trials = 1"), free_port()
    words = [sys.executable, "-m", "toolkit", "tune", str(path), "--serve-storage", str(port)]
    with subprocess.Popen(words, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout
        try:
            command = next((line for line in process.stdout if line.startswith("  python -m")), "")
            yield process, command.strip()
        finally:
            process.kill()


@pytest.mark.slow  # a process of its own loads Optuna
def test_a_server_says_how_workers_join_and_ends_by_a_signal(
    server: tuple[subprocess.Popen[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process, command = server
    url = command.partition("--storage ")[2]
    with opened_storage(tmp_path, url) as opened:
        assert [study.study_name for study in opened.get_all_studies()] == ["tiny"]
    assert command == f"python -m toolkit tune {tmp_path / 'tiny.toml'} --storage {url}"
    path = str(tmp_path / "tiny.toml")
    assert main(["tune", path, "--runs", str(tmp_path / "runs"), "--serve-storage", str(free_port())]) == EXIT_USAGE
    assert f"{tmp_path / 'runs' / 'tiny'}: another process serves this study" in capsys.readouterr().err
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == EXIT_DONE, printed
    assert "stopped; runs/tiny keeps the study" in printed
    assert (tmp_path / "runs" / "tiny" / "study.db").stat().st_size
