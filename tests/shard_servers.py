"""Servers on this machine's own loopback that shards are fetched from: HTTP with connections that break, and S3."""

from __future__ import annotations

import logging
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BUCKET = "shards"


@dataclass
class Served:
    """A server and what it was asked for."""

    url: str = ""
    dropped_every: int = 0
    """Of so many answers with a part of a file, one breaks off in the middle; 0: none."""
    parts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often each part of each file was sent whole."""
    dropped: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def drops(self, path: str, part: str) -> bool:
        """Count an answer, and decide whether it breaks off."""
        with self.lock:
            count = self.parts.total() + self.dropped + 1
            drop = bool(self.dropped_every) and count % self.dropped_every == 0
            self.dropped += drop
            self.parts[path, part] += not drop
            return drop


class _Parts(SimpleHTTPRequestHandler):
    served: Served

    def __init__(self, *args: object, served: Served, **options: object) -> None:
        self.served = served
        super().__init__(*args, **options)  # type: ignore[arg-type]

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if asked is None or not path.is_file():
            super().do_GET()
            return
        whole = path.read_bytes()
        data = whole[int(asked[1]) : int(asked[2]) + 1]
        self.send_response(HTTPStatus.PARTIAL_CONTENT)
        self.send_header("Content-Range", f"bytes {asked[1]}-{asked[2]}/{len(whole)}")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if self.served.drops(self.path, asked[0]) else data)
        self.close_connection = True


@contextmanager
def http(folder: Path, *, dropped_every: int = 0) -> Iterator[Served]:
    """A web server of the files in `folder`."""
    served = Served(dropped_every=dropped_every)
    handler = partial(_Parts, directory=str(folder), served=served)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        served.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def s3(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The URL of a bucket with the files in `folder`, and the environment in which it is reached."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it logs each request
    server.start()
    try:
        host, port = server.get_host_and_port()
        environment = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
        }
        client = boto3.client(
            "s3",
            endpoint_url=environment["AWS_ENDPOINT_URL"],
            region_name="us-east-1",
            aws_access_key_id="tests",
            aws_secret_access_key="tests",
        )
        client.create_bucket(Bucket=BUCKET)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                client.put_object(Bucket=BUCKET, Key=path.relative_to(folder).as_posix(), Body=path.read_bytes())
        client.close()
        yield f"s3://{BUCKET}", environment
    finally:
        server.stop()
