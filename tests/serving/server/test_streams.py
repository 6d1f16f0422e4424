"""Cameras and live URLs that clients listen to, from servers on this machine's own loopback."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import live_servers, model_server, toy_bundle
from toolkit.api.clips import Clip
from toolkit.api.errors import DataError, UsageError
from toolkit.serving.client import Client
from toolkit.serving.predict import reconnecting
from toolkit.serving.server import command, running, streams
from toolkit.serving.server.running import Running
from toolkit.serving.server.settings import Settings
from toolkit.serving.server.streams import AGAIN, HELD, Event, Listener, sources_of


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Two seconds of a stream."""
    return live_servers.transport(tmp_path_factory.mktemp("stream") / "live.ts")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_bundle.write(tmp_path_factory.mktemp("bundles") / "images")


def plays_on(data: bytes, gone: threading.Event | None = None) -> live_servers.Act:
    """Play over and over until nobody listens: FFmpeg waits for more than two seconds before it shows the first."""

    def act(connection: socket.socket) -> None:
        ended = gone or threading.Event()
        try:
            connection.sendall(live_servers.HEAD + b"\r\n")
            while not ended.wait(0.02):
                connection.sendall(data)
        except OSError:
            ended.set()

    return act


@contextmanager
def serving(bundle: Path, url: str, *more: Path, reconnect: float = 0) -> Iterator[Running]:
    settings = Settings(port=0, sources=[f"door={url}"], reconnect=reconnect)
    with model_server.running([bundle, *more], settings) as server:
        yield server


