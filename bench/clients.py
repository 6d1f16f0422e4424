"""Clients of a server, each of which sends one request again as soon as it is answered: prints one line of JSON.

They are bare sockets in one loop: what clients compute is taken from a server on the same cores."""

from __future__ import annotations

import json
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector

import numpy as np

HOLD_SECONDS = 120.0
"""How long all clients together may hear nothing."""
LOST = "lost"
"""In place of a status, of a request whose connection ended before its answer."""
_AT_ONCE = 1 << 16
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection:\s*close", re.IGNORECASE)


def post(path: str, body: bytes, headers: Mapping[str, object]) -> bytes:
    """A whole request."""
    named = {"Host": "127.0.0.1", "Content-Length": len(body), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def uploading(path: str, name: str, kind: str, data: bytes) -> bytes:
    """A request with one file of a form."""
    head = f'--part\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: {kind}\r\n\r\n'
    return post(
        path, head.encode() + data + b"\r\n--part--\r\n", {"Content-Type": "multipart/form-data; boundary=part"}
    )


@dataclass(eq=False)
class _Client:
    connection: socket.socket
    unsent: memoryview
    begun: float
    got: bytearray = field(default_factory=bytearray)

    def send(self) -> bool:
        """Send what the system takes; whether that was all."""
        self.unsent = self.unsent[self.connection.send(self.unsent) :]
        return not self.unsent

    def receive(self) -> str | None:
        """The status once an answer is whole; None before."""
        part = self.connection.recv(_AT_ONCE)
        self.got += part
        head, ended, body = bytes(self.got).partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if ended and length is not None and len(body) >= int(length[1]):
            return head.split(b" ", 2)[1].decode()
        return None if part else LOST

    @property
    def is_last(self) -> bool:
        """Whether the server ends the connection with this answer."""
        return _CLOSES.search(self.got) is not None


class _Crowd:
    """All clients of 127.0.0.1, of whom each has a connection."""

    def __init__(self, port: int, request: bytes, requests: int) -> None:
        self._place, self._request, self._left = ("127.0.0.1", port), memoryview(request), requests
        self._ready = DefaultSelector()
        self.taken: list[float] = []
        self.statuses: Counter[str] = Counter()

    def run(self, clients: int) -> None:
        """Return once all requests are answered."""
        with self._ready:
            for _ in range(min(clients, self._left)):
                self._ask(socket.create_connection(self._place))
            while self._ready.get_map():
                events = self._ready.select(HOLD_SECONDS)
                if not events:
                    raise TimeoutError(f"no answer in {HOLD_SECONDS:g} s")
                for key, event in events:
                    self._go_on(key.data, sends=event == EVENT_WRITE)

    def _ask(self, connection: socket.socket) -> None:
        self._left -= 1
        connection.setblocking(False)
        self._ready.register(connection, EVENT_WRITE, _Client(connection, self._request, time.perf_counter()))

    def _go_on(self, one: _Client, *, sends: bool) -> None:
        if sends:
            if one.send():
                self._ready.modify(one.connection, EVENT_READ, one)
            return
        status = one.receive()
        if status is None:
            return
        self.taken.append(time.perf_counter() - one.begun)
        self.statuses[status] += 1
        self._ready.unregister(one.connection)
        if self._left and status != LOST and not one.is_last:
            self._ask(one.connection)
            return
        one.connection.close()
        if self._left:
            self._ask(socket.create_connection(self._place))


def asked(port: int, request: bytes, clients: int, requests: int) -> dict[str, float | dict[str, int]]:
    """Seconds in which `requests` requests to 127.0.0.1 are answered, CPU seconds that the clients took, percentiles of
    the time of one, and how many had each status."""
    crowd = _Crowd(port, request, requests)
    begun, worked = time.perf_counter(), time.process_time()
    crowd.run(clients)
    seconds, worked = time.perf_counter() - begun, time.process_time() - worked
    median, slow = (float(share) for share in np.percentile(crowd.taken, [50, 99]))
    return {"seconds": seconds, "cpu": worked, "p50": median, "p99": slow, "statuses": dict(crowd.statuses)}


if __name__ == "__main__":
    number, file, count, total = sys.argv[1:]
    print(json.dumps(asked(int(number), Path(file).read_bytes(), int(count), int(total))))
