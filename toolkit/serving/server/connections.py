"""HTTP connections of uvicorn, with a limit on the time that a request's head may take."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from toolkit.serving.server.refusals import SLOW

HEAD_SECONDS = 10.0
"""How long the head of a request may take, and how long a new connection may be silent."""
_TOO_SLOW = b'{"error": "the request did not come in time"}'


class Connection(H11Protocol):
    """One connection. uvicorn waits for the rest of a request for ever."""

    _waiting: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether it has answered all that it was asked, and was asked something."""
        return self.cycle is not None and self.cycle.response_complete

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Begin to count while a head is incomplete; a body is counted by the guard."""
        if self.conn.their_state is not h11.IDLE:
            self._unwatch()
        elif self._waiting is None:
            self._waiting = self.loop.call_later(HEAD_SECONDS, self._end)

    def _unwatch(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _end(self) -> None:
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            head = f"HTTP/1.1 {SLOW} \r\nContent-Type: application/json\r\nConnection: close\r\n"
            self.transport.write(f"{head}Content-Length: {len(_TOO_SLOW)}\r\n\r\n".encode() + _TOO_SLOW)
            self.transport.close()
