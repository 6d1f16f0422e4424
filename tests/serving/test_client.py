"""The client, against a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import live_servers, model_server, toy_bundle
from tests.serving.server.test_guard import TOKEN
from tests.serving.server.test_uploads import png
from toolkit.api.errors import DataError
from toolkit.serving.client import Client
from toolkit.serving.server.settings import Settings


def test_files_are_answered_and_refusals_are_errors(tmp_path: Path) -> None:
    bright, text = tmp_path / 'a "b".png', tmp_path / "a.txt"
    bright.write_bytes(png(250))
    text.write_bytes(b"hello")
    bundle = toy_bundle.write(tmp_path / "toy")
    with model_server.running([bundle], Settings(port=0, token=TOKEN)) as server:
        with Client(server.address, token=TOKEN) as client:
            assert [model["name"] for model in client.models()] == ["toy"]
            first, second = client.predict([bright, text], top=1)
            assert (first["name"], first["prediction"]) == ("a %22b%22.png", ["bright"])
            assert second["error"].startswith("cannot be decoded")
            with pytest.raises(DataError, match=r'/v1/predict: status 404: no model is called "toys"'):
                client.predict([bright], model="toys")
        with Client(server.address) as client, pytest.raises(DataError, match="status 401: expected the header"):
            client.models()


def test_a_busy_server_is_asked_again() -> None:
    busy = live_servers.answers("429 Too Many Requests\r\nRetry-After: 0", b'{"error": "busy"}')
    done = live_servers.answers("200 OK", b'{"models": []}')
    with live_servers.acting([busy, busy, done]) as url, Client(url) as client:
        assert client.models() == []
    with live_servers.acting([busy]) as url, Client(url, patience=0.0001) as client:
        client._connection.timeout = 60
        with pytest.raises(DataError, match="status 429: busy"):
            client.models()
    odd = live_servers.answers("500 Oh", b"<html>")
    with live_servers.acting([odd]) as url, Client(url) as client, pytest.raises(DataError, match="no reason is given"):
        client.models()
