"""Files behind addresses: only from the hosts that were allowed, and not from inside the server's network."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from tests import live_servers, loopback, model_server, toy_bundle
from tests.serving.server.test_uploads import png
from toolkit.serving.server.fetching import fetch
from toolkit.serving.server.refusals import Refused
from toolkit.serving.server.settings import Settings


def refused(url: str, hosts: tuple[str, ...], largest: int = 1000) -> tuple[int, str]:
    with pytest.raises(Refused) as error:
        fetch(url, hosts, largest)
    return error.value.status, error.value.message


@pytest.mark.parametrize(
    ("url", "hosts", "status", "says"),
    [
        ("http://127.0.0.1/a.png", (), 403, "this server fetches no files; send the file itself"),
        (
            "http://evil.example/a.png",
            ("good.example",),
            403,
            "files may come from good.example, not from evil.example",
        ),
        ("http://localhost:1/a.png", ("*",), 403, "localhost is not a public address"),
        ("http://169.254.169.254/latest", ("*",), 403, "169.254.169.254 is not a public address"),
        ("http://[::1]/a.png", ("*",), 403, "::1 is not a public address"),
        ("file:///etc/passwd", ("*",), 400, "expected one such as https://server/photo.jpg, got file:///etc/passwd"),
        ("ftp://a/b", ("*",), 400, "expected one such as"),
        ("http://", ("*",), 400, "expected one such as"),
        ("http://a:99999/", ("*",), 400, "expected one such as"),
        ("http://a:0/", ("*",), 400, "expected one such as"),
        ("http://[", ("*",), 400, "expected one such as"),
        ("//a/b", ("*",), 400, "expected one such as"),
    ],
)
def test_where_a_file_may_not_come_from(url: str, hosts: tuple[str, ...], status: int, says: str) -> None:
    found = refused(url, hosts)
    assert (found[0], says in found[1]) == (status, True), found


def test_a_file_of_an_allowed_host_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "a b.png").write_bytes(b"content")
    with loopback.serving(tmp_path) as url:
        found = fetch(f"{url}/a%20b.png?x=1", ("127.0.0.1",), 1000)
        assert (found.name, found.data) == ("a b.png", b"content")
        assert refused(f"{url}/a%20b.png", ("127.0.0.1",), 6) == (413, "url: the file is larger than 6 bytes")
        assert refused(f"{url}/b.png", ("127.0.0.1",)) == (422, "url: the server answers with status 404")


def test_a_redirection_is_not_followed() -> None:
    with live_servers.acting([live_servers.answers("302 Found\r\nLocation: http://127.0.0.1:1/")]) as url:
        assert refused(url, ("127.0.0.1",)) == (422, "url: the server answers with status 302")


def test_a_host_that_does_not_answer_is_an_error_of_the_request() -> None:
    with live_servers.acting([]) as url:
        assert refused(url, ("127.0.0.1",)) == (422, "url: cannot be fetched: Connection refused")
    with live_servers.acting([live_servers.closes]) as url:
        assert refused(url, ("127.0.0.1",))[0] == 422


def test_a_request_may_name_files(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(png(250))
    settings = Settings(port=0, url_hosts=("127.0.0.1",))
    bundle = toy_bundle.write(tmp_path / "toy")
    with loopback.serving(tmp_path) as url, model_server.running([bundle], settings) as server:
        asked = {"inputs": [{"url": f"{url}/b.png"}, {"url": f"{url}/b.png"}]}
        answer = httpx.post(f"{server.address}/v1/predict", content=json.dumps(asked), headers={
            "Content-Type": "application/json",
        })  # fmt: skip
    assert [one["prediction"] for one in answer.json()["answers"]] == [["bright"], ["bright"]]
