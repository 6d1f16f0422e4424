"""How a server runs: where it listens, who may ask, and how much a request may take."""

from __future__ import annotations

import hmac
import ipaddress
import math
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urlsplit

MIB = 1 << 20
ANY_HOST = "*"
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Limits:
    """What one request, and all of them together, may take."""

    body: int = 64 * MIB
    """Bytes of one request."""
    pixels: int = 50_000_000
    """Of one image, and of one frame of a video."""
    seconds: float = 120.0
    """Length of one video."""
    waiting: int = 256
    """Inputs of one model that wait for a batch; further requests get status 429."""

    @property
    def message(self) -> int:
        """Bytes of what takes many times its room: JSON once it is read, and messages of gRPC."""
        return min(self.body, 16 * MIB)

    @property
    def bodies(self) -> int:
        """Bytes of all requests that are being received or answered."""
        return 8 * self.body


@dataclass(frozen=True)
class Settings:
    """What the flags of `serve` say."""

    host: str = "127.0.0.1"
    port: int = 8000
    """0: a free one."""
    grpc_port: int | None = None
    token: str | None = None
    """The word that each request must bring; None: all may ask."""
    names: Sequence[str] = ()
    """Further names under which clients reach the server."""
    url_hosts: Sequence[str] = ()
    """Where files may be fetched from; `*` is every public address."""
    sources: Sequence[str] = ()
    """Cameras and live URLs that clients may listen to, each `NAME=PLACE`."""
    reconnect: float = math.inf
    """How often in a row a source that is lost is opened again."""
    batch: int | None = None
    sessions: int = 1
    """Batches of one model that are computed at a time."""
    delay: float = 0.002
    """Seconds for which an input waits for others."""
    limits: Limits = Limits()
    log: bool = False
    """Whether each request is a line on standard error."""

    @property
    def exposed(self) -> bool:
        """Whether other machines reach the server."""
        return not _is_loopback(self.host)

    @cached_property
    def hosts(self) -> frozenset[str]:
        """Names that the header Host may have. A page of another site that was led to this address by its own name
        server (DNS rebinding) sends the name of that site."""
        own = {socket.gethostname(), socket.getfqdn()} if self.exposed else set()
        return frozenset(name.lower() for name in (*LOOPBACK, self.host, *self.names, *own))

    def allows_host(self, header: str) -> bool:
        name = host_name(header)
        return name in self.hosts or (self.exposed and _is_address(name))

    def allows_token(self, header: str) -> bool:
        """Whether the header Authorization, `Bearer TOKEN`, has the right token."""
        if self.token is None:
            return True
        kind, _, word = header.partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(word.strip().encode(), self.token.encode())


def host_name(header: str) -> str:
    """The name or address in a header Host, without the port; empty where it has none."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)
