"""The server as a whole: its sockets, its models, and how it begins and ends."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from toolkit.api.errors import UsageError
from toolkit.serving.server.app import Application
from toolkit.serving.server.batching import AHEAD
from toolkit.serving.server.connections import Connection
from toolkit.serving.server.guard import LARGEST_HEAD, Guard
from toolkit.serving.server.metrics import Metrics
from toolkit.serving.server.models import Models, Opening
from toolkit.serving.server.settings import Settings
from toolkit.serving.server.streams import Streams, sources_of
from toolkit.system.machine import allowed_cores

if TYPE_CHECKING:
    from grpc.aio import Server as RpcServer


LOOKS = 1.0
"""Seconds between two looks whether a bundle was replaced."""
PATIENCE = 2.0
"""Longest time, in seconds, for which a server that is ending still takes requests: each answer then closes its
connection, so that clients which keep one learn of it. As long may those take that have just connected."""
_GLANCE = 0.02
"""Seconds between two looks at the connections, of which uvicorn reports no end."""
ENDING = 60.0
"""Seconds that calls over gRPC may take to end."""
MOST_CONNECTIONS = 1024


class _Quiet(uvicorn.Server):
    """uvicorn without its handlers of signals: `Running` ends it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Running:
    """A server that was made with its sockets and models, and runs once."""

    def __init__(self, settings: Settings, opening: Opening) -> None:
        """Listens at once, so that a port in use is known before bundles are opened. Raises UsageError."""
        logging.getLogger("python_multipart").setLevel(logging.ERROR)  # clients learn what is wrong with a body
        self.settings, sources = settings, sources_of(settings.sources)
        self._socket = _listening(settings.host, settings.port)
        self.port: int = self._socket.getsockname()[1]
        self.grpc_port: int | None = None
        self._decoding = ThreadPoolExecutor(len(allowed_cores()), "decode")
        computing = AHEAD * max(len(allowed_cores()), settings.sessions) + 1  # one for a bundle that is opened
        self._computing = ThreadPoolExecutor(computing, "compute")
        self.metrics = Metrics()
        self.models = Models(settings, opening, self.metrics, self._computing)
        streams = Streams(self.models, sources, settings.reconnect)
        self.application = Application(self.models, settings, self.metrics, self._decoding, streams)
        self._server: _Quiet | None = None
        self._forced = False

    @property
    def address(self) -> str:
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        return f"http://{host}:{self.port}"

    def load(self, bundles: Sequence[Path]) -> None:
        """Open the models. Raises BundleError and UsageError."""
        self.models.load(bundles)

    async def run(self, stop: asyncio.Event, started: Callable[[], object]) -> None:
        """Answer requests until `stop` is set, and then those that were accepted. Calls `started` once it answers.
        Raises UsageError where gRPC cannot listen."""
        guard = self.application.asgi()
        self._server = server = _Quiet(self._config(guard))
        rpc = self._rpc()
        if rpc is not None:
            await rpc.start()
        serving = asyncio.create_task(server.serve(sockets=[self._socket]))
        watching = asyncio.create_task(self._watch())
        await self._until(lambda: server.started)
        self.application.ready = True
        started()
        try:
            await stop.wait()
            self.application.ready, guard.draining = False, True
            await self.application.streams.close()
            ended = asyncio.create_task(rpc.stop(ENDING)) if rpc is not None else None
            await self._drain(server)
            server.should_exit = True
            await serving
            if ended is not None:
                await ended
            await self.models.close()
        finally:
            watching.cancel()
            self.close()

    async def _drain(self, server: _Quiet) -> None:
        """Let clients leave. One that sends a request while its idle connection is closed would lose it."""
        connections: Collection[Connection] = server.server_state.connections  # type: ignore[assignment]
        kept = {*connections}
        await self._until(lambda: kept.isdisjoint(connections))
        accepted = self._accept_waiting(server)
        for listener in server.servers:
            listener.close()
        await asyncio.gather(*accepted, return_exceptions=True)  # one may be gone by now
        await asyncio.sleep(_GLANCE)  # until uvicorn knows what asyncio itself has accepted
        await self._until(lambda: all(one.is_idle for one in connections))

    def _accept_waiting(self, server: _Quiet) -> list[asyncio.Task[object]]:
        """Accept the clients whom the system has connected already: closing the socket would reset them."""
        loop = asyncio.get_running_loop()

        def connection() -> Connection:
            return Connection(server.config, server.server_state, server.lifespan.state, loop)

        accepted: list[asyncio.Task[object]] = []
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return accepted
            client.setblocking(False)
            accepted.append(loop.create_task(loop.connect_accepted_socket(connection, client)))

    async def _until(self, done: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not (done() or self._forced) and time.monotonic() < end:
            await asyncio.sleep(_GLANCE)

    def force(self) -> None:
        """End without waiting for requests."""
        self._forced = True
        if self._server is not None:
            self._server.force_exit = self._server.should_exit = True

    def close(self) -> None:
        """Give back the port and end the threads."""
        self._socket.close()
        self._decoding.shutdown(wait=False, cancel_futures=True)
        self._computing.shutdown(wait=False, cancel_futures=True)

    def _config(self, guard: Guard) -> uvicorn.Config:
        return uvicorn.Config(
            guard,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical" if not self.settings.log else "error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MOST_CONNECTIONS,
            h11_max_incomplete_event_size=LARGEST_HEAD,
        )

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOKS)
            await self.models.refresh()

    def _rpc(self) -> RpcServer | None:
        """The server of gRPC, which listens; None where none is wanted."""
        if self.settings.grpc_port is None:
            return None
        from toolkit.serving.server.rpc import rpc_server

        server = rpc_server(self.models, self.settings, self.metrics, lambda: self.application.ready)
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        try:
            self.grpc_port = server.add_insecure_port(f"{host}:{self.settings.grpc_port}")
        except RuntimeError as error:
            raise UsageError(
                f"--grpc-port {self.settings.grpc_port}: Address already in use",
                next_step="use a free one: --grpc-port 0",
            ) from error
        return server


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises UsageError naming the flag."""
    try:
        (family, *_, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise UsageError(f"--host {host}: {error.strerror}", next_step="use --host 127.0.0.1") from error
    found = socket.socket(family)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(MOST_CONNECTIONS)
    except OSError as error:
        found.close()
        raise UsageError(f"--port {port}: {error.strerror}", next_step="use a free one: --port 0") from error
    return found
