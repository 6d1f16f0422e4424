"""What every request passes before it is answered: who sends it, from where, and how much it brings."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

from toolkit.serving.server.metrics import Metrics
from toolkit.serving.server.refusals import (
    BUSY,
    FAILED,
    FORBIDDEN,
    LONG_HEAD,
    SLOW,
    TOO_LARGE,
    UNAUTHORIZED,
    UNSUPPORTED,
    Refused,
)
from toolkit.serving.server.settings import Settings
from toolkit.system.notices import show

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN = frozenset({"/", "/v2/health/live", "/v2/health/ready"})
"""Paths that need no token: the page, which shows nothing without one, and what a supervisor asks."""
LARGEST_HEAD = 16 << 10
"""Bytes of a request's head."""
HEADER_COST = 32
"""Bytes that each header counts besides its text, as in RFC 9113, 6.5.2."""
PART_SECONDS = 10.0
"""How long a client may pause within a body."""
BODY_SECONDS = 60.0
"""How long a body may take."""
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
SAFE: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Headers of every answer."""
_RAW_SAFE = [(name.lower().encode(), value.encode()) for name, value in SAFE.items()]


class Bodies:
    """Bytes of all requests that are being received or answered."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.held = 0

    def take(self, count: int) -> None:
        """Raises Refused where all would be too many."""
        if self.held and self.held + count > self._most:
            raise Refused(BUSY, f"requests of {self.held:,} bytes are being answered", retry_after=1)
        self.held += count


class Guard:
    """An ASGI application around another one."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._bodies = Bodies(settings.limits.bodies)
        self.draining = False
        """Whether the server is about to end: each connection then ends with its answer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        passing = _Passing(self, scope, receive, send)
        try:
            try:
                self._check(scope, Headers(scope=scope), passing)
            except Refused as refused:
                await refusal(refused)(scope, passing.receive, passing.send)
                return
            await self._app(scope, passing.receive, passing.send)
        finally:
            self._bodies.held -= passing.held
            self._note(scope, passing)

    def _check(self, scope: Scope, headers: Headers, passing: _Passing) -> None:
        size = sum(len(name) + len(value) + HEADER_COST for name, value in scope["headers"]) + len(scope["raw_path"])
        if size > LARGEST_HEAD:
            raise Refused(LONG_HEAD, f"the head of the request is larger than {LARGEST_HEAD:,} bytes")
        host, origin = headers.get("host", ""), headers.get("origin")
        if len(headers.getlist("host")) != 1 or not self._settings.allows_host(host):
            raise Refused(FORBIDDEN, "this server has another name; see serve --allow-host")
        own = (f"http://{host}", f"https://{host}")  # the second where a proxy in front of the server encrypts
        if origin is not None and origin.lower() not in (one.lower() for one in own):
            raise Refused(FORBIDDEN, "requests from pages of other sites are not answered")
        if scope["path"] not in OPEN and not self._settings.allows_token(headers.get("authorization", "")):
            raise Refused(UNAUTHORIZED, "expected the header Authorization: Bearer TOKEN")
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise Refused(UNSUPPORTED, "compressed bodies are not read")
        stated = headers.get("content-length")
        if stated is not None:
            passing.take(int(stated))

    def take(self, count: int) -> None:
        self._bodies.take(count)

    @property
    def largest(self) -> int:
        return self._settings.limits.body

    def _note(self, scope: Scope, passing: _Passing) -> None:
        seconds = time.perf_counter() - passing.begun
        route = getattr(scope.get("endpoint"), "__name__", "none")
        self._metrics.request(route, passing.status, seconds)
        if self._settings.log:
            line = {
                "time": round(time.time(), 3),
                "client": (scope.get("client") or ["", 0])[0],
                "method": scope["method"],
                "path": scope["path"],
                "status": passing.status,
                "bytes": passing.received,
                "ms": round(1000 * seconds, 1),
            }
            show(json.dumps(line), file=sys.stderr)


class _Passing:
    """One request on its way."""

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send) -> None:
        self._guard, self._receive, self._send = guard, receive, send
        self._reads = scope["method"] in _READING
        self._whole = False
        self.begun = time.perf_counter()
        self.held = self.received = 0
        self.status = FAILED

    def take(self, count: int) -> None:
        """Make room for so many bytes of the body. Raises Refused where they are too many."""
        if count > self._guard.largest:
            raise Refused(TOO_LARGE, f"a body of {count:,} bytes; the limit is {self._guard.largest:,}")
        if count > self.held:
            self._guard.take(count - self.held)
            self.held = count

    async def receive(self) -> Message:
        if self._whole:
            return await self._receive()
        left = BODY_SECONDS - (time.perf_counter() - self.begun)
        try:
            async with asyncio.timeout(min(PART_SECONDS, max(left, 0))):
                message = await self._receive()
        except TimeoutError as error:
            raise Refused(SLOW, "the body did not come in time") from error
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
            self._whole = not message.get("more_body", False)
            self.take(self.received)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = {name for name, _ in message["headers"]}
            message["headers"] += [(name, value) for name, value in _RAW_SAFE if name not in given]
            if self._guard.draining or not (self._whole or self._reads):
                MutableHeaders(scope=message)["Connection"] = "close"
        await self._send(message)


def refusal(refused: Refused) -> JSONResponse:
    """The response that says why, as the Open Inference Protocol has errors."""
    return failure(refused.status, refused.message, refused.headers)


def failure(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": message}, status, dict(headers or {}))
