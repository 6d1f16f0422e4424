"""The server of a study's storage: workers on any machine reach it at `grpc://HOST:PORT`."""

from __future__ import annotations

import socket
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from optuna.exceptions import ExperimentalWarning
from optuna.storages import GrpcStorageProxy, run_grpc_proxy_server
from rich.console import Console

from toolkit.api.errors import UsageError
from toolkit.host.registry import discover
from toolkit.recipe.draft import Draft
from toolkit.system.notices import note, show
from toolkit.system.signals import Signalled, Signals
from toolkit.tune.storage import GRPC, alone, dashboard_command, opened_storage, require_grpc
from toolkit.tune.study import open_study, plan_study

LOOPBACK = ("localhost", "127.0.0.1")
EVERYWHERE = ("0.0.0.0", "[::]")  # noqa: S104 - names of it, not a default


def serve_storage(
    draft: Draft, *, runs: Path, storage: str | None, host: str, port: int, worker: str, console: Console
) -> None:
    """Serve the storage of a recipe's study at `grpc://HOST:PORT` until a signal comes.

    What is served is the database at `storage`, by default a SQLite file in the study's folder. `worker` is the command
    of a worker, but for the URL of this server. Raises UsageError where gRPC is not installed, the address cannot be
    listened on, or the storage has another study of this name.
    """
    require_grpc("--serve-storage")
    planned = plan_study(draft, discover())
    folder = runs / planned.recipe.name

    def busy() -> None:
        message = f"{folder}: another process serves this study"
        raise UsageError(message, next_step="use the address that it serves, or stop it first")

    with alone(folder, ".served.lock", waiting=busy), Signals():
        url = storage or f"sqlite:///{folder / 'study.db'}"
        with opened_storage(folder, url) as opened:
            open_study(planned, opened)
            _require_free(host, port)
            for line in (f"study {folder}", f"view {dashboard_command(folder, url)}"):
                show(line, console=console)
            if host not in LOOPBACK:
                note(f"anyone who reaches {host}:{port} can change the study: there is no password", console)
            # One thread: SQLite has one writer, and the calls of workers are short.
            with ThreadPoolExecutor(max_workers=1) as one, warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                client = GrpcStorageProxy(host=host, port=port)
                named = socket.gethostname() if host in EVERYWHERE else host
                words = f"{worker} {GRPC}{named}:{port}"
                threading.Thread(target=_announce, args=(client, words, console), daemon=True).start()
                try:
                    run_grpc_proxy_server(opened, host=host, port=port, thread_pool=one)
                except Signalled:
                    show(f"stopped; {folder} keeps the study", console=console)


def _require_free(host: str, port: int) -> None:
    """Raise UsageError where somebody listens already: gRPC itself would share the port with another server."""
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise UsageError(
            f"--serve-storage {host}:{port}: cannot be listened on: {error.strerror or error}",
            next_step=f"choose another port: --serve-storage {host}:{port + 1}",
        ) from error


def _announce(client: GrpcStorageProxy, worker: str, console: Console) -> None:
    """Print how workers join, once the server answers."""
    client.wait_server_ready()
    client.close()
    show("serving; Ctrl-C stops", console=console)
    show("next:  start workers", f"  {worker}", console=console)
