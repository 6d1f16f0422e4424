"""HTTP connections of uvicorn, with limits on the time and the size of a request's head, and on requests that wait."""

from __future__ import annotations

import asyncio
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from toolkit.serving.server.guard import LARGEST_HEAD
from toolkit.serving.server.refusals import LONG_HEAD, SLOW

HEAD_SECONDS = 10.0
"""How long the head of a request may take, and how long a new connection may be silent."""
MOST_PIPELINED = 16
"""Requests that a client may send before the first of them is answered. Each takes many times its bytes."""
_TOO_SLOW = b'{"error": "the request did not come in time"}'
_TOO_LONG = f'{{"error": "the head of the request is larger than {LARGEST_HEAD:,} bytes"}}'.encode()
_BODY_HEADERS = (b"content-length", b"transfer-encoding")


class _Impatient(Exception):  # noqa: N818 - the parser makes status 400 of it
    """A client sent too many requests at once."""


class Connection(HttpToolsProtocol):
    """One connection. uvicorn waits for the rest of a request for ever, its parser holds a head of any size, and takes
    the body of a request for another protocol where the client offers to speak that."""

    _waiting: asyncio.TimerHandle | None = None
    _in_body = False
    _repeats = False
    """Whether the parser reads a head a second time."""
    _got_on = True
    _held = 0
    """Bytes in a row that were no body, and ended no head: those of a head, of trailers, or between requests."""

    @property
    def is_idle(self) -> bool:
        """Whether it has answered all that it was asked, and was asked something."""
        return self.cycle is not None and self.cycle.response_complete

    @property
    def _awaits_head(self) -> bool:
        return not self._in_body and (self.cycle is None or self.cycle.response_complete)

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        self._got_on = False
        self._feed(data)
        self._held = 0 if self._got_on else self._held + len(data)
        if self._held > LARGEST_HEAD:
            self._end(LONG_HEAD, _TOO_LONG)
        self._watch()

    def _feed(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as offered:
            self._decline(data[offered.args[0] :])
        except HttpParserError:
            self.send_400_response("Invalid HTTP request received.")

    def _decline(self, rest: bytes) -> None:
        """Go on in HTTP/1.1, with a new parser: the old one takes what follows for another protocol. The new one learns
        how long the body is from the same headers."""
        self.parser = HttpRequestParser(self)
        if self._in_body:
            self._repeats = True
            lines = [b"%b: %b\r\n" % header for header in self.headers if header[0] in _BODY_HEADERS]
            self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(lines))
        self._feed(rest)

    def on_message_begin(self) -> None:
        if not self._repeats:
            super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._repeats:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers are not read: they would add headers to a request that was let in.
        if not self._repeats and not self._in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._repeats:
            self._repeats = False
            return
        if len(self.pipeline) == MOST_PIPELINED:
            raise _Impatient
        self._got_on = self._in_body = True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._got_on = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._got_on = True
        if self.parser.should_upgrade() and any(name in _BODY_HEADERS for name, _ in self.headers):
            return  # the body is still to come
        self._in_body = False
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Begin to count while a head is incomplete; a body is counted by the guard."""
        if not self._awaits_head or self.transport.is_closing():
            self._unwatch()
        elif self._waiting is None:
            self._waiting = self.loop.call_later(HEAD_SECONDS, self._end, SLOW, _TOO_SLOW)

    def _unwatch(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _end(self, status: int, why: bytes) -> None:
        """Close the connection, with the reason unless that would stand inside another answer."""
        if self.transport.is_closing():
            return
        if self._awaits_head:
            head = f"HTTP/1.1 {status} \r\nContent-Type: application/json\r\nConnection: close\r\n"
            self.transport.write(f"{head}Content-Length: {len(why)}\r\n\r\n".encode() + why)
        self.transport.close()
