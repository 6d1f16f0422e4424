"""Servers of live streams on this machine's own loopback, which lose each connection in a way of their own."""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

from tests.video_files import write_video

Act: TypeAlias = Callable[[socket.socket], None]
"""What a server does with one connection, whose request it has read. It is closed after it."""

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\nConnection: close\r\n"
PACKET = 188
"""Bytes of a packet of MPEG-TS."""


def closes(connection: socket.socket) -> None:
    """Do nothing more: the connection is closed after each act."""


def transport(path: Path, frames: int = 20, rate: int = 10) -> bytes:
    """The bytes of an MPEG-TS stream of numbered frames, all of them keyframes."""
    return write_video(path, frames, rate=rate, codec="mpeg2video", gop=1).read_bytes()


def plays(data: bytes, then: Act = closes) -> Act:
    """Send a body of unknown length, then do the other act."""

    def act(connection: socket.socket) -> None:
        connection.sendall(HEAD + b"\r\n" + data)
        then(connection)

    return act


def plays_chunks(data: bytes, *, ends: bool, then: Act = closes) -> Act:
    """Send a body in chunks; `ends`: with the chunk that is its end."""

    def act(connection: socket.socket) -> None:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for start in range(0, len(data), 1000):
            part = data[start : start + 1000]
            connection.sendall(b"%x\r\n%b\r\n" % (len(part), part))
        connection.sendall(b"0\r\n\r\n" if ends else b"3e8\r\nhalf of it")
        then(connection)

    return act


def answers(status: str, body: bytes = b"", *, claims: int | None = None) -> Act:
    """A whole answer; `claims` is the length that it states, where that is another."""

    def act(connection: socket.socket) -> None:
        length = len(body) if claims is None else claims
        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n".encode() + body)

    return act


def resets(connection: socket.socket) -> None:
    """Lose the connection without a farewell."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def stalls(connection: socket.socket) -> None:
    """Be silent until the other side gives up."""
    with suppress(OSError):
        while connection.recv(1):
            pass


@contextmanager
def acting(acts: Sequence[Act], scheme: str = "http") -> Iterator[str]:
    """The address of a server that does the acts, one for each connection, and then is gone."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        address = f"{scheme}://127.0.0.1:{server.getsockname()[1]}/live"

        def serve() -> None:
            for act in acts:
                with suppress(OSError):  # the other side is gone, or the test is over
                    connection, _ = server.accept()
                    with connection:
                        connection.settimeout(30)
                        if scheme == "http":
                            request(connection)
                        act(connection)
            server.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        if not acts:
            thread.join()
        try:
            yield address
        finally:
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            thread.join(40)
            assert not thread.is_alive()


def request(connection: socket.socket) -> str:
    """The head of the next request; empty where there is no more."""
    read = b""
    while not read.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            return ""
        read += byte
    return read.decode()


def plays_rtsp(data: bytes, then: Act = closes) -> Act:
    """Send MPEG-TS as RTP (RFC 2250) within the connection of RTSP (RFC 2326), then do the other act."""
    description = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=live\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:video\r\n"

    def act(connection: socket.socket) -> None:
        method = ""
        while method != "PLAY":
            asked = request(connection)
            method = asked.partition(" ")[0]
            number = re.search(r"CSeq: *(\d+)", asked)
            assert number, asked
            more = {
                "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(description)}\r\n\r\n{description}",
                "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n\r\n",
                "PLAY": "Session: 1\r\n\r\n",
            }.get(method, "Public: DESCRIBE, SETUP, PLAY\r\n\r\n")
            connection.sendall(f"RTSP/1.0 200 OK\r\nCSeq: {number[1]}\r\n{more}".encode())
        for place, start in enumerate(range(0, len(data), 7 * PACKET)):
            part = data[start : start + 7 * PACKET]
            header = struct.pack(">BBHII", 0x80, 33, place & 0xFFFF, 90 * place, 7)
            connection.sendall(struct.pack(">cBH", b"$", 0, len(header) + len(part)) + header + part)
        then(connection)

    return act