def events(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    kind = ""
    for line in lines:
        field, _, value = line.partition(": ")
        if field == "event":
            kind = value
        if field == "data":
            yield kind, json.loads(value)


@contextmanager
def listening(server: Running, **asked: str) -> Iterator[Iterator[tuple[str, dict[str, Any]]]]:
    with (
        httpx.Client(timeout=30) as client,
        client.stream("GET", f"{server.address}/v1/stream", params={"source": "door", **asked}) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = response.iter_lines()
        assert next(lines) == f"retry: {AGAIN}"
        yield events(lines)


def test_answers_come_as_events_until_the_source_ends(bundle: Path, data: bytes) -> None:
    with (
        live_servers.acting([live_servers.plays(data)]) as url,
        serving(bundle, url) as server,
        listening(server, top="1") as found,
    ):
        *answers, end = found
    assert end == ("end", {"message": f"{url}: it ended", "failed": False})
    assert {kind for kind, _ in answers} == {"answer"}
    _, first = answers[0]
    assert first["prediction"] in (["dark"], ["bright"])
    assert len(first["classes"]) == 1
    assert first["start"] == first["end"]
    assert first["time"].endswith("Z")


def test_clips_are_answered_with_the_part_that_they_see(tmp_path: Path, data: bytes) -> None:
    clips = toy_bundle.write(tmp_path / "clips", clip=Clip(frames=4, rate=3))
    with (
        live_servers.acting([live_servers.plays(data)]) as url,
        serving(clips, url) as server,
        listening(server) as found,
    ):
        answers = [said for kind, said in found if kind == "answer"]
    assert answers
    assert all(said["end"] - said["start"] == pytest.approx(0.4, abs=1e-3) for said in answers)


def test_all_who_listen_share_one_reader_that_ends_with_the_last(bundle: Path, data: bytes) -> None:
    """The source takes one connection."""
    gone = threading.Event()
    with live_servers.acting([plays_on(data, gone)]) as url, serving(bundle, url) as server:
        with listening(server) as first:
            assert next(first)[0] == "answer"
            with listening(server) as second:
                assert "toolkit_listeners 2.0" in httpx.get(f"{server.address}/metrics").text
                assert next(second)[0] == "answer"
            assert next(first)[0] == "answer"
            assert not gone.is_set()
        assert gone.wait(30)
        assert httpx.get(f"{server.address}/v1/models").json()["sources"] == ["door"]


def test_a_source_that_cannot_be_opened_ends_with_the_reason(bundle: Path) -> None:
    with live_servers.acting([]) as url, serving(bundle, url) as server:
        with listening(server) as found:
            ((kind, said),) = found
        assert (kind, said["failed"]) == ("end", True)
        assert "cannot be opened" in said["message"]
        with Client(server.address) as client, pytest.raises(DataError, match=r"/v1/stream: .*cannot be opened"):
            next(client.stream("door"))


def test_the_client_yields_answers_until_the_end(bundle: Path, data: bytes) -> None:
    with (
        live_servers.acting([live_servers.plays(data)]) as url,
        serving(bundle, url) as server,
        Client(server.address) as client,
    ):
        answers = [*client.stream("door", top=1)]
        assert answers
        assert all(len(answer["classes"]) == 1 for answer in answers)
        with pytest.raises(DataError, match='status 404: source: none is called "dor"; there are door'):
            next(client.stream("dor"))


def test_a_lost_source_is_opened_again_with_a_note(bundle: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconnecting, "FIRST_WAIT", 0.01)
    acts = [live_servers.plays(data), plays_on(data)]
    with (
        live_servers.acting(acts) as url,
        serving(bundle, url, reconnect=3) as server,
        listening(server) as found,
    ):
        notes = (said["message"] for kind, said in found if kind == "note")
        assert next(notes) == f"{url}: it ended; opening it again"
        assert "open again, after" in next(notes)


def test_the_end_of_the_server_is_an_event(bundle: Path, data: bytes) -> None:
    with live_servers.acting([plays_on(data)]) as url:
        heard: list[tuple[str, dict[str, Any]]] = []
        begun = threading.Event()

        def listen(server: Running) -> None:
            with listening(server) as found:
                for event in found:
                    heard.append(event)
                    begun.set()

        with serving(bundle, url) as server:
            thread = threading.Thread(target=listen, args=(server,))
            thread.start()
            assert begun.wait(30)
        thread.join(30)
    assert heard[-1] == ("end", {"message": "the server ends", "failed": False})


def test_a_model_that_is_replaced_ends_with_a_reason(
    tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "LOOKS", 0.01)
    folder = toy_bundle.write(tmp_path / "images")
    new = toy_bundle.write(tmp_path / "new" / "images", created="2032-01-01T00:00:00+00:00")
    with live_servers.acting([plays_on(data)]) as url, serving(folder, url) as server, listening(server) as found:
        assert next(found)[0] == "answer"
        (new / "bundle.json").replace(folder / "bundle.json")
        assert [said for kind, said in found if kind == "end"] == [
            {"message": "the model was replaced; listen again", "failed": False}
        ]


def test_what_cannot_be_listened_to_is_refused(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = toy_bundle.write(tmp_path / "other")

    def refused(server: Running, **asked: str) -> tuple[int, str]:
        response = httpx.get(f"{server.address}/v1/stream", params=asked)
        return response.status_code, response.json()["error"]

    with serving(bundle, "http://127.0.0.1:9/live", other) as server:
        assert refused(server, source="door") == (400, "model: expected one of images, other")
        assert refused(server, source="x\x1b", model="images") == (
            404,
            'source: none is called "x\\x1b"; there are door',
        )
        assert refused(server, source="door", model="images", top="none")[0] == 400
        monkeypatch.setattr(streams, "MOST_LISTENERS", 0)
        assert refused(server, source="door", model="images") == (429, "0 requests listen already")
    with model_server.running([bundle], Settings(port=0)) as server:
        assert refused(server) == (404, 'source: none is called ""; see serve --source')


def test_who_listens_slowly_loses_the_oldest_events_and_learns_how_many() -> None:
    async def heard() -> list[tuple[Any, int]]:
        listener = Listener()
        for number in range(HELD + 3):
            listener.put(Event("answer", lambda top, number=number: {"number": number}))  # type: ignore[misc]
        found = [await listener.next() for _ in range(2)]
        return [(event.say(1), dropped) for event, dropped in found]

    assert asyncio.run(heard()) == [({"number": 3}, 3), ({"number": 4}, 0)]
    event = Event("answer", lambda top: {"top": top})
    assert event.encoded(2, 3) == b'event: answer\ndata: {"top": 2, "dropped": 3}\n\n'


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["door"], "expected NAME=CAMERA or NAME=URL, got door"),
        (["=0"], "expected NAME=CAMERA or NAME=URL, got =0"),
        (["a b=0"], "expected NAME=CAMERA or NAME=URL, got a b=0"),
        (["a=0", "a=1"], "a is named twice"),
        (["a=clip.mp4"], "--source a: clip.mp4 is neither a camera's number nor a URL"),
        (["a=file:///etc/passwd"], "unsupported URL scheme file"),
    ],
)
def test_a_source_that_has_no_meaning_is_refused(texts: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        sources_of(texts)
    assert caught.value.next_step


def test_sources_are_cameras_and_live_urls_whose_passwords_are_not_shown() -> None:
    found = sources_of(["desk=0", "door=rtsp://user:secret@camera.local/1", "site=http://server/live.ts"])
    assert [(name, one.kind, one.name) for name, one in found.items()] == [
        ("desk", "camera", "camera 0"),
        ("door", "stream", "rtsp://camera.local/1"),
        ("site", "stream", "http://server/live.ts"),
    ]


def test_the_command_shows_its_sources_without_passwords(bundle: Path) -> None:
    settings = Settings(port=0, sources=["door=rtsp://user:secret@camera.local/1"])
    with model_server.running([bundle], settings) as server:
        assert "source door: rtsp://camera.local/1" in command.greeting(server)


def test_attempts_below_none_are_refused() -> None:
    with pytest.raises(UsageError, match="--reconnect: must be at least 0, got -1"):
        command.check(Settings(reconnect=-1))


def test_the_code_of_the_guide_prints_answers(bundle: Path, data: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    guide = (Path(__file__).parents[3] / "docs" / "how-to" / "serve.md").read_text(encoding="utf-8")
    (code,) = re.findall(r'```python title="listen.py"\n(.*?)```', guide, re.DOTALL)
    with live_servers.acting([live_servers.plays(data)]) as url, serving(bundle, url) as server:
        exec(code.replace("http://127.0.0.1:8000", server.address).replace('"actions"', '"images"'), {})
    assert re.fullmatch(r"(\S+Z \['(dark|bright)'\]\n)+", capsys.readouterr().out)
