"""Who may ask, and what happens to requests that mean harm: a clear refusal, no growth, no crash."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests import model_server, toy_bundle
from tests.serving.server.conftest import LIMITS, Site
from tests.serving.server.test_uploads import png
from toolkit.api.errors import UsageError
from toolkit.serving.server import connections, guard
from toolkit.serving.server.guard import SAFE
from toolkit.serving.server.settings import Limits, Settings

TOKEN = "a-long-secret"


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that asks for a token."""
    bundle = toy_bundle.write(tmp_path_factory.mktemp("secret") / "images")
    settings = Settings(port=0, token=TOKEN, names=("models.example",))
    with model_server.running([bundle], settings) as server:
        yield server.address


def connected(site: Site) -> socket.socket:
    host, _, port = site.host.rpartition(":")
    return socket.create_connection((host, int(port)), 60)


def received(connection: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    found = b""
    with suppress(ConnectionResetError):
        while part := connection.recv(1 << 16):
            found += part
    return found


def exchanged(site: Site, *parts: bytes) -> bytes:
    """What the server says to these bytes."""
    with connected(site) as connection:
        for part in parts:
            connection.sendall(part)
        return received(connection)


def test_every_answer_has_the_headers_that_make_it_harmless(site: Site) -> None:
    for path in ("/", "/v2", "/nowhere"):
        answer = httpx.get(f"{site.url}{path}")
        assert {name: answer.headers[name] for name in SAFE} == dict(SAFE)
        assert "server" not in answer.headers


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost:9", 200),
        ("[::1]:8000", 200),
        ("LOCALHOST", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("10.0.0.1", 403),
        ("[", 403),
        ("", 403),
    ],
)
def test_a_page_that_is_led_here_by_its_own_name_is_refused(site: Site, host: str, status: int) -> None:
    answer = httpx.get(f"{site.url}/v2", headers={"Host": host})
    assert answer.status_code == status
    if status == 403:
        assert answer.json() == {"error": "this server has another name; see serve --allow-host"}


@pytest.mark.parametrize(
    ("origin", "status"), [("own", 200), ("https://evil.example", 403), ("null", 403), ("http://127.0.0.1:1", 403)]
)
def test_a_page_of_another_site_is_refused(site: Site, origin: str, status: int) -> None:
    asked = {"Origin": site.url if origin == "own" else origin}
    answer = httpx.post(f"{site.url}/v1/predict", files={"file": png(9)}, data={"model": "images"}, headers=asked)
    assert answer.status_code == status


