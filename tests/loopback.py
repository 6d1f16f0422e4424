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


@contextmanager
def serving(folder: Path, *, ranges: bool = False) -> Iterator[str]:
    """The address of a server of the files in `folder`. `ranges`: whether it gives parts of a file."""
    handler = _Ranges if ranges else _Silent
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
