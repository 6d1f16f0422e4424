"""Files behind the addresses that a request names: only from the hosts that `--allow-urls` allows.

A server is inside a network that its clients are not, so a client must not choose what it fetches there. The address of
a host is looked up once and then connected to, so a name cannot be public first and private later.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from pathlib import PurePosixPath
from urllib.parse import SplitResult, unquote, urlsplit

from toolkit.api.errors import printable
from toolkit.serving.server.refusals import BAD, FORBIDDEN, TOO_LARGE, UNREADABLE, Refused
from toolkit.serving.server.settings import ANY_HOST
from toolkit.serving.server.uploads import Upload

SECONDS = 10.0
"""How long a host may stay silent."""
_CHUNK = 1 << 16
_PORTS = {"http": 80, "https": 443}


def fetch(url: str, hosts: Sequence[str], largest: int) -> Upload:
    """The file behind `url`, of at most `largest` bytes. Redirections are not followed. Raises Refused."""
    parts = _parts(url)
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    if not hosts:
        raise Refused(FORBIDDEN, "url: this server fetches no files; send the file itself")
    if host not in hosts and ANY_HOST not in hosts:
        raise Refused(FORBIDDEN, f"url: files may come from {', '.join(hosts)}, not from {printable(host)}")
    try:
        connection = http.client.HTTPConnection(host, port, timeout=SECONDS)
        connection.sock = _connected(host, port, public_only=host not in hosts, encrypted=parts.scheme == "https")
        try:
            target = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
            connection.request("GET", target, headers={"Accept-Encoding": "identity"})
            with connection.getresponse() as response:
                return Upload(_name(parts), _body(response, largest))
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Refused(UNREADABLE, f"url: cannot be fetched: {printable(reason)}") from error


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in _PORTS and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid:
        raise Refused(BAD, f"url: expected one such as https://server/photo.jpg, got {printable(url[:200])}")
    return parts


def _connected(host: str, port: int, *, public_only: bool, encrypted: bool) -> socket.socket:
    (*_, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if public_only and not ipaddress.ip_address(address[0]).is_global:
        raise Refused(FORBIDDEN, f"url: {printable(host)} is not a public address")
    connected = socket.create_connection((str(address[0]), port), SECONDS)
    return ssl.create_default_context().wrap_socket(connected, server_hostname=host) if encrypted else connected


def _body(response: http.client.HTTPResponse, largest: int) -> bytes:
    if response.status != http.HTTPStatus.OK:
        raise Refused(UNREADABLE, f"url: the server answers with status {response.status}")
    found = bytearray()
    while part := response.read(_CHUNK):
        found += part
        if len(found) > largest:
            raise Refused(TOO_LARGE, f"url: the file is larger than {largest:,} bytes")
    return bytes(found)


def _name(parts: SplitResult) -> str:
    return PurePosixPath(unquote(parts.path)).name or parts.hostname or "file"
