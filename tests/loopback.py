"""A web server on this machine's own loopback, for the tests of what comes from a URL."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar


class _Silent(SimpleHTTPRequestHandler):
    """A simple server, which gives a file from its start on, whatever part of it is asked for."""

    def log_message(self, *args: object) -> None:
        pass


class _Ranges(_Silent):
    """A server as most are: it gives the part of a file that is asked for, but half of the file once `lost` is set."""

    lost = threading.Event()

    def do_GET(self) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if asked is None or not path.is_file():
            super().do_GET()
            return
        data, start = path.read_bytes(), int(asked[1])
        self.send_response(HTTPStatus.PARTIAL_CONTENT)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start : len(data) // 2 if self.lost.is_set() else None])
        self.close_connection = True


class _Unsized(_Silent):
    """A server that does not say how long its answers are: they end with the connection, or in chunks."""

    headers_besides: ClassVar[dict[str, str]] = {}

    def do_GET(self) -> None:
        data = Path(self.translate_path(self.path)).read_bytes()
        self.send_response(HTTPStatus.OK)
        for name, value in self.headers_besides.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data if "Transfer-Encoding" not in self.headers_besides else _chunked(data))
        self.close_connection = True


class _Closing(_Unsized):
    protocol_version = "HTTP/1.1"
    headers_besides: ClassVar[dict[str, str]] = {"Connection": "close"}


class _Chunked(_Unsized):
    protocol_version = "HTTP/1.1"
    headers_besides: ClassVar[dict[str, str]] = {"Transfer-Encoding": "chunked"}


def _chunked(data: bytes) -> bytes:
    parts = [data[place : place + 1000] for place in range(0, len(data), 1000)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (*parts, b""))


UNSIZED = {"HTTP/1.0": _Unsized, "HTTP/1.1, closing": _Closing, "HTTP/1.1, chunked": _Chunked}
"""Servers that do not say how long their answers are."""


@contextmanager
def serving(folder: Path, *, ranges: bool = False, unsized: str = "") -> Iterator[str]:
    """The address of a server of the files in `folder`. `ranges`: whether it gives parts of a file; `unsized`: which
    one of `UNSIZED` it is."""
    handler = UNSIZED[unsized] if unsized else _Ranges if ranges else _Silent
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