def test_a_token_is_asked_for(secret: str) -> None:
    for path in ("/v2", "/metrics", "/v1/models", "/openapi.json", "/v2/models/images"):
        answer = httpx.get(f"{secret}{path}")
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert answer.json() == {"error": "expected the header Authorization: Bearer TOKEN"}
    for word in (f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer", TOKEN):
        assert httpx.get(f"{secret}/v2", headers={"Authorization": word}).status_code == 401
    assert httpx.get(f"{secret}/v2", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    for path in ("/", "/v2/health/live", "/v2/health/ready"):
        assert httpx.get(f"{secret}{path}").status_code == 200


def test_a_further_name_is_allowed(secret: str) -> None:
    assert httpx.get(f"{secret}/v2/health/live", headers={"Host": "models.example"}).status_code == 200


def test_reading_changes_nothing(site: Site) -> None:
    for path in ("/v1/predict", "/v2/models/images/infer", "/v2/repository/index"):
        answer = httpx.get(f"{site.url}{path}")
        assert (answer.status_code, answer.headers["allow"], answer.json()) == (
            405, "POST", {"error": "Method Not Allowed"},
        )  # fmt: skip


def test_a_body_that_is_too_large_is_refused_before_it_is_read(site: Site) -> None:
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    said = exchanged(site, head + b"Content-Length: 99999999999\r\n\r\n")
    assert b" 413 " in said
    assert b"a body of 99,999,999,999 bytes; the limit is 4,194,304" in said
    assert b"onnection: close" in said


def test_a_body_without_a_length_is_counted(site: Site) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(LIMITS.body // 65536 + 2):
            yield bytes(65536)

    answer = httpx.post(f"{site.url}/v2/models/images/infer", content=endless())
    assert answer.status_code == 413


def test_a_compressed_body_is_not_read(site: Site) -> None:
    answer = httpx.post(f"{site.url}/v2/models/images/infer", content=b"x", headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()) == (415, {"error": "compressed bodies are not read"})


def test_slow_requests_are_ended(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.05)
    monkeypatch.setattr(guard, "PART_SECONDS", 0.05)
    said = exchanged(site, b"GET /v2 HTTP/1.1\r\nHost: loc")
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"the request did not come in time" in said
    assert exchanged(site).startswith(b"HTTP/1.1 408 ")
    with connected(site) as connection:
        connection.sendall(b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET /v2 HT")
        assert b"HTTP/1.1 408 " in received(connection)
    head = b"POST /v2/models/images/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
    said = exchanged(site, head)
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"the body did not come in time" in said


HOST = b"Host: localhost\r\n"
POST = b"POST /v2/models/images/infer HTTP/1.1\r\n" + HOST
HOSTILE = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(60) + b"\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /v2 HTTP/1.1\r\n\r\n",
    b"GET /v2 HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    b"GET /v2 HTTP/1.1\r\n" + HOST + b"X: a\r\n" * 8000 + b"\r\n",
    b"GET /v2 HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 80_000 + b"\r\n\r\n",
    b"GET /" + b"a" * 80_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /v1/models/..%2f..%2fetc%2fpasswd/card HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /v1/models/../../../../etc/passwd HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /v2/models/%00/ready HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /v2/models/images%0d%0aX:y/ready HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET //evil.example/ HTTP/1.1\r\n" + HOST + b"\r\n",
    b"DELETE /v2/models/images HTTP/1.1\r\n" + HOST + b"\r\n",
    b"PUT /v2/models/images HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nabc",
    b"TRACE / HTTP/1.1\r\n" + HOST + b"\r\n",
    b"CONNECT evil.example:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    POST + b"Content-Length: -5\r\n\r\n",
    POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffff\r\n",
    POST + b"Transfer-Encoding: gzip\r\n\r\n",
    POST + b"Content-Length: 2\r\nInference-Header-Content-Length: 99999999999999999\r\n\r\n{}",
    POST + b"Content-Length: 2\r\nOrigin: http://evil.example\r\n\r\n{}",
    POST + b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: eA==\r\n\r\n",
    b"POST /v1/predict HTTP/1.1\r\n"
    + HOST
    + b"Content-Type: multipart/form-data; boundary=\r\nContent-Length: 1\r\n\r\n-",
]
"""Requests of which none may be answered as if it were in order."""


def bodies(count: int) -> Iterator[bytes]:
    """Random changes of a good request with a tensor."""
    draw = random.Random(0)
    tensor = {"name": "frames", "datatype": "UINT8", "shape": [1, 2, 2, 3], "data": [0] * 12}
    good = json.dumps({"inputs": [tensor]}).encode()
    for _ in range(count):
        body = bytearray(good)
        for _ in range(draw.randint(1, 4)):
            body[draw.randrange(len(body))] = draw.choice(b'{}[]",:0-9eE\x00\xff')
        yield POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + bytes(body)


def test_hostile_requests_are_refused_and_the_server_goes_on(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 1.0)
    monkeypatch.setattr(guard, "PART_SECONDS", 1.0)
    for number, request in enumerate(HOSTILE):
        head = request.replace(HOST, HOST + b"Connection: close\r\n", 1)
        said = exchanged(site, head)
        assert said[:10] in (b"HTTP/1.1 4", b"HTTP/1.0 4"), (number, request[:80], said[:200])
    for request in bodies(175):
        said = exchanged(site, request)
        assert said[:10] in (b"HTTP/1.1 4", b"HTTP/1.1 2"), (request, said[:200])
    assert httpx.get(f"{site.url}/v2/health/ready").status_code == 200


def test_a_request_that_goes_away_leaves_nothing(site: Site) -> None:
    with connected(site) as connection:
        connection.sendall(POST + b"Content-Length: 100\r\n\r\n{")
    assert httpx.get(f"{site.url}/v2/health/ready").status_code == 200


def test_all_bodies_together_have_a_limit() -> None:
    held = guard.Bodies(10)
    held.take(50)  # nobody else is here
    with pytest.raises(guard.Refused, match="requests of 50 bytes are being answered") as refused:
        held.take(1)
    assert (refused.value.status, refused.value.retry_after) == (429, 1)


@pytest.mark.parametrize(
    ("host", "header", "allowed"),
    [
        ("0.0.0.0", "192.168.1.7:8000", True),
        ("0.0.0.0", "[fe80::1]", True),
        ("0.0.0.0", socket.gethostname(), True),
        ("0.0.0.0", "evil.example", False),
        ("127.0.0.1", "192.168.1.7", False),
        ("127.0.0.2", "127.0.0.2:80", True),
    ],
)
def test_an_exposed_server_is_reached_by_addresses_and_its_own_name(host: str, header: str, allowed: bool) -> None:
    settings = Settings(host=host)
    assert settings.allows_host(header) is allowed
    assert settings.exposed is (host == "0.0.0.0")


def test_each_request_is_a_line_without_contents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(port=0, log=True, limits=Limits(waiting=1))
    with model_server.running([toy_bundle.write(tmp_path / "images")], settings) as server:
        answer = httpx.post(f"{server.address}/v1/predict?a=secret", files={"file": ("secret.png", png(9))})
        assert answer.status_code == 200
        metrics = httpx.get(f"{server.address}/metrics").text
    (line, _) = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (line["method"], line["path"], line["status"], line["client"]) == ("POST", "/v1/predict", 200, "127.0.0.1")
    assert "secret" not in json.dumps(line)
    assert 'toolkit_requests_total{route="predict",status="200"} 1.0' in metrics
    assert 'toolkit_batch_size_bucket{le="1.0",model="images"} 1.0' in metrics
    assert 'toolkit_queue_seconds_count{model="images"} 1.0' in metrics
    assert 'toolkit_compute_seconds_count{model="images"} 1.0' in metrics


def test_a_port_in_use_is_named(site: Site, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"--port {site.server.port}: Address already in use") as refused:
        model_server.Running(Settings(port=site.server.port), model_server.Opening("cpu"))
    assert refused.value.next_step == "use a free one: --port 0"
