"""A server on this machine that speaks the protocol of the Hugging Face Hub, as far as its client asks for files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import ClassVar

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_PLACE = re.compile(r"/(?P<name>[\w.-]+/[\w.-]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


@dataclass
class Hub:
    """What the server has, and how it fails."""

    files: dict[str, bytes] = field(default_factory=dict)
    """Of the only repository, `acme/tiny`."""
    revisions: tuple[str, ...] = ("main", COMMIT)
    status: int = 200
    """Of every answer."""
    code: str = ""
    """The Hub's own name of the error."""
    digests: dict[str, str] = field(default_factory=dict)
    """Instead of the right ones."""
    cut: dict[str, list[int]] = field(default_factory=dict)
    """Bytes after which an answer for a file breaks off, for each answer in turn."""
    asked: list[str] = field(default_factory=list)
    """Each request: its method, file and range."""
    address: str = ""


@contextmanager
def serving_hub() -> Iterator[Hub]:
    """The server, while the block runs."""
    hub = Hub()

    class Handler(_Handler):
        served = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    served: ClassVar[Hub]
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
        """Prints nothing."""

    def _answer(self) -> None:
        hub, place = self.served, _PLACE.fullmatch(self.path)
        name = place["file"] if place else self.path
        if place:  # the client asks for more than files
            hub.asked.append(" ".join(filter(None, (self.command, name, self.headers.get("Range", "")))))
        if hub.status != 200:
            self._fail(hub.status, hub.code)
        elif not place or place["name"] != "acme/tiny":
            self._fail(404, "RepoNotFound")
        elif place["revision"] not in hub.revisions:
            self._fail(404, "RevisionNotFound")
        elif name not in hub.files:
            self._fail(404, "EntryNotFound")
        else:
            self._send(name, hub.files[name])

    def _fail(self, status: int, code: str) -> None:
        self.send_response(status)
        for key, value in (("X-Error-Code", code), ("X-Repo-Commit", COMMIT), ("Content-Length", "0")):
            self.send_header(key, value)
        self.end_headers()

    def _send(self, name: str, content: bytes) -> None:
        hub = self.served
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(found[1]) if found else 0
        self.send_response(206 if found else 200)
        digest = hub.digests.get(name, hashlib.sha256(content).hexdigest())
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{digest}"')
        self.send_header("Content-Length", str(len(content) - start))
        if found:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        cuts = hub.cut.get(name, [])
        end = cuts.pop(0) if cuts else len(content)
        self.wfile.write(content[start:end])
        if end < len(content):
            self.close_connection = True
